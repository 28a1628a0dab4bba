"""Rows of predictions.csv come back as they were written, and errors come first."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from small_results import judged, make_rows, train_items

from ksdd_lib import storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation.predictions import (
    COLUMNS,
    Prediction,
    failures_first,
    read_masks,
    read_predictions,
    suspicious,
    write_masks,
    write_predictions,
)
from ksdd_lib.evaluation.summary import conclude


def test_rows_round_trip_exactly_and_match_the_hash_of_their_summary(tmp_path):
    rows = make_rows()
    items = train_items(rows)
    rows = judged(rows, items)
    rows = [*rows[:-1], replace(rows[-1], map_score=-1e-300 / 3)]
    write_predictions(tmp_path / "predictions.csv", rows)
    assert read_predictions(tmp_path / "predictions.csv") == rows
    _, summary = conclude(rows, "clean", 0, items)
    assert summary.predictions_sha256 == storage.sha256(tmp_path / "predictions.csv")


def test_numbers_from_numpy_are_stored_as_plain_numbers(tmp_path):
    row = Prediction("a/b", "a", np.int64(1), np.int64(2), np.bool_(True), np.float32(0.1), 0.5)
    write_predictions(tmp_path / "predictions.csv", [row])
    (back,) = read_predictions(tmp_path / "predictions.csv")
    assert back == replace(row, score=float(np.float32(0.1)))
    assert type(back.is_defective) is bool and back.threshold is None


@pytest.mark.parametrize(
    "name", ["=1+1", "+a", "-b", "@c", "'d", "''=e", 'a,"b"', "é ü/<img onerror=x>", "a\nb"]
)
@pytest.mark.fault(12)
def test_awkward_names_are_safe_in_a_spreadsheet_and_restored(tmp_path, name):
    row = replace(make_rows()[0], image=name, item=name)
    path = tmp_path / "predictions.csv"
    write_predictions(path, [row])
    with open(path, encoding="utf-8", newline="") as file:
        stored = list(csv.reader(file))[1][0]
    assert not stored.startswith(("=", "+", "-", "@"))
    assert read_predictions(path) == [row]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("image,score\na,1\n", "has the columns"),
        (",".join(COLUMNS) + "\na,a,0,0,yes,1.0,1.0,,\n", "row 2: expected 0 or 1"),
        (",".join(COLUMNS) + "\na,a,0,0,1,nan,1.0,,\n", "diverged"),
        (",".join(COLUMNS) + "\na,a,0\n", "row 2"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, message):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_predictions(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="evaluate the trained model first"):
        read_predictions(tmp_path / "predictions.csv")


def surface(image: str, defective: bool, score: float) -> Prediction:
    """A row of predictions.csv, judged at a threshold of 0."""
    item = image.partition("/")[0]
    return Prediction(image, item, 0, 0, defective, score, score, 0.0, score > 0)


def test_failures_come_first_each_kind_by_how_bad_it_is():
    rows = [
        surface("a/hit", True, 3.0),
        surface("a/close hit", True, 0.5),
        surface("a/passed", False, -2.0),
        surface("a/alarm", False, 1.0),
        surface("a/loud alarm", False, 5.0),
        surface("a/miss", True, -1.0),
        surface("a/bad miss", True, -4.0),
    ]
    order = [row.image.removeprefix("a/") for row in failures_first(rows)]
    assert order == ["bad miss", "miss", "loud alarm", "alarm", "close hit", "hit"]


def test_the_labels_that_scores_doubt_most_come_first_from_both_kinds():
    scores = {"a/alarm": -1.0, "a/loud alarm": 5.0, "a/passed": -2.0}
    rows = [surface(name, False, score) for name, score in scores.items()]
    rows += [surface("a/miss", True, -3.0), surface("a/hit", True, 2.0)]
    found = [row.image.removeprefix("a/") for row in suspicious(rows, count=2)]
    assert found == ["loud alarm", "miss", "alarm", "hit"]


def test_masks_come_back_under_their_names(tmp_path):
    masks = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_masks(tmp_path / "masks.npz", {"a/1": masks[0], "\u00e4/2": masks[1]})
    found = read_masks(tmp_path / "masks.npz")
    assert list(found) == ["a/1", "\u00e4/2"] and np.array_equal(found["\u00e4/2"], masks[1])


@pytest.mark.fault(32)
def test_masks_that_are_cut_altered_or_of_another_kind_are_one_sentence(tmp_path):
    path = tmp_path / "masks.npz"
    first, second = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_masks(path, {"a/1": first, "b/2": second})
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), 7)]
    altered = [whole[:k] + bytes([whole[k] ^ 255]) + whole[k + 1 :] for k in range(len(whole))]
    other = io.BytesIO()
    np.save(other, np.zeros(3))
    refused = 0
    for data in [*cut, *altered, other.getvalue(), b"no archive"]:
        path.write_bytes(data)
        try:
            read_masks(path)
        except RunError as error:
            assert "masks.npz in " in str(error) and "evaluate again" in str(error)
            refused += 1
    assert refused > len(cut) + len(whole) / 3
