"""Surfaces in memory, and the deterministic order in which training sees them."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from ksdd_lib.data.dataset import Sample
from ksdd_lib.data.layout_note import own_classes
from ksdd_lib.settings import Settings
from ksdd_lib.training.canvas import MIDDLE, Canvas, read_canvas
from ksdd_lib.training.copy_paste import Defect, lift, paste, turned
from ksdd_lib.training.drawn_defects import Ranges, add_harmless, draw
from ksdd_lib.view import Box, View, view_of

FLIPS = (0, 4, 6, 2)
"""The views that keep an image's shape: as it is, left to right, top to bottom, both. Each undoes
itself."""

KEPT_BYTES = 2**26
"""The most memory for pictures of which tiles are cut; what does not fit is read again. Beside a
GPU, whose steps are shorter than reading, it is 32 times as much."""

FAINTEST = 0.4
"""The least contrast, of its own, with which a defect is pasted."""


def mirror_images(average_flips: bool) -> tuple[int, ...]:
    """The views over which an image's score is averaged: all of `FLIPS`, or it alone."""
    return FLIPS if average_flips else (0,)


@dataclass(frozen=True)
class Pasted:
    """The good sample that a defect is laid upon, and how `copy_paste` turns and pastes it."""

    row: int
    height: float
    strength: float
    degrees: float = 0.0


@dataclass(frozen=True)
class Shown:
    """One sample as a step sees it: its row, view and tile, and what is pasted or drawn on it."""

    row: int
    view: int = 0
    pasted: Pasted | None = None
    drawn: tuple[int, ...] | None = None  # what draws a defect upon it
    harmless: tuple[int, ...] | None = None  # what draws things that are no defect
    tile: tuple[float, ...] | None = None  # four numbers below 1, which draw it; None without tiles


@dataclass(frozen=True)
class Surfaces:
    """Samples at the network's size, in memory as uint8."""

    samples: tuple[Sample, ...]
    images: Tensor  # (N, 1, H, W), gray
    masks: Tensor  # (P, K, H, W), of defective samples alone: each pixel's annotated share * 255
    mask_row: tuple[int, ...]  # each sample's row in `masks`, or -1
    inner: tuple[Box, ...] = ()  # what each picture fills, where it has a border
    names: tuple[str, ...] = ()  # of the classes, where several are told apart
    ranges: Ranges | None = None  # of what is drawn, where anything is

    @property
    def classes(self) -> int:
        """K, the classes of defects that are told apart."""
        return self.masks.shape[1]

    def to(self, device: torch.device) -> "Surfaces":
        """The same surfaces in the memory of `device`."""
        return replace(self, images=self.images.to(device), masks=self.masks.to(device))

    def image(self, row: int, view: int = 0) -> Tensor:
        """Sample `row` as the network takes it: (1, 1, H, W) float32 in [0, 1], channels last.

        The view, from 0 to 7, is that of `turn`: by 90 or 270 degrees it is (1, 1, W, H).
        """
        return network_input(self.images[row : row + 1], view)

    def mask(self, row: int, view: int = 0) -> Tensor:
        """The annotation of sample `row`, (1, K, H, W) of its image's size, float32 in [0, 1]."""
        kept = self.mask_row[row]
        if kept < 0:
            return torch.zeros_like(self.image(row, view).expand(-1, self.classes, -1, -1))
        return network_input(self.masks[kept : kept + 1], view)

    def show(self, shown: Shown) -> tuple[Tensor, Tensor]:
        """Image and annotation of a sample as a step sees it, as `image` and `mask` give them."""
        image, masks = self._pixels(shown)
        if shown.harmless:
            assert self.ranges is not None
            random = np.random.default_rng(shown.harmless)
            inner = self.inner[shown.row] if self.inner else None
            found = add_harmless(image[0, 0].cpu().numpy(), self.ranges, random, inner)
            image = torch.from_numpy(found)[None, None].to(image.device)
        return network_input(image, shown.view), network_input(masks, shown.view)

    def _pixels(self, shown: Shown) -> tuple[Tensor, Tensor]:
        """Image (1, 1, H, W) and masks (1, K, H, W), uint8, of a sample with its defect."""
        ground, kept = self.images[shown.row : shown.row + 1], self.mask_row[shown.row]
        if shown.drawn:
            inner = self.inner[shown.row] if self.inner else None
            return self._draw(ground[0, 0], shown.drawn, inner)
        masks = torch.zeros_like(ground).repeat(1, self.classes, 1, 1)
        if shown.pasted:
            defect, kind = self._defects[kept]
            if defect.mask.numel():
                turn = shown.pasted.degrees
                defect = turned(defect, turn) if turn else defect
                image, mask = self._paste(defect, shown.row, shown.pasted)
                masks[:, kind] = mask[:, 0]
                return image, masks
        return ground, masks if kept < 0 else self.masks[kept : kept + 1]

    def _paste(self, defect: Defect, row: int, pasted: Pasted) -> tuple[Tensor, Tensor]:
        """Image and mask, uint8 (1, 1, H, W), of the defect of a row upon another; never beyond."""
        ground = self.images[pasted.row : pasted.row + 1]
        if not self.inner:
            return paste(defect, ground, pasted.height, pasted.strength)
        top, left, rows, columns = self.inner[pasted.row]
        most = max(0, columns - defect.contrast.shape[1])
        defect = replace(defect, left=min(most, defect.left - self.inner[row].left))
        inside = ..., slice(top, top + rows), slice(left, left + columns)
        image, mask = ground.clone(), torch.zeros_like(ground)
        image[inside], mask[inside] = paste(defect, ground[inside], pasted.height, pasted.strength)
        return image, mask

    def _draw(
        self, ground: Tensor, key: tuple[int, ...], inner: Box | None = None
    ) -> tuple[Tensor, Tensor]:
        """Image (1, 1, H, W) and masks (1, K, H, W), uint8, of a defect drawn upon (H, W)."""
        assert self.ranges is not None
        random = np.random.default_rng(key)
        image, mask, kind = draw(ground.cpu().numpy(), self.ranges, random, inner)
        masks = np.zeros((1, self.classes, *mask.shape), np.uint8)
        masks[:, self.names.index(kind) if kind in self.names else 0] = mask
        there = self.images.device
        return torch.from_numpy(image)[None, None].to(there), torch.from_numpy(masks).to(there)

    @cached_property
    def _defects(self) -> list[tuple[Defect, int]]:
        """What can be pasted, in the order of the masks, and its class: none of several classes."""
        rows = [row for row, kept in enumerate(self.mask_row) if kept >= 0]
        images, masks = self.images[rows, 0].cpu().numpy(), self.masks.cpu().numpy()
        found = []
        for image, each in zip(images, masks, strict=True):
            kinds = np.flatnonzero(each.any((1, 2)))
            mask = each[kinds[0]] if len(kinds) == 1 else np.zeros_like(each[0])
            found.append((lift(image, mask).to(self.images.device), int(kinds.max(initial=0))))
        return found

    def label(self, row: int) -> Tensor:
        """For each class 1 where the sample has such a defect, else 0: (1, K) float32."""
        sample, there = self.samples[row], self.images.device
        if self.classes > 1 and sample.is_defective and not sample.has_mask:
            own = own_classes(sample)
            return torch.tensor([[float(name in own) for name in self.names]], device=there)
        if self.classes > 1:
            return self._has_class[None, self.mask_row[row]]
        return torch.full((1, 1), float(sample.is_defective), device=there)

    def label_of(self, shown: Shown) -> Tensor:
        """The label of what a step sees."""
        if shown.drawn:
            return (self._pixels(shown)[1] > 0).flatten(2).any(2).float()
        return self.label(shown.row)

    @cached_property
    def _has_class(self) -> Tensor:
        """(P + 1, K): of each row of `masks`, and last, for -1, of a good sample."""
        found = (self.masks > 0).any(3).any(2)
        return torch.cat([found, torch.zeros_like(self.masks[:1, :, 0, 0] > 0)]).float()


def load_surfaces(
    samples: Sequence[Sample],
    view: View | tuple[int, int],
    annotation: str,
    classes: Sequence[str] = (),
) -> Surfaces:
    """Read all samples, annotate as `targets.annotate`, and show them as the network sees them.

    Of several `classes` each has a mask of its own. A size (H, W) stands for the view of whole
    pictures that are stretched to it. Of a view of tiles it is one tile of each.
    """
    view = view_of(view)

    def load(sample: Sample) -> tuple[np.ndarray, np.ndarray | None, Box]:
        canvas = read_canvas(sample, view, annotation, classes)
        return *canvas.cut(), canvas.inner

    with ThreadPoolExecutor(4) as pool:
        images, masks, inner = zip(*pool.map(load, samples), strict=True)
    numbers = itertools.count()
    defective = [mask for mask in masks if mask is not None]
    return Surfaces(
        tuple(samples),
        torch.from_numpy(np.stack(images)[:, None]),
        torch.from_numpy(
            np.array(defective, np.uint8).reshape(-1, max(1, len(classes)), *view.size)
        ),
        mask_row=tuple(-1 if mask is None else next(numbers) for mask in masks),
        inner=inner if view.fit == "pad" and not view.tiled else (),
        names=tuple(classes),
    )


def one_of_each(
    train: Sequence[Sample], settings: Settings
) -> tuple[Surfaces, tuple[Shown, Shown]]:
    """A defect and a good surface as training sees them; drawn where no defect is known."""
    good = next(one for one in train if not one.is_defective)
    known = next((one for one in train if one.is_defective and one.has_mask), None)
    surfaces = load_surfaces([known or good, good], settings.view, settings.annotation)
    drawn = None if known else (settings.seed, 0)
    return replace(surfaces, ranges=Ranges.of(settings)), (Shown(0, drawn=drawn), Shown(1))


@dataclass(frozen=True)
class Tiles(Surfaces):
    """Samples of which each step sees a tile. Files are read again where memory is short.

    `images` and `masks` have no rows: they only tell the device and the classes.
    """

    read: Callable[[Sample], Canvas] = field(kw_only=True)
    kept: dict[int, Canvas] = field(default_factory=dict, kw_only=True)

    def _pixels(self, shown: Shown) -> tuple[Tensor, Tensor]:
        """As of `Surfaces`. A defect is pasted from its tile upon one of the other sample."""
        image, masks = self._cut(shown.row, shown)
        if shown.drawn:
            image, masks = self._draw(image[0, 0], shown.drawn)
        kinds = masks[0].flatten(1).any(1).nonzero()
        if shown.pasted and len(kinds) == 1:  # else it has several classes
            defect, pasted = lift(image[0, 0].numpy(), masks[0, kinds[0, 0]].numpy()), shown.pasted
            defect = turned(defect, pasted.degrees) if pasted.degrees else defect
            ground, masks = self._cut(pasted.row, shown)
            image, mask = paste(defect, ground, pasted.height, pasted.strength)
            masks[:, kinds[0, 0]] = mask[:, 0]
        return image.to(self.images.device), masks.to(self.images.device)

    def label_of(self, shown: Shown) -> Tensor:
        """For each class whether the tile shows it."""
        if self.classes == 1 and not shown.drawn:
            return self.label(shown.row)
        return (self._pixels(shown)[1] > 0).flatten(2).any(2).float()

    def _cut(self, row: int, shown: Shown) -> tuple[Tensor, Tensor]:
        """Image (1, 1, H, W) and masks (1, K, H, W) of the tile of a row, uint8."""
        canvas = self.kept.get(row) or self.read(self.samples[row])
        free = KEPT_BYTES * (32 if self.images.is_cuda else 1)
        if canvas.nbytes + sum(one.nbytes for one in self.kept.values()) < free:
            self.kept.setdefault(row, canvas)
        image, masks = canvas.cut(shown.tile or MIDDLE)
        none = np.zeros((self.classes, *image.shape), np.uint8)
        found = none if masks is None else masks
        return torch.from_numpy(image.copy())[None, None], torch.from_numpy(found.copy())[None]


def open_tiles(
    samples: Sequence[Sample], view: View, annotation: str, classes: Sequence[str] = ()
) -> Tiles:
    """The samples, to be seen in tiles of the view; the rest is as of `load_surfaces`."""

    def read(sample: Sample) -> Canvas:
        return read_canvas(sample, view, annotation, classes)

    none = torch.zeros((0, max(1, len(classes)), *view.size), dtype=torch.uint8)
    return Tiles(tuple(samples), none[:, :1], none, (), names=tuple(classes), read=read)


@dataclass(frozen=True)
class Order:
    """Which samples each step sees: a function of (seed, fold, stage, step) and nothing else.

    Defective and good samples alternate strictly; within each kind every sample comes once, in a
    new order, before any comes again. Those in `to_draw` are replaced: by themselves with a defect
    drawn on them where they are good, else by any good sample. Those in `unmasked` are not pasted.
    """

    defective: tuple[int, ...]
    good: tuple[int, ...]
    seed: int
    fold: int
    stage: int
    batch_size: int
    rotation: bool = False
    flips: bool = False
    copy_paste: float = 0.0
    paste_turn: float = 0.0
    tiles: bool = False
    to_draw: frozenset[int] = frozenset()
    unmasked: frozenset[int] = frozenset()
    drawn: float = 0.0
    harmless: bool = False

    def shown(self, step: int) -> list[Shown]:
        """What step 0, 1, 2, ... sees. All of a batch is turned and mirrored alike."""
        turns = tuple(range(8 if self.flips else 4))
        views = turns if self.rotation else mirror_images(self.flips)
        view = int(np.random.default_rng(self._key(2, step)).choice(views))
        first = step * self.batch_size
        positions = range(first, first + self.batch_size)
        return [self._shown(place, view) for place in positions]

    def _shown(self, position: int, view: int) -> Shown:
        """What comes at this position of all steps."""
        row, tile = self._row(position), self._tile(position)
        draw = self._key(6, position) if self.harmless else None
        harmless = draw if draw and np.random.default_rng(draw).random() < 0.5 else None
        if position % 2 == 0:
            key = self._key(5, position)
            random = np.random.default_rng(key)
            if row in self.to_draw or random.random() < self.drawn:
                ground = row if row in self.good else int(random.choice(self.good))
                return Shown(ground, view, None, (*key, 1), harmless, tile)
        pasted = None if row in self.unmasked else self._pasted(position)
        return Shown(row, view, pasted, None, harmless, tile)

    def _row(self, position: int) -> int:
        """The row in the surfaces of what comes at this position of all steps."""
        kind = position % 2
        rows = (self.defective, self.good)[kind]
        epoch, place = divmod(position // 2, len(rows))
        return rows[_permutation(self._key(kind, epoch), len(rows))[place]]

    def _pasted(self, position: int) -> Pasted | None:
        """Where the defect of this position is pasted; None where it stays, or there is none."""
        random = np.random.default_rng(self._key(3, position))
        if position % 2 or random.random() >= self.copy_paste:
            return None
        return Pasted(
            int(random.choice(self.good)),
            random.random(),
            float(random.uniform(FAINTEST, 1)),
            float(random.uniform(-self.paste_turn, self.paste_turn)),
        )

    def _tile(self, position: int) -> tuple[float, ...] | None:
        """What draws the tile of this position, anew each time; None without tiles."""
        random = np.random.default_rng(self._key(4, position))
        return tuple(random.random(4).tolist()) if self.tiles else None

    def _key(self, purpose: int, number: int) -> tuple[int, ...]:
        """The seed of one draw."""
        return (self.seed, self.fold, self.stage, purpose, number)


@lru_cache(maxsize=16)
def _permutation(key: tuple[int, ...], count: int) -> list[int]:
    """The numbers below `count` in an order drawn by the key."""
    return np.random.default_rng(key).permutation(count).tolist()


def turn(pixels: Tensor, view: int) -> Tensor:
    """(..., H, W) turned by `view % 4` times 90 degrees and, from view 4 on, mirrored."""
    pixels = torch.rot90(pixels, view % 4, (-2, -1))
    return pixels.flip(-1) if view >= 4 else pixels


def network_input(pixels: Tensor, view: int) -> Tensor:
    """uint8 (1, 1, H, W) -> float32 in [0, 1], turned and mirrored, in the networks' layout."""
    unit = turn(pixels, view).to(torch.float32) / 255
    return unit.contiguous(memory_format=torch.channels_last)
