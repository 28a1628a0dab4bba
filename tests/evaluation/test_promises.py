"""What is promised of a threshold holds in at least 95 of 100 draws."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from small_results import make_rows, row

from ksdd_lib.evaluation import promises
from ksdd_lib.evaluation.metrics import error_bound, parts_needed
from ksdd_lib.evaluation.promises import highest_threshold, kept, lowest_threshold

DRAWS = 2000


@pytest.mark.fault(84)
@pytest.mark.parametrize(("parts", "below"), [(30, 0.095), (59, 0.05), (299, 0.01)])
def test_the_known_numbers_without_an_error(parts: int, below: float) -> None:
    assert error_bound(0, parts) == pytest.approx(below, abs=5e-4)
    assert error_bound(0, parts) == pytest.approx(1 - 0.05 ** (1 / parts), rel=1e-12)
    assert parts_needed(below + 5e-4) <= parts <= parts_needed(below - 5e-4)


@pytest.mark.parametrize("parts", [1, 7, 47, 300])
def test_the_bound_is_that_of_scipy_by_another_way(parts: int) -> None:
    for errors in {0, 1, parts // 3, parts - 1, parts}:
        told = binomtest(errors, parts, alternative="less").proportion_ci(0.95, "exact").high
        assert error_bound(errors, parts) == pytest.approx(told, rel=1e-9)


@pytest.mark.fault(84)
@pytest.mark.parametrize("parts", [16, 48, 120])
@pytest.mark.parametrize("rate", [0.01, 0.03, 0.08, 0.3])
def test_the_bound_at_a_fixed_threshold_holds_in_95_of_100_draws(parts: int, rate: float) -> None:
    errors = np.random.default_rng(parts).binomial(parts, rate, 100 * DRAWS)
    assert np.mean(error_bound(errors, parts) > rate) >= 0.949


@pytest.mark.fault(84)
@pytest.mark.parametrize("side", ["missed", "flagged"])
@pytest.mark.parametrize(("parts", "wanted"), [(80, 0.05), (80, 0.1), (200, 0.03), (300, 0.2)])
def test_a_threshold_chosen_by_the_same_parts_holds_in_95_of_100_draws(
    side: str, parts: int, wanted: float
) -> None:
    """Scores of parts are drawn from a normal distribution, so that the true share is known."""
    draws = np.random.default_rng(parts).normal(size=(DRAWS, parts))
    if side == "missed":
        found = np.array([highest_threshold(scores, wanted) for scores in draws], float)
        shares = norm.cdf(found)
        naive = norm.cdf(np.quantile(draws, wanted, axis=1))
    else:
        found = np.array([lowest_threshold(scores, wanted) for scores in draws], float)
        shares = norm.sf(found)
        naive = norm.sf(np.quantile(draws, 1 - wanted, axis=1))
    assert np.mean(shares < wanted) >= 0.95
    assert np.mean(shares) > wanted / 5  # and it is no promise of nothing
    assert np.mean(naive < wanted) < 0.7  # what was seen alone does not hold


@pytest.mark.fault(84)
def test_all_thresholds_that_are_kept_hold_together() -> None:
    """Also the worst that somebody may choose afterwards, in the light of the same parts."""
    draws = np.sort(np.random.default_rng(3).normal(size=(DRAWS, 90)), axis=1)
    sequence = np.linspace(-5, 1, 601)
    errors = np.array([np.searchsorted(scores, sequence, "right") for scores in draws])
    worst = [sequence[kept(each, 90, 0.1)][-1] for each in errors]
    assert np.mean(norm.cdf(worst) < 0.1) >= 0.95


def test_the_sequence_ends_at_the_first_threshold_that_fails() -> None:
    assert kept([0, 0, 9, 0, 0], 59, 0.05).tolist() == [True, True, False, False, False]
    assert not kept([0, 0], 58, 0.05).any()
    assert highest_threshold(np.arange(58.0)) is None
    assert lowest_threshold([]) is None and highest_threshold([]) is None


@pytest.mark.parametrize("parts", [59, 93, 124])
def test_a_promised_threshold_errs_as_often_as_its_bound_allows(parts: int) -> None:
    scores = np.random.default_rng(parts).permutation(np.arange(parts, dtype=float))
    allowed = {59: 0, 93: 1, 124: 2}[parts]  # as by `parts_needed`
    assert parts_needed(0.05, allowed) == parts
    high, low = highest_threshold(scores), lowest_threshold(scores)
    assert (np.sum(scores <= high), np.sum(scores > low)) == (allowed, allowed)


def test_parts_are_counted_and_not_photographs() -> None:
    rows = [
        row("a/1", 0, True, 2.0, 1.0),
        row("a/2", 0, True, 0.0, 1.0),  # missed, but its part is found
        row("a/3", 0, False, 0.0, 1.0),
        row("b/1", 0, True, 0.0, 1.0),
        row("b/2", 0, False, 3.0, 1.0),  # flagged, twice on one part
        row("b/3", 0, False, 4.0, 1.0),
    ]
    found = promises.of_verdicts(rows)
    assert (found.missed.errors, found.missed.parts) == (1, 2)
    assert (found.flagged.errors, found.flagged.parts) == (1, 2)
    good = promises.of_verdicts([one for one in rows if not one.is_defective])
    assert good.missed is None and good.flagged == found.flagged


@pytest.mark.fault(84)
@pytest.mark.parametrize(("parts", "more"), [(30, 29), (58, 1), (59, 0)])
def test_what_is_missing_for_a_promise_is_told_in_parts(parts: int, more: int) -> None:
    rows = [row(f"p{n}/1", 0, True, 2.0, 1.0) for n in range(parts)]
    rows += [row(f"p{n}/2", 0, False, 0.0, 1.0) for n in range(parts)]
    text = promises.words(rows)
    assert (f"takes {more} more defective parts, none of them missed" in text) == bool(more)
    assert "more" in text or not more
    chosen = promises.of_all_thresholds(rows, 1.0)
    assert (f"takes {more} more, none of them missed" in chosen) == bool(more)
    assert ("Fewer than 5\N{NO-BREAK SPACE}% of the defective parts are missed." in chosen) == (
        not more
    )


def test_a_threshold_beyond_what_is_promised_is_told_where_it_would_hold() -> None:
    rows = [row(f"p{n}/1", 0, True, n / 10, 1.0) for n in range(93)]
    rows += [row(f"p{n}/2", 0, False, -n / 10, 1.0) for n in range(93)]
    told = promises.of_all_thresholds(rows, 3.05)
    assert "It holds at thresholds up to 0.09." in told
    assert (
        "Fewer than 5\N{NO-BREAK SPACE}% of the parts have a good surface that is flagged." in told
    )
    rows = [replace(one, score=-one.score) for one in make_rows(60)]
    assert "Not that" in promises.of_all_thresholds(rows, 0.0)


@pytest.mark.parametrize(("parts", "wanted"), [(80, 0.05), (150, 0.1), (40, 0.2)])
def test_mapie_keeps_the_same_thresholds(parts: int, wanted: float) -> None:
    """Another implementation of Learn-then-Test: of the recall, over a fixed sequence."""
    control = pytest.importorskip("mapie.risk_control")
    scores = np.random.default_rng(parts).uniform(size=parts)
    sequence = np.linspace(0, 0.6, 121)
    learned = control.BinaryClassificationController(
        lambda found: np.stack([1 - found[:, 0], found[:, 0]], axis=1),
        risk="recall",
        target_level=1 - wanted,
        confidence_level=0.95,
        list_predict_params=sequence,
        fwer_method="fixed_sequence",
    )
    learned.calibrate(scores[:, None], np.ones(parts, int))
    errors = np.searchsorted(np.sort(scores), sequence, "left")
    ours, stricter = (sequence[kept(errors + more, parts, wanted)] for more in (0, 1))
    theirs = np.sort(learned.valid_predict_params)
    assert set(stricter) <= set(theirs) <= set(ours)  # its rounding may count an error too many
    assert 1 < len(theirs) < len(sequence)
