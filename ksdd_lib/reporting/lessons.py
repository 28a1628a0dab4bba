"""Figures that explain the method, drawn from the real networks and the user's own surfaces.

As in `visualize`, functions take arrays, draw, and return the figure; they never show or save.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from ksdd_lib.models.two_stage import SegmentationNet
from ksdd_lib.reporting.plots import DEFECTIVE, FAINT, GOOD, INK, STYLE
from ksdd_lib.reporting.surface_pictures import HEAT, OUTLINE
from ksdd_lib.training.targets import probability

WIDTH, STAMP = 9.0, 0.26
"""Inches: of every lesson, and above it, for what `visualize.stamp` writes."""

PICTURES = STYLE | {"axes.grid": False, "axes.titlelocation": "center", "axes.titlesize": 9.5}


def split_map(items: Sequence[str], in_test: Mapping[str, ArrayLike]) -> Figure:
    """Which image of which item a split puts on the test side: a panel a split.

    Args:
        items: (N,), the item that each image shows.
        in_test: name of the split -> (N,) bool; images on neither side count as training.
    """
    names = sorted(set(items))
    places = _place_within(items)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        height = 1.1 + 0.16 * (max(places) + 1)
        figure = _sheet(height * len(in_test))
        axes = figure.subplots(len(in_test), 1, squeeze=False)[:, 0]
        for ax, (split, chosen) in zip(axes, in_test.items(), strict=True):
            side = np.full((max(places) + 1, len(names)), np.nan)
            for item, place, test in zip(items, places, np.asarray(chosen, bool), strict=True):
                side[place, names.index(item)] = test
            both = sum(len(set(column[~np.isnan(column)])) == 2 for column in side.T)
            colors = ListedColormap(["#d9e6ee", DEFECTIVE])
            ax.pcolormesh(side, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
            ax.set_title(f"{split}: {both} of {len(names)} items stand on both sides")
            ax.set(xlabel="item (one column each)", ylabel="its images", xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            handles = [Rectangle((0, 0), 1, 1, color=color) for color in colors.colors]
            ax.legend(
                handles, ["training", "test"], loc="lower right", bbox_to_anchor=(1, 1), ncols=2
            )
    return figure


def _place_within(items: Sequence[str]) -> list[int]:
    """Of each image, the how manieth of its item it is."""
    seen: dict[str, int] = {}
    places = []
    for item in items:
        places.append(seen.get(item, 0))
        seen[item] = places[-1] + 1
    return places


def receptive_fields(image: np.ndarray, at: tuple[int, int]) -> Figure:
    """What one output pixel of each convolution sees of a surface.

    Args:
        image: (H, W) uint8, at the size that the network takes.
        at: row and column of the pixel in whose middle the squares stand.
    """
    fields = layer_fields()
    with matplotlib.rc_context(PICTURES):
        figure = _sheet(4.2)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
        left.imshow(image, cmap="gray", vmin=0, vmax=255)
        for side, color in _stages_ends(fields):
            corner = at[1] - side / 2, at[0] - side / 2
            box = Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=1.6)
            left.add_patch(box)
        left.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
        left.set_title(f"seen at once, on {image.shape[0]}x{image.shape[1]}")
        left.set_axis_off()
        names, sides, strides = zip(*fields, strict=True)
        colors = [_stride_color(stride) for stride in strides]
        right.barh(range(len(sides)), sides, color=colors)
        for place, side in enumerate(sides):
            right.text(side + 3, place, f"{side}", va="center", fontsize=8.5)
        right.set_yticks(range(len(names)), names, fontsize=8.5)
        right.invert_yaxis()
        right.set(xlabel="side of the square that one output pixel sees, pixels")
        right.set_title("each max-pool doubles what the next layers reach")
    return figure


def layer_fields() -> list[tuple[str, int, int]]:
    """(name, receptive field, stride), in input pixels, of each convolution of the first stage."""
    with torch.device("meta"):
        network = SegmentationNet()
    fields, side, stride = [], 1, 1
    for layer in network.features.modules():
        if isinstance(layer, torch.nn.Conv2d):
            kernel = layer.kernel_size[0]
            side += (kernel - 1) * stride
            fields.append((f"{len(fields) + 1}: {kernel}x{kernel} at 1/{stride}", side, stride))
        elif isinstance(layer, torch.nn.MaxPool2d):
            side += stride
            stride *= 2
    return fields


def _stages_ends(fields: Sequence[tuple[str, int, int]]) -> list[tuple[int, str]]:
    """(side, colour) of the last layer at each stride, and of the last layer but one of all."""
    ends = {stride: side for _, side, stride in fields}
    return [(side, _stride_color(stride)) for stride, side in ends.items()]


def _stride_color(stride: int) -> str:
    return {1: OUTLINE, 2: GOOD, 4: "#CC79A7"}.get(stride, DEFECTIVE)


def shrinking(image: np.ndarray, mask: np.ndarray, times: int = 3) -> Figure:
    """A crack made smaller in three ways: the darkest, the mean, and just one of each 2x2 pixels.

    Above each picture stands how far the crack stands out: the mean darkness in the mask minus that
    of the rest, in standard deviations of the rest.

    Args:
        image: (H, W) uint8, a cut-out with a crack; both sides divisible by 2**times.
        mask: (H, W) bool, the crack.
    """
    darkness = (255.0 - image).astype(np.float32)
    ways = {"max-pool": _halve_max, "mean": _halve_mean, "skipping": _halve_skip}
    with matplotlib.rc_context(PICTURES):
        figure = _sheet(1.0 + 2.3 * len(ways))
        grid = figure.subplots(len(ways), times + 1, squeeze=False)
        for axes, (name, halve) in zip(grid, ways.items(), strict=True):
            picture, place = darkness, mask
            for step, ax in enumerate(axes):
                if step:
                    picture, place = halve(picture), _halve_max(place.astype(np.float32)) > 0
                ax.imshow(255 - picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                size = f"1/{2**step}" if step else "as it is"
                ax.set_title(f"{name}, {size}: {stands_out(picture, place):.1f}")
                ax.set_axis_off()
    return figure


def stands_out(darkness: np.ndarray, mask: np.ndarray) -> float:
    """Mean darkness in the mask minus that of the rest, in standard deviations of the rest."""
    rest = darkness[~mask]
    return float((darkness[mask].mean() - rest.mean()) / rest.std())


def _blocks(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape
    return pixels.reshape(height // 2, 2, width // 2, 2)


def _halve_max(pixels: np.ndarray) -> np.ndarray:
    return _blocks(pixels).max((1, 3))


def _halve_mean(pixels: np.ndarray) -> np.ndarray:
    return _blocks(pixels).mean((1, 3))


def _halve_skip(pixels: np.ndarray) -> np.ndarray:
    return pixels[::2, ::2]


def normalisation(network: SegmentationNet, image: np.ndarray, channel: int = 0) -> Figure:
    """One feature map of a surface in two lights, before and after feature normalisation.

    Args:
        image: (H, W) uint8.
        channel: of the first layer.
    """
    lights = {"as it is": image, "half the light": (image * 0.5).astype(np.uint8)}
    convolution, norm = network.features[0][0], network.features[0][1]
    with torch.inference_mode():
        inputs = [torch.from_numpy(p)[None, None].float() / 255 for p in lights.values()]
        before = [convolution(x)[0, channel].numpy() for x in inputs]
        after = [norm(convolution(x))[0, channel].numpy() for x in inputs]
    with matplotlib.rc_context(PICTURES):
        ratio = image.shape[0] / image.shape[1]
        figure = _sheet(min(6.0, 1.45 * ratio) + 0.8)
        grid = figure.subplots(1, 6)
        for row, (name, pixels) in enumerate(lights.items()):
            axes = grid[3 * row : 3 * row + 3]
            axes[0].imshow(pixels, cmap="gray", vmin=0, vmax=255)
            axes[0].set_title(name)
            for ax, maps, title in (
                (axes[1], before, "convolution"),
                (axes[2], after, "normalised"),
            ):
                limits = np.percentile(np.stack([m[8:-8, 8:-8] for m in maps]), (1, 99))
                ax.imshow(maps[row], cmap="viridis", vmin=limits[0], vmax=limits[1])
                inner = maps[row][8:-8, 8:-8]
                ax.set_title(f"{title}\n{inner.mean():.3f} ± {inner.std():.3f}")
        for ax in grid:
            ax.set_axis_off()
    return figure


SEEN = {"1/1": 1, "1/2": 5, "1/4": 10, "1/8": 12}
"""Scale -> the last layer of `SegmentationNet.features` that answers at it."""


def what_it_saw(network: SegmentationNet, image: np.ndarray, loss: str, each: int = 3) -> Figure:
    """The strongest feature maps of a surface at each scale, and the mask that comes of them.

    Args:
        network: trained, on any device.
        image: (H, W) uint8, at a size that the network takes.
        loss: the `segmentation_loss` that it was trained with.
        each: maps a scale: those with the highest single answer.
    """
    where = next(network.parameters()).device
    maps, answer = {}, torch.from_numpy(image)[None, None].float().to(where) / 255
    with torch.inference_mode():
        for number, layer in enumerate(network.features):
            answer = layer(answer)
            for scale, last in SEEN.items():
                if number == last:
                    strongest = answer[0].amax((1, 2)).topk(each).indices
                    maps[scale] = answer[0, strongest].float().cpu().numpy()
        mask_logits = network.mask_norm(network.mask(answer).float())
        mask = probability(mask_logits, loss)[0, 0].cpu().numpy()
    panels = [("surface", image, "gray", None)]
    for scale, found in maps.items():
        panels += [(f"at {scale}", one, "viridis", None) for one in found]
    panels.append(("mask", mask, HEAT["cmap"], HEAT["norm"]))
    ratio = image.shape[0] / image.shape[1]
    with matplotlib.rc_context(PICTURES):
        figure = _sheet(2 * min(4.2, 1.25 * ratio) + 0.7)
        grid = figure.subplots(2, -(-len(panels) // 2)).ravel()
        for ax, (title, pixels, colors, norm) in zip(grid, panels, strict=False):
            ax.imshow(pixels, cmap=colors, norm=norm, interpolation="nearest")
            ax.set_title(title, fontsize=9, fontweight="normal", pad=3)
        for ax in grid:
            ax.set_axis_off()
    return figure


def balance(shown: Mapping[str, Sequence[bool]]) -> Figure:
    """The surfaces that the first steps see, one square each, the defective ones in orange.

    Args:
        shown: name of the order -> whether each surface is defective, in the order of the steps.
    """
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = _sheet(0.2 + 0.75 * len(shown))
        for ax, (name, flags) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
            colors = [DEFECTIVE if flag else "#d9e6ee" for flag in flags]
            ax.bar(range(len(flags)), 1, width=0.9, color=colors)
            ax.set_title(f"{name}: {sum(flags)} of {len(flags)} are defective", fontsize=9.5)
            ax.set_axis_off()
            ax.margins(x=0)
    return figure


def two_scores(labels: ArrayLike, mask_maximum: ArrayLike, decision: ArrayLike) -> Figure:
    """Each surface by what the two networks say: the mask's maximum across, the decision upwards.

    Args:
        labels, mask_maximum, decision: (N,), defective or not, and logits.
    """
    labels = np.asarray(labels, bool)
    across, upwards = np.asarray(mask_maximum, float), np.asarray(decision, float)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.4), layout="constrained")
        ax = figure.subplots()
        for kind, color, marker, name in (
            (False, GOOD, "o", "good"),
            (True, DEFECTIVE, "D", "defective"),
        ):
            chosen = labels == kind
            style = {"s": 22, "alpha": 0.65, "linewidths": 0, "label": name}
            ax.scatter(across[chosen], upwards[chosen], color=color, marker=marker, **style)
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
    """A square cut-out with the defect in its middle, moved inside the surface where it must be.

    Args:
        image, mask: (H, W); both sides at least `side`.
    """
    rows, columns = np.nonzero(mask)
    places = [
        int(np.clip(round(float(where.mean())) - side // 2, 0, length - side))
        for where, length in ((rows, image.shape[0]), (columns, image.shape[1]))
    ]
    cut = slice(places[0], places[0] + side), slice(places[1], places[1] + side)
    return image[cut], mask[cut].astype(bool)


def _sheet(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height + STAMP), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, height / (height + STAMP)))
    return figure
