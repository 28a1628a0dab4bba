"""Results that do not belong together, or were edited, are refused by name."""

import numpy as np
import pytest
from evaluated_run import make_run

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import results
from ksdd_lib.evaluation.classes import AllClassScores
from ksdd_lib.evaluation.predictions import write_masks
from ksdd_lib.reporting import report
from ksdd_lib.settings import Settings


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
    true = results.load_results(folder).summary.pooled
    edit(folder, ap=0.999, fn=true.fn + 1)
    with pytest.raises(RunError, match="not made from this predictions.csv: .*Evaluate again") as e:
        report.make_report(folder)
    assert f"pooled ap: stored 0.999, here {true.ap!r}" in str(e.value)
    assert f"pooled fn: stored {true.fn + 1}, here {true.fn}" in str(e.value)
    edit(folder, ap=true.ap * (1 + 1e-12), fn=true.fn)  # as another processor may round
    results.load_results(folder)


@pytest.mark.parametrize("folds", [(0,), (0, 1, 2)])
def test_another_version_s_words_for_the_same_thresholds_are_taken(tmp_path, folds):
    folder = make_run(tmp_path / "run", folds=folds)
    summary = storage.read_json(folder / "metrics.json")
    now, summary["threshold_rule"] = summary["threshold_rule"], "as it was said before"
    storage.write_json(folder / "metrics.json", summary)
    found = results.load_results(folder).summary
    assert found.threshold_rule == "as it was said before" != now
    each = [AllClassScores(threshold_rule=words, classes=[], confusion={}) for words in (now, "")]
    ours, theirs = (found.model_copy(update={"class_scores": one}) for one in each)
    assert results._differences(ours, theirs) == ""


@pytest.mark.fault(32)
def test_a_number_where_the_scores_define_none_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", with_defects=False)
    edit(folder, ap=1.0)
    with pytest.raises(RunError, match="pooled ap: stored 1.0, here None"):
        results.load_results(folder)


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"settings": Settings(seed=3)}, "settings seed: stored 3, here 0"),
        ({"settings": Settings(preset="cpu")}, "settings preset: stored 'cpu', here 'demo'"),
        ({"settings": Settings(flips=True)}, "settings flips: stored True, here False"),
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
@pytest.mark.parametrize(
    ("name", "said"),
    [("made_from", "does not say what it was made from"), ("masks_sha256", "masks.npz was edited")],
)
def test_results_that_no_longer_name_their_origin_are_refused(tmp_path, name, said):
    folder = make_run(tmp_path / "run")
    summary = storage.read_json(folder / "metrics.json")
    del summary[name]
    storage.write_json(folder / "metrics.json", summary)
    with pytest.raises(RunError, match=said):
        results.load_results(folder)


@pytest.mark.fault(32)
def test_masks_of_other_images_are_refused(tmp_path):
    folder = make_run(tmp_path / "run")
    write_masks(folder / "masks.npz", {"other/Part0": np.zeros((16, 8))})
    with pytest.raises(RunError, match=r"masks.npz holds other images"):
        report.make_figures(folder)


def test_a_run_that_is_not_evaluated_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="evaluate the trained model first"):
        report.make_report(tmp_path)
