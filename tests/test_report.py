"""The report says what the stored files say, to anyone, in one file, and refuses mixed results."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ksdd_lib import metrics, origin, report, storage
from ksdd_lib import settings as schema
from ksdd_lib.errors import RunError
from ksdd_lib.evaluate import write_masks
from ksdd_lib.metrics import Prediction

SHAPE = 128, 64


def make_run(
    folder,
    folds=(0, 1, 2),
    separation=2.0,
    with_defects=True,
    rename=str,
    generated=True,
    settings=None,
    **data,
):
    """A run folder of about 60 surfaces over three folds, as training and evaluation leave it."""
    random = np.random.default_rng(7)
    settings = settings or schema.Settings()
    rows = []
    for index in range(60):
        item, part = divmod(index, 4)
        is_defective = with_defects and part == 3
        score = float(random.normal(separation if is_defective else -separation, 1.5))
        name = rename(f"gen{item:02}/Part{part}")
        group = name.split("/")[0]
        rows.append(
            Prediction(name, group, item % 3, settings.seed, is_defective, score, score - 1)
        )
    train_items = {k: {row.item for row in rows if row.fold != k} for k in range(3)}
    record = {
        "protocol": "clean",
        "folds": [
            {"fold": k, "train_items": sorted(items), "test_items": []}
            for k, items in train_items.items()
        ],
    }
    rows = [row for row in rows if row.fold in folds]
    rows = metrics.apply_thresholds(rows, metrics.operating_thresholds(rows, train_items))
    metrics.write_predictions(folder / "predictions.csv", rows)
    masks = random.normal(-4, 1, (len(rows), SHAPE[0] // 8, SHAPE[1] // 8))
    write_masks(folder / "masks.npz", [row.image for row in rows], masks)
    summary = metrics.summarize(rows, data.get("protocol", "clean"), settings.seed, train_items)
    fingerprint = make_data(generated, **data)["fingerprint"]
    summary["made_from"] = origin.record(settings, fingerprint, dict.fromkeys(folds, "0" * 64))
    storage.write_json(folder / "metrics.json", summary)
    storage.write_json(folder / "folds.json", record)
    storage.write_json(folder / "settings.json", schema.to_json(settings))
    storage.write_json(folder / "data.json", make_data(generated, **data))
    storage.write_json(folder / "environment.json", {"python": "3.11.9", "gpu": "none"})
    storage.write_json(folder / "timing.json", [{"what": "decision fold 0", "seconds": 83.2}])
    for fold in folds:
        for stage in ("segmentation", "decision"):
            history = [{"step": s, "loss": 1 / s, "lr": 0.1, "seconds": s} for s in range(1, 20)]
            lines = "".join(json.dumps(row) + "\n" for row in history)
            storage.write_text(folder / f"fold{fold}" / f"{stage}.jsonl", lines)
    return folder


def make_data(
    generated=True, kolektor=False, name="gen", protocol="clean", leaked=0, fingerprint="f" * 64
):
    total = {
        "test_items": 15,
        "test_images": 60,
        "test_defective": 15,
        "leaked_images": leaked,
        "leaked_defective": leaked // 4,
    }
    common = {
        "name": name,
        "fingerprint": fingerprint,
        "is_generated": generated,
        "is_kolektor": kolektor,
        "is_published_archive": False,
        "archive_sha256": None,
    }
    counts = {
        "origin": "made here",
        "images": 60,
        "defective": 15,
        "items": 15,
        "sizes": {"different": 1, "height": [128, 128], "width": [64, 64]},
        "duplicates": [],
        "unreadable": [],
        "ignored": [],
        "twins": [],
        "folds": {protocol: {"folds": [], "total": total}},
    }
    return common | {"place": "../data", "report": common | counts}


def read_pair(name):
    random = np.random.default_rng(len(name))
    mask = np.zeros(SHAPE, bool)
    mask[40:44, 10:40] = "Part3" in name
    return random.integers(90, 150, SHAPE).astype(np.uint8), mask


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo-clean-seed0")


@pytest.fixture(scope="module")
def page(run_folder):
    return report.make_report(run_folder, read_pair).read_text(encoding="utf-8")


@pytest.fixture
def quick(monkeypatch):
    """Figures are composed but not painted: for tests that read the words alone."""
    from ksdd_lib import visualize

    monkeypatch.setattr(visualize, "png", lambda figure: b"")


def text_of(page):
    """What a reader sees, with single spaces."""
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


class Balance(HTMLParser):
    """Collects every element's attributes, and whether all tags are closed in order."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, page):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_figures_are_written_for_all_kinds(run_folder, page):
    names = {path.stem for path in (run_folder / "figures").iterdir()}
    assert {
        "errors",
        "strip_1",
        "scores",
        "roc_curve",
        "precision_recall_curve",
        "confusion_matrix",
        "training_curves",
    } <= names


def test_the_report_is_one_well_formed_file_that_fetches_and_runs_nothing(page):
    parsed = Balance(page)
    assert not parsed.open
    assert not parsed.tags & {"script", "link", "iframe", "object"}
    sources = [value for _, name, value in parsed.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    names = {value for _, name, value in parsed.attributes if name == "id"}
    assert {value[1:] for value in sources if value.startswith("#")} == names != set()
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert "url(" not in page and "@import" not in page


def test_headline_numbers_are_those_of_metrics_json(run_folder, page):
    pooled = storage.read_json(run_folder / "metrics.json")["pooled"]
    text = text_of(page)
    assert f"{pooled['ap']:.4f}" in text
    assert f"Defects missed (FN) {pooled['fn']} of {pooled['defective']}" in text
    assert f"False alarms (FP) {pooled['fp']} of 45" in text
    assert f"If none may be missed {pooled['oracle']['fp_at_fn0']} of 45" in text
    assert "95 % interval" in text
    assert "out-of-fold scores of the fold's own training items" in text.replace("&#39;", "'")


def test_the_first_sentences_say_what_was_found_and_what_is_left_open():
    pooled = {"tp": 47, "fn": 1, "fp": 3, "tn": 324, "ap": 0.99}
    pooled["intervals"] = {"recall": [0.889, 0.999], "false_positive_rate": [0.002, 0.027]}
    row = Prediction("a", "a", 0, 0, True, -1.0, 0.0, threshold=0.0, is_flagged=False)
    found, left_open, missed = report.in_words(pooled, [row])
    assert found.startswith("47 of 48 defective surfaces were found; 3 of 327 good ones")
    assert found.endswith(
        "0 of 1 defective ones have a flagged surface; every item here has a "
        "defect, so how many good ones would be stopped is not seen."
    )
    good = replace(row, image="b", item="b", is_defective=False, is_flagged=True)
    assert "so have 1 of 1 good ones." in report.in_words(pooled, [row, good])[0]
    assert "up to 11\xa0% of the defects" in left_open and "up to 2.7\xa0% of the good" in left_open
    assert (
        "fewer than 1\xa0% misses with 95\xa0% confidence (one-sided), 473 defective" in left_open
    )
    assert "in all, these 48 included, and none missed beside this one." in left_open
    assert "prove nothing" not in left_open
    toy = pooled | {"tp": 2, "fn": 1, "ap": 1.0}
    _, left_open, ranked, _ = report.in_words(toy, [row])
    assert left_open.startswith("Only 3 defective surfaces were tested: so few prove nothing yet.")
    assert ranked.startswith("All defects score above all good surfaces")
    assert missed == "Missed: a. They are shown first below."
    assert "all of one kind" in report.in_words(pooled | {"tp": 0, "fn": 0}, [])[0]


def test_the_errors_are_seen_before_the_figures_and_only_where_there_are_any(
    run_folder, page, tmp_path, quick
):
    pooled = storage.read_json(run_folder / "metrics.json")["pooled"]
    assert pooled["fp"] + pooled["fn"] > 0
    glance = 'alt="The errors at a glance'
    assert page.count(glance) == 1 and page.index(glance) < page.index('id="results"')
    perfect = make_run(tmp_path / "run", separation=60.0)
    storage.write_bytes(perfect / "figures" / "errors.png", b"of an earlier report")
    assert glance not in report.make_report(perfect, read_pair).read_text(encoding="utf-8")
    assert not (perfect / "figures" / "errors.png").exists()


@pytest.mark.parametrize(
    ("kind", "names"),
    [("decision", ["decision", "mask", "both"]), ("both", report.JUDGES), ("mask", ["mask"])],
)
def test_each_way_to_judge_stands_beside_the_others(tmp_path, quick, kind, names):
    folder = make_run(tmp_path / "run", settings=schema.Settings(score=kind))
    summary = storage.read_json(folder / "metrics.json")
    storage.write_json(
        folder / "metrics.json", summary | {"darkest_pixel": {"ap": 0.1234, "auc": 0.5678}}
    )
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    pooled, mask = summary["pooled"], summary["segmentation_score"]["pooled"]
    for name, row in (("mask", mask), (kind, pooled)):
        own = " (this run)" * (name == kind)
        row = pooled if own else row
        counts = " ".join(str(row["oracle"][count]) for count in ("fp", "fn", "fp_at_fn0"))
        assert f"{report.JUDGES[name]}{own} {row['ap']:.4f} {row['auc']:.4f} {counts}" in text
    assert all((what in text) == (name in names) for name, what in report.JUDGES.items())
    assert "the darkest pixel, without training 0.1234 0.5678 – – –" in text


def test_the_day_of_the_evaluation_stands_above(run_folder, page, tmp_path, quick):
    assert "evaluated on" not in text_of(page)  # results of an earlier version have none
    folder = make_run(tmp_path / "run")
    storage.write_json(folder / "environment.json", {"evaluated on": "2026-11-25"})
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "that had learned from other items alone; evaluated on 2026-11-25." in text


def test_every_score_stands_with_its_fold(run_folder, page):
    text = text_of(page)
    for row in metrics.read_predictions(run_folder / "predictions.csv"):
        kind = "defective" if row.is_defective else "good"
        said = "flagged" if row.is_flagged else "passed"
        shown = f"{row.image} {row.fold} {kind} {said} {row.score:.2f} {row.threshold:.2f}"
        assert shown in text


def test_what_differs_from_the_preset_is_marked_and_whence_the_preset_comes(tmp_path, quick):
    settings = schema.Settings(preset="cpu", seed=3)
    folder = make_run(tmp_path / "run", generated=False, kolektor=True, settings=settings)
    page = report.make_report(folder).read_text(encoding="utf-8")
    assert re.search(r'<tr class="own"><td class="name">seed</td><td class="value">3</td>', page)
    assert re.search(r'<tr><td class="name">folds</td>', page)
    cautions = page[page.index('<ul class="cautions">') : page.index("</ul>")]
    assert "only new items give an untouched test" in cautions
    assert re.search("<pre>python -m ksdd_lib run --data DATA --preset cpu .*--set seed=3", page)


def test_the_command_that_does_a_run_again_names_what_the_machine_had_chosen(tmp_path, quick):
    settings = schema.resolve({"preset": "demo", "image_size": "256x128", "defective_images": 5})
    folder = make_run(tmp_path / "run", settings=settings)
    made = storage.read_json(folder / "environment.json") | {"arithmetic": "bfloat16"}
    storage.write_json(folder / "environment.json", made | {"commit": "1322b804fb91+"})
    page = report.make_report(folder).read_text(encoding="utf-8")
    [command] = re.findall("<pre>python -m ksdd_lib run --data DATA (.*)</pre>", page)
    given = dict(pair.split("=") for pair in command.split() if "=" in pair)
    given = {name: schema.convert(name, text) for name, text in given.items()}
    again = schema.to_json(schema.resolve({"preset": "demo"} | given))
    assert again == schema.to_json(settings) | {"precision": "bfloat16"}
    assert "1322b804fb91 with changes that are in no commit" in page


def test_settings_stand_with_unit_and_reason(page):
    rule = schema.RULES["generated_items"]
    text = text_of(page)
    assert f"generated_items 12 {rule.unit} {rule.reason}" in text
    assert "decision fold 0 83 s" in text
    assert "python 3.11.9" in text


def test_generated_surfaces_are_called_so(page):
    assert "GENERATED surfaces: this report shows no real part" in text_of(page)


def test_every_figure_of_generated_surfaces_is_stamped_and_no_other(tmp_path, monkeypatch, quick):
    from ksdd_lib import visualize

    stamped = []
    draw = visualize.stamp
    monkeypatch.setattr(visualize, "stamp", lambda *args: stamped.append(args) or draw(*args))
    paths = report.make_figures(make_run(tmp_path / "run"), read_pair)
    assert len(stamped) == len(paths) > 6
    stamped.clear()
    report.make_figures(make_run(tmp_path / "real", generated=False), read_pair)
    assert not stamped


def test_no_path_of_this_machine_is_in_the_report(run_folder, page):
    assert str(run_folder.parent) not in page
    assert "../data" not in page


def test_without_the_data_set_the_pictures_are_left_out_and_it_says_so(tmp_path, quick):
    folder = make_run(tmp_path / "run")
    storage.write_bytes(folder / "figures" / "strip_1.png", b"of an earlier report")
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "the data set was not at hand" in text
    assert not list((folder / "figures").glob("strip*"))


def test_pictures_of_kolektorsdd_carry_its_licence(tmp_path, quick):
    folder = make_run(tmp_path / "run", generated=False, kolektor=True, name="KolektorSDD.zip")
    with_pictures = text_of(report.make_report(folder, read_pair).read_text(encoding="utf-8"))
    assert "CC BY-NC-SA 4.0" in with_pictures and "shows pictures of KolektorSDD" in with_pictures
    assert "GENERATED" not in with_pictures
    assert "Beside what is published on KolektorSDD" in with_pictures
    without = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "CC BY-NC-SA 4.0" in without and "shows pictures" not in without


def test_a_leak_stands_beside_the_numbers(tmp_path, quick):
    folder = make_run(tmp_path / "run", protocol="official", leaked=8)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "official folds leak: over all of them, 8 of 60 test images (2 of 15 defective)" in text


def test_a_single_fold_says_so_and_where_its_threshold_comes_from(tmp_path, quick):
    folder = make_run(tmp_path / "run", folds=(1,))
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "clean folds, only 1 trained" in text
    assert "Only 1 of the 3 folds is trained" in text
    assert "a logit of 0.0" in text


def test_few_defects_in_training_say_so(tmp_path, quick):
    folder = make_run(tmp_path / "run", settings=schema.Settings(defective_images=5))
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "Each network learned from at most 5 defective images" in text
    summary = storage.read_json(folder / "metrics.json")
    summary["trained_defects"] = {"0": ["kos01/Part5"], "1": ["kos03/Part1", "kos09/Part2"]}
    storage.write_json(folder / "metrics.json", summary)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "of its training items and 1 defective: kos01/Part5." in text
    assert "of its training items and 2 defective: kos03/Part1, kos09/Part2." in text


def test_perfect_separation_has_no_interval(tmp_path, quick):
    folder = make_run(tmp_path / "run", separation=60.0)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "No interval: some threshold separates perfectly" in text


@pytest.mark.fault(14)
def test_without_defects_the_numbers_are_undefined(tmp_path, quick):
    folder = make_run(tmp_path / "run", with_defects=False)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert (
        "Average precision, pooled undefined Quality of the order by score: 1 where all defects"
        in text
    )
    assert "Needs defective and good surfaces" in text
    assert "Defects missed (FN) 0 of 0" in text
    assert "If none may be missed undefined" in text


def test_the_mask_of_squared_error_training_is_not_squashed(tmp_path):
    squared = schema.Settings(segmentation_loss="mean_squared_error")
    results = report.load_results(make_run(tmp_path / "squared", settings=squared))
    row = results.rows[0]
    logits = results.masks[row.image].astype(float)
    linear = report.judged_surface(results, row, read_pair).output
    assert linear == pytest.approx(np.clip(logits, 0, 1))
    results = report.load_results(make_run(tmp_path / "entropy"))
    squashed = report.judged_surface(results, row, read_pair).output
    assert squashed == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-3)


@pytest.mark.fault(12)
def test_names_are_escaped(tmp_path, quick):
    evil = "<img src=x onerror=alert(1)>", '"><script>alert(1)</script>', "=1+1 & é"

    def rename(part):
        return evil[int(part[3:5]) % 3] + part.replace("/", "|").replace("|", "/", 1)

    folder = make_run(tmp_path / "<b>run", rename=rename, name="".join(evil))
    page = report.make_report(folder, read_pair).read_text(encoding="utf-8")
    parsed = Balance(page)
    assert not parsed.open
    assert not parsed.tags & {"script"}
    assert not any(key.startswith("on") for _, key, _ in parsed.attributes)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "Run &lt;b&gt;run" in page


@pytest.mark.fault(32)
def test_predictions_of_another_run_are_refused(tmp_path):
    folder, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", separation=1.0)
    storage.write_bytes(folder / "predictions.csv", (other / "predictions.csv").read_bytes())
    with pytest.raises(RunError, match=r"metrics.json was not made from this predictions.csv"):
        report.make_report(folder)
    assert not (folder / "report.html").exists()


def edit(folder, **changes):
    """Change numbers of the pooled verdicts in metrics.json."""
    summary = storage.read_json(folder / "metrics.json")
    summary["pooled"] |= changes
    storage.write_json(folder / "metrics.json", summary)


@pytest.mark.fault(32)
def test_numbers_that_the_scores_do_not_give_are_refused_by_name(tmp_path):
    folder = make_run(tmp_path / "run")
    true = report.load_results(folder).metrics["pooled"]
    edit(folder, ap=0.999, fn=true["fn"] + 1)
    with pytest.raises(RunError, match="not made from this predictions.csv: .*Evaluate again") as e:
        report.make_report(folder)
    assert f"pooled ap: stored 0.999, here {true['ap']!r}" in str(e.value)
    assert f"pooled fn: stored {true['fn'] + 1}, here {true['fn']}" in str(e.value)
    edit(folder, ap=true["ap"] * (1 + 1e-12), fn=true["fn"])  # as another processor may round
    report.load_results(folder)


@pytest.mark.fault(32)
def test_a_number_where_the_scores_define_none_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", with_defects=False)
    edit(folder, ap=1.0)
    with pytest.raises(RunError, match="pooled ap: stored 1.0, here None"):
        report.load_results(folder)


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"settings": schema.Settings(seed=3)}, "settings seed: stored 3, here 0"),
        ({"settings": schema.Settings(preset="cpu")}, "settings preset: stored 'cpu', here 'demo'"),
        ({"settings": schema.Settings(flips=True)}, "settings flips: stored True, here False"),
        ({"fingerprint": "e" * 64}, "data: stored 'eeee"),
    ],
)
def test_the_whole_results_of_another_run_are_refused_with_what_differs(
    tmp_path, other, difference
):
    folder, foreign = make_run(tmp_path / "a"), make_run(tmp_path / "b", separation=1, **other)
    for name in ("predictions.csv", "metrics.json", "masks.npz"):
        storage.write_bytes(folder / name, (foreign / name).read_bytes())
    with pytest.raises(RunError, match=f"metrics.json is not of this run: {difference}"):
        report.make_report(folder)


@pytest.mark.fault(32)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut"])
def test_damaged_masks_are_refused(tmp_path, content):
    folder = make_run(tmp_path / "run")
    (folder / "masks.npz").write_bytes(content)
    with pytest.raises(RunError, match="masks.npz in run is damaged .* evaluate again"):
        report.make_report(folder)


@pytest.mark.fault(32)
def test_results_from_before_their_origin_was_named_still_load(tmp_path):
    folder = make_run(tmp_path / "run")
    summary = storage.read_json(folder / "metrics.json")
    del summary["made_from"], summary["segmentation_score"]
    storage.write_json(folder / "metrics.json", summary)
    assert len(report.load_results(folder).rows) == 60


@pytest.mark.fault(32)
def test_masks_of_other_images_are_refused(tmp_path):
    folder = make_run(tmp_path / "run")
    write_masks(folder / "masks.npz", ["other/Part0"], np.zeros((1, 16, 8)))
    with pytest.raises(RunError, match=r"masks.npz holds other images"):
        report.make_figures(folder)


def test_a_run_that_is_not_evaluated_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="evaluate the trained model first"):
        report.make_report(tmp_path)


def test_results_without_masks_histories_timing_still_make_a_report(tmp_path, quick):
    folder = make_run(tmp_path / "run")
    for name in ("masks.npz", "environment.json", "timing.json"):
        (folder / name).unlink()
    for path in folder.glob("fold*/*.jsonl"):
        path.unlink()
    text = text_of(report.make_report(folder, read_pair).read_text(encoding="utf-8"))
    assert "Pictures of the surfaces are left out" in text
    assert "Time taken" not in text
    assert not (folder / "figures" / "training_curves.png").exists()


def test_the_strip_is_bounded_and_says_what_it_leaves_out(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(report, "STRIP_LIMITS", {"missed": 1, "false alarm": 1, "found": 2})
    folder = make_run(tmp_path / "run", separation=0.0)
    text = text_of(report.make_report(folder, read_pair).read_text(encoding="utf-8"))
    assert re.search(r"\b4 of \d+ defective or flagged surfaces are shown", text)


def test_failures_fill_the_first_page_of_the_strip(tmp_path):
    rows = metrics.read_predictions(make_run(tmp_path / "run") / "predictions.csv")
    rows = [replace(row, threshold=10.0, is_flagged=False) for row in rows]
    rows[0] = replace(rows[0], is_flagged=True)
    first, *others = report._strip_pages(rows)
    assert len(first) == report.STRIP_ROWS
    assert [row.image for page in (first, *others) for row in page][-1] == rows[0].image
