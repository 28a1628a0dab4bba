"""Figures that explain the two-stage network, drawn from real networks and the user's surfaces."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from ksdd_lib.models.two_stage import SegmentationNet
from ksdd_lib.reporting.plots import DEFECTIVE, FAINT, GOOD, INK, scatter_by_label, sheet, style
from ksdd_lib.reporting.surface_pictures import GRAY, HEAT, OUTLINE
from ksdd_lib.training.targets import probability

PALE = "#d9e6ee"
STRIDE_COLORS = {1: OUTLINE, 2: GOOD, 4: "#CC79A7", 8: DEFECTIVE}

lesson_style = style(axes_grid=False, axes_titlelocation="center", axes_titlesize=9.5)


def _lesson(height: float) -> Figure:
    """A sheet with so many inches for the lesson, and room above it for the stamp."""
    return sheet(9.0, height + 0.26, above=0.26)


@style(axes_grid=False)
def split_map(items: Sequence[str], in_test: Mapping[str, ArrayLike]) -> Figure:
    """Which image of which item a split puts on the test side: a panel a split.

    `items` has the item of each image, `in_test` the split's name -> bool for each image.
    """
    counts, names = Counter(items), sorted(set(items))
    most = max(counts.values())
    figure = _lesson((1.1 + 0.16 * most) * len(in_test))
    axes = figure.subplots(len(in_test), 1, squeeze=False)[:, 0]
    sides = {"training": PALE, "test": DEFECTIVE}
    for ax, (split, chosen) in zip(axes, in_test.items(), strict=True):
        side = np.full((most, len(names)), np.nan)
        for column, name in enumerate(names):
            here = np.asarray(chosen, bool)[np.asarray(items) == name]
            side[: len(here), column] = here
        both = sum(len(set(column[~np.isnan(column)])) == 2 for column in side.T)
        look = {"vmin": 0, "vmax": 1, "edgecolors": "white", "linewidth": 0.6}
        ax.pcolormesh(side, cmap=ListedColormap(list(sides.values())), **look)
        ax.set_title(f"{split}: {both} of {len(names)} items stand on both sides")
        ax.set(xlabel="item (one column each)", ylabel="its images", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        handles = [Rectangle((0, 0), 1, 1, color=color) for color in sides.values()]
        ax.legend(handles, sides, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


@lesson_style
def receptive_fields(image: np.ndarray, at: tuple[int, int]) -> Figure:
    """What one output pixel of each convolution sees of a surface, around row and column `at`."""
    fields = layer_fields()
    figure = _lesson(4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    left.imshow(image, **GRAY)
    for stride, side in {stride: side for _, side, stride in fields}.items():
        corner, color = (at[1] - side / 2, at[0] - side / 2), STRIDE_COLORS[stride]
        left.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=1.6))
    far = fields[-1][1] / 2 + 2  # the largest square, which may be larger than the surface
    left.set_xlim(min(-0.5, at[1] - far), max(image.shape[1] - 0.5, at[1] + far))
    left.set_ylim(max(image.shape[0] - 0.5, at[0] + far), min(-0.5, at[0] - far))
    left.set_title(f"seen at once, on {image.shape[0]}x{image.shape[1]}")
    left.set_axis_off()
    for place, (_, side, stride) in enumerate(fields):
        right.barh(place, side, color=STRIDE_COLORS[stride])
        right.text(side + 3, place, f"{side}", va="center", fontsize=8.5)
    right.set_yticks(range(len(fields)), [name for name, _, _ in fields], fontsize=8.5)
    right.invert_yaxis()
    right.set(xlabel="side of the square that one output pixel sees, pixels")
    right.set_title("each max-pool doubles what the next layers reach")
    return figure


def layer_fields() -> list[tuple[str, int, int]]:
    """(name, receptive field, stride), in input pixels, of each convolution of the first stage."""
    with torch.device("meta"):
        layers = SegmentationNet().features.modules()
    fields: list[tuple[str, int, int]] = []
    side, stride = 1, 1
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            kernel = layer.kernel_size[0]
            side += (kernel - 1) * stride
            fields.append((f"{len(fields) + 1}: {kernel}x{kernel} at 1/{stride}", side, stride))
        elif isinstance(layer, torch.nn.MaxPool2d):
            side += stride
            stride *= 2
    return fields


@lesson_style
def shrinking(image: np.ndarray, mask: np.ndarray) -> Figure:
    """A crack halved three times: by the darkest, the mean, or one of each 2x2 pixels."""
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "max-pool": lambda pixels: _blocks(pixels).max((1, 3)),
        "mean": lambda pixels: _blocks(pixels).mean((1, 3)),
        "skipping": lambda pixels: pixels[::2, ::2],
    }
    figure = _lesson(1.0 + 2.3 * len(ways))
    grid = figure.subplots(len(ways), 4)
    for axes, (name, halve) in zip(grid, ways.items(), strict=True):
        darkness, place = (255.0 - image).astype(np.float32), mask
        for step, ax in enumerate(axes):
            if step:
                darkness, place = halve(darkness), _blocks(place).max((1, 3))
            ax.imshow(255 - darkness, interpolation="nearest", **GRAY)
            size = f"1/{2**step}" if step else "as it is"
            ax.set_title(f"{name}, {size}: {stands_out(darkness, place):.1f}")
            ax.set_axis_off()
    return figure


def stands_out(darkness: np.ndarray, mask: np.ndarray) -> float:
    """Mean darkness in the mask minus that of the rest, in standard deviations of the rest."""
    rest = darkness[~mask]
    return float((darkness[mask].mean() - rest.mean()) / rest.std())


def _blocks(pixels: np.ndarray) -> np.ndarray:
    """(H, W) -> (H/2, 2, W/2, 2)."""
    return pixels.reshape(pixels.shape[0] // 2, 2, pixels.shape[1] // 2, 2)


@lesson_style
def normalisation(network: SegmentationNet, image: np.ndarray) -> Figure:
    """The first feature map of a surface in two lights, before and after normalisation."""
    lights = {"as it is": image, "half the light": (image * 0.5).astype(np.uint8)}
    first = list(next(network.features.children()).children())[:2]
    maps: dict[str, list[np.ndarray]] = {"convolution": [], "normalised": []}
    with torch.inference_mode():
        for pixels in lights.values():
            values = torch.from_numpy(pixels)[None, None].float() / 255
            for layer, found in zip(first, maps.values(), strict=True):
                values = layer(values)
                found.append(values[0, 0].numpy())
    figure = _lesson(min(6.0, 1.45 * image.shape[0] / image.shape[1]) + 0.8)
    grid = figure.subplots(1, 6)
    for light, (name, pixels) in enumerate(lights.items()):
        ax, *beside = grid[3 * light : 3 * light + 3]
        ax.imshow(pixels, **GRAY)
        ax.set_title(name)
        for ax, (title, both) in zip(beside, maps.items(), strict=True):
            inner = [one[8:-8, 8:-8] for one in both]
            low, high = np.percentile(np.stack(inner), (1, 99))
            ax.imshow(both[light], cmap="viridis", vmin=low, vmax=high)
            ax.set_title(f"{title}\n{inner[light].mean():.3f} ± {inner[light].std():.3f}")
    for ax in grid:
        ax.set_axis_off()
    return figure


SEEN = {1: "1/1", 5: "1/2", 10: "1/4", 12: "1/8"}  # last layer of `features` at a scale -> it


@lesson_style
def what_it_saw(network: SegmentationNet, image: np.ndarray, loss: str) -> Figure:
    """The three strongest feature maps of a surface at each scale, and the mask by this loss."""
    panels = [("surface", image, {"cmap": "gray"})]
    where = next(network.parameters()).device
    answer = torch.from_numpy(image)[None, None].float().to(where) / 255
    with torch.inference_mode():
        for number, layer in enumerate(network.features):
            answer = layer(answer)
            if number in SEEN:
                strongest = answer[0].amax((1, 2)).topk(3).indices
                for one in answer[0, strongest].float().cpu().numpy():
                    panels.append((f"at {SEEN[number]}", one, {"cmap": "viridis"}))
        mask_logits = network.mask_norm(network.mask(answer).float())
        panels.append(("mask", probability(mask_logits, loss)[0, 0].cpu().numpy(), HEAT))
    figure = _lesson(2 * min(4.2, 1.25 * image.shape[0] / image.shape[1]) + 0.7)
    grid = figure.subplots(2, -(-len(panels) // 2)).ravel()
    for ax, (title, pixels, colors) in zip(grid, panels, strict=False):
        ax.imshow(pixels, interpolation="nearest", **colors)
        ax.set_title(title, fontsize=9, fontweight="normal", pad=3)
    for ax in grid:
        ax.set_axis_off()
    return figure


@style(axes_grid=False)
def balance(shown: Mapping[str, Sequence[bool]]) -> Figure:
    """A square for each step: orange where its surface is defective; `shown` is by order."""
    figure = _lesson(0.2 + 0.75 * len(shown))
    for ax, (name, flags) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
        colors = [DEFECTIVE if flag else PALE for flag in flags]
        ax.bar(range(len(flags)), 1, width=0.9, color=colors)
        ax.set_title(f"{name}: {sum(flags)} of {len(flags)} are defective", fontsize=9.5)
        ax.set_axis_off()
        ax.margins(x=0)
    return figure


@style()
def two_scores(labels: ArrayLike, mask_maximum: ArrayLike, decision: ArrayLike) -> Figure:
    """Each surface by the logits of both networks: the highest of the mask across, decision up."""
    figure = sheet(5.6, 4.4)
    ax = figure.subplots()
    scatter_by_label(ax, np.asarray(labels, bool), np.asarray(mask_maximum), np.asarray(decision))
    ax.axhline(0, color=FAINT, linewidth=1)
    ax.axvline(0, color=FAINT, linewidth=1)
    ax.set(xlabel="highest mask logit (segmentation network)")
    ax.set(ylabel="logit of the decision network")
    ax.set_title("Two networks, two opinions", color=INK)
    ax.legend(loc="lower right")
    return figure


def around_defect(
    image: np.ndarray, mask: np.ndarray, side: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """A square cut-out with the defect in its middle, moved inside the surface where it must be."""
    middle = [round(float(where.mean())) for where in np.nonzero(mask)]
    top, left = np.clip(np.array(middle) - side // 2, 0, np.array(mask.shape) - side)
    cut = slice(top, top + side), slice(left, left + side)
    return image[cut], mask[cut].astype(bool)
