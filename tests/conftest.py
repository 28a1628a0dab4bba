"""Fixtures: a clean environment, a tiny data set in the layout, and the real one if near."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pytest
import torch
from fake_drive import drive, home, new_machine, run  # noqa: F401  fixtures

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """No KSDD_ setting of the caller reaches a test, and no test reaches the caller's cache."""
    for name in [name for name in os.environ if name.startswith("KSDD_")]:
        if name != "KSDD_ARCHIVE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """A network of 64 channels instead of 1024, on one thread: for tests of what is done with it.

    The threads decide the order of sums, and so the last bits.
    """
    from ksdd_lib.models import two_stage

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_stage, "FEATURES", 64)
        yield
    torch.set_num_threads(threads)


def write_surface(
    folder: Path, part: str, seed: int | list[int], defective: bool, size=(160, 128)
) -> None:
    """One gray texture with its mask; a defective one has a dark line that the mask repeats."""
    random = np.random.default_rng(seed)
    image = 150 + 60 * cv2.GaussianBlur(random.standard_normal(size), (0, 0), 1.5)
    mask = np.zeros(size, np.uint8)
    if defective:
        height, width = size
        start = (int(width * random.uniform(0.2, 0.4)), int(height * random.uniform(0.2, 0.4)))
        end = (int(width * random.uniform(0.6, 0.8)), int(height * random.uniform(0.6, 0.8)))
        cv2.line(mask, start, end, 255, 3)
        image[mask > 0] = 20
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{part}.jpg"), image.clip(0, 255).astype(np.uint8))
    cv2.imwrite(str(folder / f"{part}_label.bmp"), mask)


def write_data_set(root: Path, items: int = 6, parts: int = 4, size=(160, 128)) -> Path:
    """`items` times `parts` surfaces in the layout; Part1 of every item is defective."""
    for item in range(1, items + 1):
        for part in range(parts):
            write_surface(root / f"tiny{item:02}", f"Part{part}", [item, part], part == 1, size)
    return root


@pytest.fixture
def make_data_set() -> Callable[..., Path]:
    """`write_data_set(root, items=6, parts=4, size=(160, 128))`, for other sizes and counts."""
    return write_data_set


@pytest.fixture
def make_surface() -> Callable[..., None]:
    """`write_surface(folder, part, seed, defective, size=(160, 128))`."""
    return write_surface


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """A data set of 6 items of 4 surfaces, 160x128 (height x width), one of each item defective."""
    return write_data_set(tmp_path / "tiny")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image and mask has been decoded, by `<item>/<file>`."""
    from ksdd_lib.data import pixels

    decode, counts = pixels._decode, Counter()

    def counted(data: bytes, name: str, flags: int) -> np.ndarray:
        counts[name] += 1
        return decode(data, name, flags)

    monkeypatch.setattr(pixels, "_decode", counted)
    return counts


@pytest.fixture(scope="session")
def kolektor_archive() -> Path:
    """KolektorSDD.zip: $KSDD_ARCHIVE, or the one shared beside the repository."""
    path = Path(
        os.environ.get("KSDD_ARCHIVE") or REPOSITORY.parent / "shared" / "data" / "KolektorSDD.zip"
    )
    if not path.is_file():
        pytest.skip(f"KolektorSDD.zip is not at {path}: set KSDD_ARCHIVE to its path")
    return path


@pytest.fixture(scope="session")
def kolektor_root(kolektor_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KolektorSDD, unpacked for this session."""
    from ksdd_lib.data.sources import unpack

    return unpack(kolektor_archive, tmp_path_factory.mktemp("kolektor")).root


@pytest.fixture(scope="session")
def kolektor_samples(kolektor_root: Path) -> list:
    """Its 399 samples."""
    from ksdd_lib.data.survey import find_samples

    return find_samples(kolektor_root)


class Screen:
    """What a notebook's cell shows; `bundles` are the outputs, each in its newest state, and
    `metadata` what came with them at first. `drawn` counts pictures."""

    def __init__(self) -> None:
        self.bundles: list[dict] = []
        self.metadata: list[dict | None] = []
        self.drawn = 0

    @property
    def pictures(self) -> list[dict]:
        """The outputs with a picture."""
        return [bundle for bundle in self.bundles if "image/png" in bundle]

    def display(
        self,
        bundle: dict,
        raw: bool = False,
        display_id: bool = False,
        metadata: dict | None = None,
    ) -> "Handle":
        self.bundles.append(bundle)
        self.metadata.append(metadata)
        self.drawn += isinstance(bundle, dict) and "image/png" in bundle  # else a widget
        return Handle(self, len(self.bundles) - 1)


class Handle:
    def __init__(self, screen: Screen, place: int) -> None:
        self.screen, self.place = screen, place

    def update(self, bundle: dict, raw: bool, metadata: dict) -> None:
        self.screen.bundles[self.place] = bundle
        self.screen.drawn += "image/png" in bundle


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A notebook's screen, without a kernel."""
    from ksdd_lib.notebook import outputs

    screen = Screen()
    monkeypatch.setattr(outputs, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", screen.display)
    return screen
