"""Several classes of defects: read, trained, judged and told apart, by the same way as one."""

import json
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ksdd_lib import storage
from ksdd_lib.data.dataset import read_mask
from ksdd_lib.data.layout_note import class_names, read_classes, write_classes
from ksdd_lib.data.survey import find_samples
from ksdd_lib.deploy import detection, folder_table, weights
from ksdd_lib.errors import DataError, RunError, SettingsError
from ksdd_lib.evaluation import metrics, predictions, threshold_costs
from ksdd_lib.evaluation.classes import class_scores, named
from ksdd_lib.evaluation.predictions import ClassScore, Prediction, of_highest
from ksdd_lib.evaluation.results import require_true
from ksdd_lib.evaluation.summary import Summary, class_thresholds, conclude
from ksdd_lib.layouts.arrange import convert
from ksdd_lib.pipeline import run_series
from ksdd_lib.presets import resolve
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import DataSet, prepare_data
from ksdd_lib.training.batches import Pasted, Shown, load_surfaces

SIDE = 128
SCRATCH, SPOT = [[20, 40], [100, 44], [100, 50], [20, 46]], [[70, 80], [84, 80], [84, 94], [70, 94]]


def write_parts(root: Path, items: int = 9) -> Path:
    """Pictures with labelme files: of each item a good one, a dark scratch, and a bright spot.

    The first item has both, which touch, on one picture; the last has a defect without a name.
    """
    root.mkdir()
    for item in range(items):
        both = [("scratch", SCRATCH), ("spot", [[100, 44], [112, 44], [112, 56], [100, 56]])]
        odd = [("", SPOT)] if item == items - 1 else [("spot", SPOT)]
        kinds = [[], [("scratch", SCRATCH)], odd, *([both] if item == 0 else [])]
        for part, shapes in enumerate(kinds):
            random = np.random.default_rng([item, part])
            image = 128 + 20 * cv2.GaussianBlur(random.standard_normal((SIDE, SIDE)), (0, 0), 1.5)
            drawn = []
            for label, points in shapes:
                moved = np.array(points) + random.integers(-8, 9, 2)
                moved = np.array(points) if len(shapes) > 1 else moved
                gray = 20 if len(shapes) == 1 and points is SCRATCH else 40 * (label == "scratch")
                cv2.fillPoly(image, [moved.astype(np.int32)], gray or 250)
                drawn.append({"label": label, "points": moved.tolist(), "shape_type": "polygon"})
            name = f"part{item}_{part}"
            cv2.imwrite(str(root / f"{name}.png"), image.clip(0, 255).astype(np.uint8))
            labels = {"version": "5.0", "imagePath": f"{name}.png", "shapes": drawn}
            (root / f"{name}.json").write_text(json.dumps(labels))
    return root


SETTINGS = {
    "preset": "demo",
    "classes": "each",
    "item": "(.+)_.+",
    "twins": "identical",
    "image_size": "128x128",
    "segmentation_steps": 120,
    "decision_steps": 120,
    "segmentation_learning_rate": 0.003,
    "flips": False,
    "average_flips": False,
}


@pytest.fixture(scope="module")
def run(narrow, tmp_path_factory):
    """A run that is ready to train."""
    folder = tmp_path_factory.mktemp("classes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSDD_HOME", str(folder / "home"))
        root = write_parts(folder / "parts")
        run = open_run(folder / "run", SETTINGS | {"data": str(root)})
        prepare_data(run)
    return run


@pytest.fixture(scope="module")
def trained(run):
    """The same, with results."""
    run_series(run)
    return run


def test_two_classes_that_touch_and_one_without_a_name_are_read_as_drawn(run):
    data = prepare_data(run)
    assert data.classes == ("defect", "scratch", "spot")
    by_name = {sample.name: sample for sample in data.samples}
    both = by_name["part0/part0_3"]
    masks = read_classes(both, data.classes)
    assert both.classes == ("scratch", "spot") and [m.any() for m in masks] == [False, True, True]
    assert (masks[1] | masks[2] == read_mask(both)).all()
    assert masks[1, 42, 50] and not masks[1, 50, 110] and masks[2, 50, 110], "each its own"
    assert (masks[1] & masks[2]).any(), "their outlines share pixels"
    unnamed = read_classes(by_name["part8/part8_2"], data.classes)
    assert (unnamed[0] == read_mask(by_name["part8/part8_2"])).all() and not unnamed[1:].any()
    assert not read_classes(by_name["part3/part3_0"], data.classes).any()


@pytest.mark.fault(72)
@pytest.mark.parametrize("count", [2, 16, 17, 40])
def test_masks_of_many_classes_overlap_and_come_back(count, tmp_path, run):
    sample = replace(
        next(s for s in prepare_data(run).samples if len(s.classes) == 2),
        classes=tuple(f"class{number:02}" for number in range(count)),
        class_path=tmp_path / "x" / "y.png",
    )
    masks = np.random.default_rng(count).random((count, *sample.size)) > 0.5
    masks[0, read_mask(sample) & ~masks.any(0)] = True
    masks &= read_mask(sample)
    write_classes(sample.class_path, masks)
    assert (read_classes(sample, sample.classes) == masks).all()
    assert (read_classes(sample, ("a", *sample.classes))[1:] == masks).all()


def with_masks(root: Path) -> Path:
    """The same pictures in item folders, with masks and labelme files, as notebook 1 draws them."""
    for file in sorted(root.glob("*.json")):
        value, item = json.loads(file.read_text()), root / file.stem.partition("_")[0]
        item.mkdir(exist_ok=True)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for shape in value["shapes"]:
            cv2.fillPoly(mask, [np.array(shape["points"], np.int32)], 255)
        cv2.imwrite(str(item / f"{file.stem}_label.png"), mask)
        (item / file.name).write_text(json.dumps(value | {"mask_file": f"{file.stem}_label.png"}))
        file.with_suffix(".png").rename(item / f"{file.stem}.png")
        file.unlink()
    return root


def prepared(folder: Path, root: Path, **chosen: object) -> DataSet:
    """The data of a new run."""
    settings = {"preset": "cpu", "twins": "identical", "classes": "each", "data": str(root)}
    return prepare_data(open_run(folder, settings | chosen))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty place for data that is written as item folders."""
    monkeypatch.setenv("KSDD_HOME", str(tmp_path / "home"))
    return tmp_path


def test_what_notebook_1_draws_in_item_folders_has_its_classes(home):
    root = with_masks(write_parts(home / "parts"))
    data = prepared(home / "run", root)
    assert data.classes == ("defect", "scratch", "spot")
    both = next(one for one in data.samples if one.name == "part0/part0_3")
    masks = read_classes(both, data.classes)
    assert masks[1, 42, 50] and not masks[2, 42, 50] and masks[2, 50, 110]
    assert data.record.report.classes == {"defect": 1, "scratch": 10, "spot": 9}
    as_one = prepared(home / "one", root, classes="one")
    assert as_one.classes == () and as_one.root == root, "read as it lies"


@pytest.mark.fault(72)
@pytest.mark.parametrize("change", ["label", "no classes", "cut", "other size"])
def test_classes_that_no_longer_fit_their_label_are_refused(change, home):
    root = write_parts(home / "parts")
    convert(root, home / "written", resolve({"preset": "cpu", "item": "(.+)_.+"}))
    assert prepared(home / "before", home / "written").classes == ("defect", "scratch", "spot")
    label = home / "written" / "part0" / "part0_3_label.png"
    kept = home / "written" / ".classes" / "part0" / "part0_3.png"
    if change == "label":
        mask = cv2.imread(str(label), 0)
        mask[100:110, 5:20] = 255
        cv2.imwrite(str(label), mask)
    elif change == "no classes":
        kept.unlink()
    elif change == "cut":
        kept.write_bytes(kept.read_bytes()[:40])
    else:
        cv2.imwrite(str(kept), np.ones((SIDE, SIDE - 1), np.uint16))
    with pytest.raises(DataError, match="part0/part0_3 has several classes, .* Write the data"):
        prepared(home / "after", home / "written")
    assert prepared(home / "one", home / "written", classes="one").samples


FOREIGN = (".git/part0/x.png", "part0/.layout.json", ".classes/part0/deep/x.png", ".classes/run.sh")


def zipped(folder: Path, top: str, slash: str = "/") -> Path:
    """A folder as a zip file, with other hidden files beside its own, below `top`."""
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = top + path.relative_to(folder).as_posix()
            file.writestr(name.replace("/", slash), path.read_bytes())
        for name in FOREIGN:
            file.writestr((top + name).replace("/", slash), b"foreign")
        file.writestr(f"__MACOSX/{top}._.layout.json", b"foreign")
    return target


@pytest.mark.fault(72)
@pytest.mark.parametrize(("top", "slash"), [("", "/"), ("written/", "/"), ("my parts/", "\\")])
def test_a_zip_of_written_item_folders_keeps_their_classes(home, top, slash):
    root = write_parts(home / "parts")
    convert(root, home / "written", resolve({"preset": "cpu", "item": "(.+)_.+"}))
    before = prepared(home / "before", home / "written")
    data = prepared(home / "run", zipped(home / "written", top, slash=slash))
    assert data.classes == before.classes == ("defect", "scratch", "spot")
    for one, other in zip(data.samples, before.samples, strict=True):
        assert one.name == other.name and one.classes == other.classes
        mine, theirs = (read_classes(each, data.classes) for each in (one, other))
        assert (mine == theirs).all()
    hidden = {path.name for path in data.root.rglob(".*")} - {".unpacked.json"}
    assert hidden == {".layout.json", ".classes"} and len(list(data.root.glob(".classes/*/*"))) == 1


@pytest.mark.fault(72)
@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (".", r"\.layout\.json and \.classes, which are hidden: copy these too"),
        (".layout.json", r"\.layout\.json and \.classes, which are hidden: copy these too"),
        (".classes", r"part0/part0_3 has several classes, .*\.classes beside the items is missing"),
    ],
)
def test_item_folders_that_lost_their_hidden_files_are_refused_in_words(home, kind, lost, told):
    root = write_parts(home / "parts")
    convert(root, home / "written", resolve({"preset": "cpu", "item": "(.+)_.+"}))
    for name in (".layout.json", ".classes") if lost == "." else (lost,):
        path = home / "written" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    data = home / "written" if kind == "folder" else zipped(home / "written", "written/")
    with pytest.raises(DataError, match=told):
        prepared(home / "run", data)
    assert prepared(home / "one", data, classes="one").samples


@pytest.mark.fault(72)
@pytest.mark.parametrize("change", ["names", "masks"])
def test_a_run_whose_classes_were_named_anew_is_refused(change, home):
    root = write_parts(home / "parts")
    settings = {"item": "(.+)_.+"}
    prepared(home / "run", root, **settings)
    one = prepared(home / "one", root, classes="one", **settings).fingerprint
    file = root / ("part1_1.json" if change == "names" else "part0_3.json")
    swapped = {"scratch": "spot", "spot": "scratch"}
    value = json.loads(file.read_text())
    for shape in value["shapes"]:
        shape["label"] = swapped[shape["label"]]
    file.write_text(json.dumps(value))
    with pytest.raises(RunError, match="is not what run was begun with"):
        prepared(home / "run", root, **settings)
    assert prepared(home / "one", root, classes="one", **settings).fingerprint == one


def test_two_files_that_name_one_outline_otherwise_are_both_heard(home):
    root = write_parts(home / "parts")
    value = json.loads((root / "part1_1.json").read_text())
    value["shapes"][0]["label"] = "dent"
    (root / "again.json").write_text(json.dumps(value))
    data = prepared(home / "run", root, item="(.+)_.+")
    sample = next(one for one in data.samples if one.name == "part1/part1_1")
    assert sample.classes == ("dent", "scratch")
    masks = read_classes(sample, data.classes)
    assert (masks[data.classes.index("dent")] == read_mask(sample)).all()
    assert (masks[data.classes.index("scratch")] == read_mask(sample)).all()


@pytest.mark.fault(72)
def test_a_rule_that_knows_no_classes_and_a_class_called_good_are_refused(home):
    for method in ("darkest_pixel", "local_contrast"):
        with pytest.raises(SettingsError, match=f"the {method.replace('_', ' ')} knows no classes"):
            resolve({"preset": "cpu", "classes": "each", "method": method})
    root = write_parts(home / "parts")
    for file in root.glob("*.json"):
        file.write_text(file.read_text().replace("scratch", "good"))
    with pytest.raises(DataError, match="is called good: rename it"):
        prepared(home / "run", root, item="(.+)_.+")


def test_data_without_classes_is_refused_where_each_is_asked_for(tiny_root, tmp_path):
    run = open_run(tmp_path / "run", {"preset": "cpu", "data": str(tiny_root), "classes": "each"})
    with pytest.raises(DataError, match="The labels name no classes: leave classes at one"):
        prepare_data(run)
    with pytest.raises(DataError, match="name no classes"):
        class_names(find_samples(tiny_root))


def test_a_pasted_defect_keeps_its_class_and_two_of_them_are_not_pasted(run):
    data = prepare_data(run)
    rows = [next(s for s in data.samples if s.classes == kind) for kind in ((), ("spot",))]
    rows += [next(s for s in data.samples if len(s.classes) == 2)]
    surfaces = load_surfaces(rows, (SIDE, SIDE), "fine", data.classes)
    assert surfaces.label(0).tolist() == [[0, 0, 0]] and surfaces.label(1).tolist() == [[0, 0, 1]]
    assert surfaces.label(2).tolist() == [[0, 1, 1]]
    image, mask = surfaces.show(Shown(1, 0, Pasted(0, 0.5, 1.0)))
    assert mask.shape == (1, 3, SIDE, SIDE) and mask[0].amax((1, 2)).tolist() == [0, 0, 1]
    assert not image.equal(surfaces.image(1))
    image, mask = surfaces.show(Shown(2, 0, Pasted(0, 0.5, 1.0)))
    assert image.equal(surfaces.image(2)) and mask.equal(surfaces.mask(2))


@pytest.mark.slow
def test_the_classes_are_told_apart(trained):
    run = trained
    rows = predictions.read_predictions(run.folder / "predictions.csv")
    found = storage.read_record(run.folder / "metrics.json", Summary).class_scores
    assert [one.name for one in found.classes] == ["defect", "scratch", "spot"]
    scores = {one.name: one.ap for one in found.classes}
    assert scores["scratch"] > 0.95 and scores["spot"] > 0.8, "about 0.35 by chance"
    row = found.confusion["scratch"]
    assert row["scratch"] >= 8 and row["scratch"] > 2 * row["spot"], "one part shows both"
    passed = sum(not row.is_flagged and not row.is_defective for row in rows)
    assert found.confusion["good"]["good"] == passed, "one that is flagged may count twice"
    assert all(row.score == max(one.score for one in row.classes) for row in rows)
    page = (run.folder / "report.html").read_text("utf-8")
    assert "the classes told apart" in page and "<th>scratch</th>" in page


@pytest.mark.slow
def test_a_model_that_is_given_away_names_the_classes(trained, tmp_path):
    run = trained
    data = prepare_data(run)
    weights.publish(run, data, 0, tmp_path / "m.safetensors")
    detector = detection.load(tmp_path / "m.safetensors")
    assert list(detector.class_thresholds) == list(data.classes)
    rows = predictions.read_predictions(run.folder / "predictions.csv")
    shown = [row for row in rows if row.fold == 0 and row.is_flagged]
    paths = {sample.name: sample.image_path for sample in data.samples}
    for row in shown:
        verdict = detector.judge(paths[row.image])
        each = {one.name: one.score for one in row.classes}
        assert {one.class_name for one in verdict.defects} <= set(data.classes)
        assert verdict.label == "defective" and verdict.score == pytest.approx(row.score, abs=0.1)
        assert verdict.classes[0] == named(each, detector.class_thresholds)[0]
        assert verdict.mask.shape == (SIDE, SIDE)
    rows = folder_table.judge_folder(detector, paths[shown[0].image])
    folder_table.write_verdicts(tmp_path / "t.json", rows)
    assert storage.read_json(tmp_path / "t.json")[0]["classes"].split("; ")[0] in data.classes


def prediction(number: int, fold: int, scores: dict[str, float], there: str = "") -> Prediction:
    return Prediction(
        image=f"i{number}/p",
        item=f"i{number}",
        fold=fold,
        seed=0,
        is_defective=bool(there),
        score=max(scores.values()),
        map_score=0.0,
        classes=tuple(ClassScore(name, score, name == there) for name, score in scores.items()),
    )


def test_a_class_of_three_samples_and_one_that_other_folds_lack_have_thresholds(tmp_path):
    rows = [
        prediction(0, 0, {"a": 3.0, "b": -2.0, "=c": -4.0}, "a"),
        prediction(1, 0, {"a": -3.0, "b": -2.0, "=c": -4.0}),
        prediction(2, 0, {"a": -1.0, "b": 4.0, "=c": 1.0}, "b"),
        prediction(3, 1, {"a": 2.0, "b": -2.0, "=c": -4.0}, "a"),
        prediction(4, 1, {"a": -3.0, "b": -4.0, "=c": -4.0}),
        prediction(5, 2, {"a": 5.0, "b": -2.0, "=c": -4.0}, "a"),
        prediction(6, 2, {"a": -3.0, "b": -2.0, "=c": -5.0}),
    ]
    tested = {fold: {row.item for row in rows if row.fold == fold} for fold in range(3)}
    train = {fold: set().union(*tested.values()) - items for fold, items in tested.items()}
    judged, _ = conclude(rows, "clean", 0, train)
    found = class_scores(judged, train)
    each = {one.name: one for one in found.classes}
    assert each["a"].images == 3 and each["a"].ap == 1.0 and each["=c"].ap is None
    b = {one.fold: one for one in each["b"].folds}
    assert b[0].threshold == 0.0 and b[0].threshold_from.images == 0, "no other fold has it"
    assert b[1].threshold == 1.0 and b[1].threshold_from.defective == 1
    assert found.confusion["a"] == {"a": 3, "b": 0, "=c": 0, "good": 0}
    assert found.confusion["b"]["b"] == 1 and found.confusion["good"]["good"] == 3
    predictions.write_predictions(tmp_path / "p.csv", judged)
    assert predictions.read_predictions(tmp_path / "p.csv") == judged
    text = (tmp_path / "p.csv").read_text("utf-8")
    (tmp_path / "p.csv").write_text(text.replace("is b", "is x", 1), "utf-8")
    with pytest.raises(RunError, match="has the columns"):
        predictions.read_predictions(tmp_path / "p.csv")


def test_edited_numbers_of_classes_are_refused():
    rows = [
        prediction(k, k % 3, {"a": 3.0 - k, "b": k - 9.0}, "a" if k < 6 else "b" if k > 8 else "")
        for k in range(12)
    ]
    tested = {fold: {row.item for row in rows if row.fold == fold} for fold in range(3)}
    train = {fold: set().union(*tested.values()) - items for fold, items in tested.items()}
    judged, summary = conclude(rows, "clean", 0, train)
    found = class_scores(judged, train)
    require_true(summary.model_copy(update={"class_scores": found}), judged, train)
    row = found.confusion["a"] | {"b": 7}
    other = found.model_copy(update={"confusion": found.confusion | {"a": row}})
    with pytest.raises(RunError, match="class_scores confusion a b: stored 7"):
        require_true(summary.model_copy(update={"class_scores": other}), judged, train)


def many(count: int, seed: int, classes: tuple[str, ...] = ("a", "b", "=c")) -> list[Prediction]:
    """Rows whose classes have scores of other levels, so that each needs a threshold of its own."""
    random = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        there = ["", *classes][random.integers(len(classes) + 1)]
        scores = {
            name: round(4 * number - 6 + 2 * (name == there) + random.normal(), 1)
            for number, name in enumerate(classes)
        }
        rows.append(prediction(k, k % 3, scores, there))
    return rows


Judged = tuple[list[Prediction], Summary, dict[int, set[str]]]


def concluded(rows: list[Prediction], by_class: bool = True) -> Judged:
    """The judged rows, their summary with the classes, and the items of training."""
    tested = {fold: {row.item for row in rows if row.fold == fold} for fold in range(3)}
    train = {fold: set().union(*tested.values()) - items for fold, items in tested.items()}
    judged, summary = conclude(rows, "clean", 0, train, by_class)
    return judged, summary.model_copy(update={"class_scores": class_scores(judged, train)}), train


@pytest.mark.fault(72)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "=c"), ("only",)])
def test_an_image_is_defective_where_any_class_exceeds_its_own_threshold(seed, classes):
    judged, summary, _ = concluded(many(90, seed, classes))
    for shift in (0.0, -0.73, 1.37):
        point = threshold_costs.at(judged, shift)
        said = []
        for row in judged:
            own = class_thresholds(summary.class_scores.classes, row.fold)
            said.append(any(one.score > own[one.name] + shift for one in row.classes))
            margin = max(one.score - own[one.name] for one in row.classes)
            assert row.margin == pytest.approx(margin, abs=1e-9)
        if shift == 0.0:
            assert [row.is_flagged for row in judged] == said and not point.changed
            assert point.misses == summary.pooled.fn and point.false_alarms == summary.pooled.fp
        errors = [flag != row.is_defective for flag, row in zip(said, judged, strict=True)]
        assert sum(errors) == point.misses + point.false_alarms
    labels, scores = zip(*((row.is_defective, row.score) for row in judged), strict=True)
    assert summary.pooled.ap == metrics.average_precision(labels, scores), "of the highest score"
    highest = [row.score > summary.folds[row.fold].threshold for row in judged]
    assert (highest == [row.is_flagged for row in judged]) is (len(classes) == 1)
    good = summary.class_scores.confusion["good"]["good"]
    assert good == sum(not row.is_flagged and not row.is_defective for row in judged)
    assert summary.flag_rule == "score > threshold in any class"


def test_a_class_at_its_threshold_does_not_flag_and_the_highest_alone_decides_nothing():
    assert of_highest([3.0, -1.0], [1.0, 2.0]) == 1.0, "that of the highest, exactly"
    assert of_highest([3.0, -1.0], [3.0, -1.0]) == 3.0, "both at theirs: good"
    assert of_highest([3.0, -1.0], [4.0, -2.0]) == 2.0, "the other is 1 above its own"
    assert of_highest([3.0, -1.0], [4.0, 5.0]) == 4.0


@pytest.mark.fault(72)
def test_results_that_the_highest_score_flagged_still_open_and_edits_do_not():
    judged, summary, train = concluded(many(60, 5), by_class=False)
    assert summary.flag_rule == "score > threshold"
    require_true(summary, judged, train)
    new, told, _ = concluded(many(60, 5))
    assert [row.is_flagged for row in new] != [row.is_flagged for row in judged]
    require_true(told, new, train)
    for rows, other in ((judged, told), (new, summary)):
        with pytest.raises(RunError, match="does not follow from the scores"):
            require_true(other, rows, train)


@dataclass(frozen=True)
class Fixed:
    """A judge of classes whose scores are given."""

    scores: tuple[float, ...]
    device: torch.device = torch.device("cpu")

    def judge(self, pixels):
        height, width = pixels.shape[2] // 8, pixels.shape[3] // 8
        maps = torch.full((len(self.scores), height, width), -3.0)
        maps[:, 4:8, 4:8] = torch.tensor(self.scores)[:, None, None]
        return torch.tensor(self.scores), maps


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("scores", "label", "classes", "threshold"),
    [
        ((3.0, -1.0), "good", (), 3.0),
        ((3.0, -4.0), "good", (), 4.0),
        ((5.0, -1.0), "defective", ("a",), 4.0),
        ((3.0, 0.0), "defective", ("b",), 2.0),
        ((5.0, 1.0), "defective", ("b", "a"), 3.0),
        ((4.0, -1.0), "good", (), 4.0),
        ((-9.0, -0.5), "defective", ("b",), -1.0),
    ],
)
def test_a_model_judges_by_the_threshold_of_each_class(scores, label, classes, threshold, tmp_path):
    settings = resolve({"preset": "cpu", "image_size": f"{SIDE}x{SIDE}"})
    own = {"a": 4.0, "b": -1.0}
    detector = detection.Detector(Fixed(scores), settings, 0.0, class_thresholds=own)
    picture = np.random.default_rng(0).integers(90, 160, (SIDE, SIDE)).astype(np.uint8)
    found = detector.judge(picture)
    assert (found.label, found.classes, found.threshold) == (label, classes, threshold)
    assert found.score == max(scores) and (found.score > found.threshold) is bool(classes)
    if classes and max(scores) > 0:
        assert [one.class_name for one in found.defects] == ["a"], "the most probable there"
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    [row] = folder_table.judge_folder(detector, tmp_path)
    assert (row.label, row.score, row.threshold) == (label, max(scores), threshold)


def test_pictures_of_a_folder_are_sorted_by_how_far_a_class_is_above_its_threshold(tmp_path):
    settings = resolve({"preset": "cpu", "image_size": f"{SIDE}x{SIDE}"})
    scores = {90: (5.0, -3.0), 110: (3.0, 2.0), 130: (3.5, -9.0)}  # by the middle gray level
    random = np.random.default_rng(0)
    for level in scores:
        pixels = random.integers(level - 5, level + 6, (SIDE, SIDE)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{level}.png"), pixels)

    class ByLevel(Fixed):
        def judge(self, pixels):
            level = min(scores, key=lambda one: abs(one - float(pixels.float().mean())))
            return Fixed(scores[level]).judge(pixels)

    judge, own = ByLevel(()), {"a": 4.0, "b": -1.0}
    detector = detection.Detector(judge, settings, 0.0, class_thresholds=own)
    rows = folder_table.judge_folder(detector, tmp_path)
    assert [(row.image, row.label) for row in rows] == [
        ("110.png", "defective"),
        ("90.png", "defective"),
        ("130.png", "good"),
    ]


def test_a_defective_image_always_has_a_class():
    assert named({"a": 1.0, "b": 3.0}, {"a": 0.0, "b": 0.0}) == ("b", "a")
    assert named({"a": -1.0, "b": -3.0}, {"a": 0.0, "b": 0.0}) == ("a",)
