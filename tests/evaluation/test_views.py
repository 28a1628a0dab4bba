"""Pictures of mixed sizes, regions and tiles go the whole way: training data, scores, `judge`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ksdd_lib.data.data_report import Sizes, format_report, inspect_data
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import find_samples, survey
from ksdd_lib.deploy import detection, folder_table, weights
from ksdd_lib.errors import DataError
from ksdd_lib.evaluation import scoring
from ksdd_lib.evaluation.predictions import read_predictions
from ksdd_lib.evaluation.results import load_results
from ksdd_lib.methods.darkest_pixel import DarknessJudge
from ksdd_lib.pipeline import run_series
from ksdd_lib.presets import resolve
from ksdd_lib.runs.open import open_run
from ksdd_lib.runs.prepare import open_data
from ksdd_lib.runs.run import Run
from ksdd_lib.settings import Settings
from ksdd_lib.training.batches import Pasted, Shown, load_surfaces
from ksdd_lib.view import View

SHAPES = [(200, 300), (300, 200), (160, 500), (256, 256), (420, 150), (180, 181)]


def spot(shape: tuple[int, int], number: int) -> tuple[int, int]:
    """The middle of the dark spot on a picture."""
    return round(shape[0] * (0.3 + 0.05 * number)), round(shape[1] * (0.75 - 0.05 * number))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six items of as many shapes; on the second picture of each a dark spot, and a frame of 16."""
    root, random = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for number, shape in enumerate(SHAPES):
        for part in range(2):
            image = random.integers(100, 160, shape).astype(np.uint8)
            image[:12, :12] = 5  # in the corner lies what is dark and no defect
            mask = np.zeros(shape, np.uint8)
            if part:
                cv2.circle(mask, spot(shape, number)[::-1], 12, 255, -1)
                image[mask > 0] = 20
            (root / f"item{number}").mkdir(exist_ok=True)
            cv2.imwrite(str(root / f"item{number}" / f"{part}.png"), image)
            cv2.imwrite(str(root / f"item{number}" / f"{part}_label.png"), mask)
    return root


def judged_run(root: Path, folder: Path, patch: pytest.MonkeyPatch, **chosen: str) -> Run:
    """A finished run of the rule that the darkest pixel decides."""
    patch.setenv("KSDD_HOME", str(folder / "home"))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    given = {"data": str(root), "image_size": "160x128", "method": "darkest_pixel", **chosen}
    run = open_run(folder / "run", {"preset": "cpu", "score": "decision", **given})
    run_series(run)
    return run


VIEWS = [
    pytest.param({"fit": "pad"}, marks=pytest.mark.fault(68)),
    pytest.param({"region": "13,13,450,400"}, marks=pytest.mark.fault(69)),
    pytest.param({"region": "13,13,450,400", "fit": "pad"}, marks=pytest.mark.fault(69)),
    pytest.param({"tile_size": "128x144"}, marks=pytest.mark.fault(71)),
    pytest.param({"region": "13,13,450,400", "tile_size": "128x128"}, marks=pytest.mark.fault(71)),
]


@pytest.mark.parametrize("chosen", VIEWS, ids=str)
def test_pictures_of_mixed_shapes_are_judged_alike_in_evaluation_and_by_judge(
    root, tmp_path, monkeypatch, chosen, capsys
):
    run = judged_run(root, tmp_path, monkeypatch, **chosen)
    data, results = open_data(run), load_results(run.folder)
    rows = {row.image: row for row in read_predictions(run.folder / "predictions.csv")}
    assert len(rows) == 12 and list(results.masks) == list(rows)
    card = weights.publish(run, data, 0, tmp_path / "model.safetensors")
    stored = json.loads(card.read_text())
    assert {name: stored[name] for name in chosen} == chosen
    detector = detection.load(tmp_path / "model.safetensors")
    assert detector.settings.view == run.settings.view
    for number, shape in enumerate(SHAPES):
        name = f"item{number}/1"
        found = detector.judge(data.read_pair(name)[0])
        assert found.score == rows[name].score == rows[name].map_score
        assert found.mask.shape == shape
        place = np.argwhere(found.mask >= found.mask.max() - 0.02).mean(0)
        if "region" in chosen:  # else the corner is as dark
            assert np.hypot(*(place - spot(shape, number))) < 20
            assert rows[name].score > rows[f"item{number}/0"].score
        stored_map = results.masks[name]
        if {"fit", "tile_size"} & set(chosen):
            assert abs(stored_map.shape[0] / stored_map.shape[1] - shape[0] / shape[1]) < 0.2


@pytest.mark.fault(68)
def test_judge_warns_only_where_something_was_lost(root, tmp_path, monkeypatch):
    padded = judged_run(root, tmp_path / "pad", monkeypatch, fit="pad")
    for shape in [*SHAPES, (100, 800), (900, 90)]:
        assert detection.of_run(padded, open_data(padded), 0).doubt(shape) == ""
    reduced = detection.of_run(padded, open_data(padded), 0).doubt((3000, 4000))
    assert "reduced to" in reduced and "fine defects may be lost" in reduced


@pytest.mark.fault(68)
def test_a_model_that_was_trained_on_pictures_of_this_shape_squeezed_is_used_to_it():

    settings = Settings(image_size="128x128")
    usual = Sizes(different=1, height=(100, 110), width=(300, 310))
    detector = detection.Detector(None, settings, 0.0, usual=usual)
    assert detector.doubt((105, 305)) == detector.doubt((100, 350)) == ""
    for other in ((300, 100), (100, 600), (20, 110)):
        assert "squeezed" in detector.doubt(other)
    unknown = detection.Detector(None, settings, 0.0)
    assert "squeezed" in unknown.doubt((105, 305)) and unknown.doubt((105, 120)) == ""


@pytest.mark.fault(69)
def test_where_a_region_is_cut_off_or_missed_judge_says_so(tmp_path):
    settings = Settings(image_size="128x128", region="20,13,130,150")
    detector = detection.Detector(DarknessJudge(torch.device("cpu")), settings, 0.0)
    assert detector.doubt((420, 150)) == "" and "reaches beyond" in detector.doubt((420, 149))
    folder = tmp_path / "judged"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape in {"fits": (170, 160), "small": (170, 100), "missed": (170, 18)}.items():
        cv2.imwrite(str(folder / f"{name}.png"), random.integers(0, 255, shape).astype(np.uint8))
    rows = {row.image: row for row in folder_table.judge_folder(detector, folder)}
    assert rows["fits.png"].reason == "" and "reaches beyond" in rows["small.png"].reason
    assert rows["missed.png"].label == "unreadable" and "outside" in rows["missed.png"].reason


@pytest.mark.fault(69)
@pytest.mark.parametrize("region", ["0,0,40,40", "1000,10,50,50"])
def test_a_defect_outside_of_the_region_is_named_and_never_called_good(root, region):
    found = survey(root, region=region)
    with pytest.raises(DataError, match=r"item0/1\.png.*outside of the"):
        found.usable()
    assert all(not sample.is_defective for sample in found.samples)
    again = survey(root, found.contents, region)
    assert again.samples == found.samples and again.unreadable == found.unreadable


@pytest.mark.fault(69)
def test_image_and_mask_are_cut_alike(root):
    [sample] = [one for one in find_samples(root) if one.name == "item0/1"]
    y, x = spot(SHAPES[0], 0)
    view = View((128, 128), region=f"{x - 64},{y - 60},128,128")
    cut = load_surfaces([sample], view, "fine")
    assert (cut.images[cut.masks > 0] == 20).all() and (cut.images[cut.masks == 0] >= 100).all()
    assert abs((cut.masks[0, 0] > 0).nonzero().float().mean(0) - 62).max() < 3


@pytest.mark.fault(68)
def test_a_defect_is_pasted_within_the_picture_never_on_its_border(root):
    samples = find_samples(root)
    surfaces = load_surfaces(samples, View((160, 160), "pad"), "fine")
    bad = [row for row, one in enumerate(samples) if one.is_defective]
    good = [row for row, one in enumerate(samples) if not one.is_defective]
    for row in bad:
        for ground in good:
            top, left, rows, columns = surfaces.inner[ground]
            for height in (0.0, 0.4, 1.0):
                for degrees in (0.0, 40.0):
                    shown = Shown(row, 0, Pasted(ground, height, 1.0, degrees))
                    image, mask = surfaces.show(shown)
                    outside = np.ones((160, 160), bool)
                    outside[top : top + rows, left : left + columns] = False
                    assert mask.any() and not mask[0, 0].numpy()[outside].any()
                    own = surfaces.image(ground)[0, 0].numpy()
                    assert np.array_equal(image[0, 0].numpy()[outside], own[outside])


@pytest.mark.fault(71)
def test_a_picture_scores_as_its_highest_tile(tmp_path):
    """Also where that is the last one, in the corner, and the picture no multiple of anything."""
    image = np.full((731, 555), 150, np.uint8)
    image[::7, ::5] = 120
    judge, view = DarknessJudge(torch.device("cpu")), View((128, 128), tiled=True)
    plain = scoring.judge_picture(judge, image, view)
    for y, x in ((0, 0), (730, 554), (400, 3), (127, 128), (300, 300)):
        dark = image.copy()
        dark[y, x] = 10
        found = scoring.judge_picture(judge, dark, view)
        assert found.score == found.highest == 117.5 > plain.score
        place = np.unravel_index(found.map.argmax(), found.map.shape)
        assert abs((np.array(place) + 0.5) * image.shape / found.map.shape - (y, x)).max() <= 9


@dataclass(frozen=True)
class BothEnds(DarknessJudge):
    """Tells what is dark from what is bright."""

    def judge(self, pixels):
        score, values = super().judge(pixels)
        other, bright = super().judge(255 - pixels)
        return torch.stack([score, other]), torch.stack([values, bright])


@pytest.mark.fault(72)
@pytest.mark.parametrize("view", [View((128, 128), tiled=True), View((128, 128), "pad")])
def test_each_class_has_its_map_of_the_whole_picture(view):
    image = np.full((331, 255), 150, np.uint8)
    image[::7, ::5] = 120
    image[40:70, 30:60], image[240:280, 180:220] = 10, 250
    found = scoring.judge_picture(BothEnds(torch.device("cpu")), image, view)
    assert len(found.maps) == 2 and found.score == max(found.each)
    for values, middle in zip(found.maps, [(55, 45), (260, 200)], strict=True):
        place = np.unravel_index(values.argmax(), values.shape)
        scale = np.array(image.shape) / values.shape
        assert abs((np.array(place) + 0.5) * scale - middle).max() <= 24
    assert (found.map >= np.max(found.maps, axis=0) - 1e-3).all(), "the highest of them"


@pytest.mark.fault(71)
def test_with_tiles_no_size_of_a_picture_is_doubted(root, tmp_path, monkeypatch):
    run = judged_run(root, tmp_path, monkeypatch, tile_size="128")
    detector = detection.of_run(run, open_data(run), 0)
    assert {detector.doubt(shape) for shape in [*SHAPES, (3000, 4000), (90, 900)]} == {""}


@pytest.mark.fault(71)
def test_inspect_advises_tiles_where_a_defect_becomes_too_narrow(tmp_path):
    random = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / f"item{number}"
        folder.mkdir()
        for part in range(2):
            image = random.integers(90, 160, (1500, 2000)).astype(np.uint8)
            mask = np.zeros((1500, 2000), np.uint8)
            mask[700:712, 300 : 300 + 900 * part] = 255
            cv2.imwrite(str(folder / f"{part}.jpg"), image)
            cv2.imwrite(str(folder / f"{part}_label.png"), mask)
    found, folder = survey(tmp_path), DataFolder(tmp_path, "x")
    small = resolve({"preset": "cpu", "image_size": "240x320"})
    told = format_report(inspect_data(found, folder, small))
    assert "the narrowest defect is 11.5 pixels wide in item0/1 of 1500x2000, and 1.8 at" in told
    assert "image_size 240x320: tile_size 512x512 keeps its 11.5" in told
    for enough in (replace(small, image_size="544x720"), replace(small, tile_size="256x256")):
        assert "keeps its" not in format_report(inspect_data(found, folder, enough))
    tiled = format_report(inspect_data(found, folder, replace(small, tile_size="256x256")))
    assert "12 to 12 pixels wide in tiles of 256x256" in tiled


@pytest.mark.fault(68)
def test_inspect_advises_to_pad_pictures_of_several_shapes(root):
    settings = resolve({"preset": "cpu", "image_size": "256x256"})
    told = [
        format_report(inspect_data(survey(root), DataFolder(root, "x"), chosen))
        for chosen in (settings, replace(settings, fit="pad"))
    ]
    assert "several shapes, from 160x500 to 420x150: fit pad keeps each" in told[0]
    assert "shapes" not in told[1] and "squeezes" not in told[1]
