"""Annotation types, soft targets and losses, against plain loops and plain numbers."""

import numpy as np
import pytest
import torch

from ksdd_lib.training.targets import annotate, decision_loss, segmentation_loss, soft_targets


@pytest.fixture
def mask() -> np.ndarray:
    """A crack of two parts, one of them at the border."""
    mask = np.zeros((64, 48), bool)
    mask[20, 10:30] = True
    mask[21:26, 29] = True
    mask[50, 0:2] = True
    return mask


def test_the_fine_annotation_is_the_mask_itself(mask: np.ndarray) -> None:
    assert np.array_equal(annotate(mask, "fine"), mask)


@pytest.mark.parametrize("size", [5, 9, 13, 17])
def test_one_pixel_dilates_to_a_diamond_of_that_size(size: int) -> None:
    point = np.zeros((41, 41), bool)
    point[20, 20] = True
    y, x = np.mgrid[-20:21, -20:21]
    diamond = abs(y) + abs(x) <= (size - 1) // 2
    assert np.array_equal(annotate(point, f"dilated{size}"), diamond)
    assert diamond.any(0).sum() == size


@pytest.mark.parametrize("size", [5, 17])
def test_dilation_is_the_union_of_diamonds_and_stops_at_the_border(
    mask: np.ndarray, size: int
) -> None:
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    expected = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        expected |= abs(y - row) + abs(x - column) <= (size - 1) // 2
    assert np.array_equal(annotate(mask, f"dilated{size}"), expected)


def test_a_box_is_the_rectangle_of_each_defect(mask: np.ndarray) -> None:
    expected = np.zeros_like(mask)
    expected[20:26, 10:30] = True
    expected[50, 0:2] = True
    assert np.array_equal(annotate(mask, "box"), expected)


def test_pixels_that_touch_at_a_corner_are_one_defect() -> None:
    assert annotate(np.eye(4, dtype=bool), "box").all()


@pytest.mark.parametrize("annotation", ["fine", "dilated5", "box"])
def test_a_good_surface_stays_good(annotation: str) -> None:
    annotated = annotate(np.zeros((32, 32), bool), annotation)
    assert annotated.dtype == bool and not annotated.any()


def naive_targets(mask: np.ndarray) -> np.ndarray:
    """The mean of the 17 pixels around the centre of each block of 8, cut off at the border."""
    height, width = mask.shape
    targets = np.zeros((height // 8, width // 8))
    for row in range(height // 8):
        for column in range(width // 8):
            top, left = max(8 * row - 4, 0), max(8 * column - 4, 0)
            targets[row, column] = mask[top : 8 * row + 13, left : 8 * column + 13].mean()
    return targets


def test_soft_targets_are_the_share_of_a_17_pixel_window(mask: np.ndarray) -> None:
    annotated = annotate(mask, "dilated9").astype(np.float32)
    targets = soft_targets(torch.from_numpy(annotated)[None, None])
    assert targets.shape == (1, 1, 8, 6)
    assert np.allclose(targets[0, 0].numpy(), naive_targets(annotated), atol=1e-6)
    assert 0 < targets.max() < 1


def test_the_squared_error_takes_targets_of_0_and_1_at_one_half(mask: np.ndarray) -> None:
    annotated = torch.from_numpy(annotate(mask, "dilated17").astype(np.float32))[None, None]
    soft, binary = soft_targets(annotated), soft_targets(annotated, binary=True)
    assert torch.equal(binary, (soft > 0.5).float())
    assert binary.max() == 1 and binary.sum() < (soft > 0).sum()


def test_a_mask_at_both_extremes_has_extreme_targets() -> None:
    masks = torch.stack([torch.zeros(1, 128, 128), torch.ones(1, 128, 128)])
    assert soft_targets(masks).flatten(1).unique(dim=1).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("kind", ["cross_entropy", "mean_squared_error"])
def test_a_good_prediction_has_a_lower_loss_than_none_and_that_than_a_bad_one(
    mask: np.ndarray, kind: str
) -> None:
    annotated = torch.from_numpy(annotate(mask, "dilated17").astype(np.float32))[None, None]
    targets = soft_targets(annotated, binary=kind == "mean_squared_error")
    good = targets if kind == "mean_squared_error" else 8 * (targets - 0.25)
    nothing = torch.zeros_like(targets)
    losses = [segmentation_loss(x, targets, kind).item() for x in (good, nothing, -good)]
    assert losses == sorted(losses) and losses[0] < losses[1] < losses[2]


def test_the_losses_are_means_over_pixels() -> None:
    logits, targets = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[0.5, 1.0]]]])
    cross_entropy = (np.log(2) + np.log1p(np.exp(-2.0))) / 2
    assert np.isclose(segmentation_loss(logits, targets, "cross_entropy"), cross_entropy)
    squared = (0.5**2 + 1.0**2) / 2
    assert np.isclose(segmentation_loss(logits, targets, "mean_squared_error"), squared)


def test_the_decision_loss_falls_with_the_right_verdict() -> None:
    labels = torch.tensor([[1.0], [0.0]])
    right, wrong = torch.tensor([[3.0], [-3.0]]), torch.tensor([[-3.0], [3.0]])
    assert decision_loss(right, labels) < 0.1 < 3 < decision_loss(wrong, labels)


def test_losses_are_in_float32_whatever_the_arithmetic() -> None:
    logits, targets = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16), torch.ones(1, 1, 2, 2)
    for kind in ("cross_entropy", "mean_squared_error"):
        assert segmentation_loss(logits, targets, kind).dtype is torch.float32
    assert decision_loss(logits.flatten(1)[:, :1], torch.ones(1, 1)).dtype is torch.float32


def test_annotating_does_not_change_the_callers_mask(mask: np.ndarray) -> None:
    before = mask.copy()
    for annotation in ("dilated5", "box"):
        annotate(mask, annotation)
    assert np.array_equal(mask, before)
