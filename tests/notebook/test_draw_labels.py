"""Labels that are drawn are read back as they were drawn, and replace nothing in silence."""

import base64
import html
import json
import re
import sys
import types
from pathlib import Path

import cv2
import fake_colab
import numpy as np
import pytest
from PIL import Image
from small_results import Judge

from ksdd_lib.data.dataset import read_image, read_mask
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import find_samples
from ksdd_lib.deploy.detection import Verdict
from ksdd_lib.errors import DataError
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.layouts.catalog import recognise
from ksdd_lib.layouts.found import Tree
from ksdd_lib.notebook import draw_labels
from ksdd_lib.notebook.draw_labels import Drawer
from ksdd_lib.notebook.drawn_shapes import drawn, shapes_of, stored_shapes
from ksdd_lib.presets import resolve

SIZE = (60, 80)


def shape(kind: str, *points: tuple[float, float], width: int = 0, label: str = "defect") -> dict:
    return {"kind": kind, "points": points, "width": width, "label": label}


TRIANGLE = shape("polygon", (10, 10), (50, 12), (30, 40))
STROKE = shape("brush", (5, 50), (40, 45), (70, 52), width=5)
ERASED = shape("erase", (30, 0), (30, 59), width=3, label="")
HOLE = shape("erase", (28, 18), width=7, label="")
DRAWINGS = {
    "an outline": [TRIANGLE],
    "an outline with decimals": [shape("polygon", (10.4, 9.6), (50.5, 12), (30.2, 40.7))],
    "one that reaches beyond": [shape("polygon", (-30, -9), (200, 20), (40, 90))],
    "a stroke": [STROKE],
    "a dot": [shape("brush", (7, 8), width=1)],
    "a thick dot in a corner": [shape("brush", (79, 59), width=21)],
    "two pixels": [shape("brush", (7, 8), (8, 9), width=1)],
    "an outline cut in two": [TRIANGLE, ERASED],
    "an outline with a hole": [TRIANGLE, HOLE],
    "a hole with an island": [TRIANGLE, HOLE, shape("brush", (28, 18), width=2)],
    "a stroke over an outline": [TRIANGLE, shape("brush", (0, 20), (79, 20), width=9)],
    "two classes": [TRIANGLE, STROKE | {"label": "dent"}, ERASED],
    "nearly all erased": [TRIANGLE, shape("erase", (30, 25), width=26, label="")],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures without labels."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"a{number}.png"), texture(number))
    return folder


def texture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(50, 200, size).astype(np.uint8)


def ask(drawer: Drawer, what: str, at: int | None = 0, **more: object) -> dict:
    return drawer.answer(json.dumps({"what": what, "at": at, **more}))


def save(drawer: Drawer, at: int = 0, shapes: list = (TRIANGLE,), **more: object) -> dict:
    return ask(drawer, "save", at, shapes=shapes, **more)


def read(root: Path, layout: str = "auto") -> dict[str, np.ndarray]:
    """Masks by name, as the readers of a layout give them."""
    _, found = recognise(Tree(root), layout)
    return {p.path.name: p.mask(read_image(p.path).shape) for p in found.pictures if p.mask}


def state(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("shapes", DRAWINGS.values(), ids=DRAWINGS)
def test_what_is_drawn_is_read_back_equal(root: Path, shapes: list):
    drawer = Drawer(root)
    assert save(drawer, shapes=shapes)["told"] == "Saved: a0_label.png (defective)."
    stored = cv2.imread(str(root / "a0_label.png"), cv2.IMREAD_UNCHANGED)
    assert stored.shape == SIZE and set(np.unique(stored)) == {0, 255}
    for layout in ("masks_beside", "labelme", "auto"):
        assert np.array_equal(read(root, layout)["a0.png"], stored > 0), layout
    assert recognise(Tree(root))[0] == "masks_beside"
    again = ask(drawer, "show")["shapes"]
    save(drawer, shapes=again)
    assert np.array_equal(read(root)["a0.png"], stored > 0), "opened and saved"
    classes = {p.path.name: p.classes for p in recognise(Tree(root))[1].pictures}
    assert classes["a0.png"] == tuple(sorted({s["label"] for s in shapes} - {""}))


@pytest.mark.parametrize("seed", range(20))
def test_any_mask_is_drawn_by_its_outlines(seed: int):
    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.random(SIZE), (0, 0), seed / 8) if seed else random.random(SIZE)
    mask = noise > np.quantile(noise, random.uniform(0.1, 0.95))
    found, raws = drawn(SIZE, shapes_of(mask))
    assert np.array_equal(found, mask)
    assert np.array_equal(drawn(SIZE, stored_shapes(raws, SIZE))[0], mask)


def test_an_outline_keeps_its_corners_and_the_picture_is_named_as_labelme_does(root: Path):
    save(Drawer(root), shapes=[TRIANGLE, STROKE])
    stored = json.loads((root / "a0.json").read_text())
    assert stored["imagePath"] == "a0.png" and stored["imageData"] is None
    assert (stored["imageHeight"], stored["imageWidth"]) == SIZE
    assert stored["shapes"][0]["points"] == [[10, 10], [50, 12], [30, 40]]
    assert {raw["shape_type"] for raw in stored["shapes"]} == {"polygon"}


def test_no_defect_is_an_empty_mask_and_nothing_drawn_is_no_label(root: Path):
    drawer = Drawer(root)
    for shapes in ([], [TRIANGLE, shape("erase", (30, 25), width=90, label="")]):
        assert "press No defect" in save(drawer, shapes=shapes)["error"]
    assert len(state(root)) == 3, "only the pictures"
    assert save(drawer, shapes=[], is_good=True)["told"].endswith("(good).")
    save(drawer, 1)
    masks = read(root)
    assert masks.keys() == {"a0.png", "a1.png"} and not masks["a0.png"].any()
    assert json.loads((root / "a0.json").read_text())["shapes"] == []


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_that_exif_turns_is_labelled_upright(root: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(texture(9, (48, 90))).save(root / "turned.jpg", exif=exif)
    drawer = Drawer(root)
    at = [p.path.name for p in drawer.pictures].index("turned.jpg")
    upright = (48, 90) if orientation == 3 else (90, 48)
    assert ask(drawer, "show", at)["size"] == upright
    save(drawer, at)
    assert read(root)["turned.jpg"].shape == read(root, "labelme")["turned.jpg"].shape == upright


def test_a_dark_picture_of_16_bits_is_seen_and_labelled(root: Path):
    cv2.imwrite(str(root / "a0.png"), texture(0).astype(np.uint16) * 16)
    drawer = Drawer(root)
    jpeg = ask(drawer, "show")["picture"].partition("base64,")[2]
    seen = cv2.imdecode(np.frombuffer(base64.b64decode(jpeg), np.uint8), 0)
    assert seen.min() < 20 and seen.max() > 235
    save(drawer)
    assert read(root)["a0.png"].shape == SIZE


def test_a_large_picture_is_reduced_for_the_screen_alone(root: Path, monkeypatch):
    monkeypatch.setattr(draw_labels, "SHOWN", 1000)
    shown = ask(Drawer(root), "show")
    jpeg = base64.b64decode(shown["picture"].partition("base64,")[2])
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 0).size < 1100 and shown["size"] == SIZE


NAMES = [
    "with space 1.JPG",
    "b.1.2.jpeg",
    "größe-ñ.bmp",
    "it's (2) #3 &amp;.png",
    "sub/x_label.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_any_name_are_labelled_where_they_lie(root: Path, name: str):
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, texture(5))[1].tobytes())
    drawer = Drawer(root)
    at = [p.path for p in drawer.pictures].index(path)
    assert "told" in save(drawer, at)
    label = path.with_name(f"{path.stem}_label.png")
    assert label.exists() and path.with_suffix(".json").exists()
    assert np.array_equal(read(root)[path.name], cv2.imread(str(label), 0) > 0)


@pytest.mark.parametrize(
    "names", [["b.jpg", "b.jpeg"], ["b.jpg", "B.bmp", "b.bmp"], ["b\udcff.png"]]
)
def test_pictures_that_would_share_a_label_are_named(root: Path, names: list[str]):
    for name in names:
        (root / name).write_bytes(cv2.imencode(Path(name).suffix, texture(5))[1].tobytes())
    drawer, before = Drawer(root), state(root)
    ours = [n for n, p in enumerate(drawer.pictures) if p.path.name in names]
    assert ours and all("rename it" in save(drawer, at)["error"] for at in ours)
    assert state(root) == before


LABELS = ["a0_label.png", "a0_label.bmp", "a0_mask.png", "a0_GT.bmp", "A0-Labels.PNG", "a0.json"]


@pytest.mark.fault(70)
@pytest.mark.parametrize("name", LABELS)
def test_a_label_of_somebody_else_is_never_overwritten(root: Path, name: str):
    theirs = root / name
    if name == "a0.json":
        theirs.write_text('{"shapes": [], "imagePath": "a0.png"}')
    else:
        mask = (texture(3) > 190).astype(np.uint8) * 255
        theirs.write_bytes(cv2.imencode(theirs.suffix, mask)[1].tobytes())
    content, before = theirs.read_bytes(), state(root)
    drawer = Drawer(root)
    for more in ({}, {"shapes": [], "is_good": True}):
        answer = save(drawer, **more)
        assert name in answer["question"] and "told" not in answer
        assert state(root) == before
    assert save(drawer, is_agreed=True)["told"]
    assert (root / f"{name}.earlier").read_bytes() == content
    assert np.array_equal(read(root)["a0.png"], cv2.imread(str(root / "a0_label.png"), 0) > 0)
    assert "question" not in save(drawer, shapes=[STROKE]), "its own are replaced"
    assert len(list(root.glob("*.earlier*"))) == 1


@pytest.mark.fault(70)
@pytest.mark.parametrize("name", ["a0_label.png", "a0.json"])
def test_a_label_drawn_here_and_changed_since_is_somebody_s(root: Path, name: str):
    save(Drawer(root))
    for number, kept in enumerate([f"{name}.earlier", f"{name}.earlier-2"]):
        (root / name).write_bytes((root / name).read_bytes() + b" " * (number + 1))
        changed = (root / name).read_bytes()
        drawer = Drawer(root)
        assert name in save(drawer)["question"] and (root / name).read_bytes() == changed
        save(drawer, is_agreed=True)
        assert (root / kept).read_bytes() == changed


@pytest.mark.fault(70)
def test_a_disk_that_is_full_leaves_a_label_that_is_asked_about(root: Path, monkeypatch):
    drawer, write = Drawer(root), draw_labels.storage.write_bytes
    save(drawer)

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".png":
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(draw_labels.storage, "write_bytes", full)
    before = (root / "a0_label.png").read_bytes()
    assert "No space left" in save(drawer, shapes=[STROKE])["error"]
    assert (root / "a0_label.png").read_bytes() == before
    monkeypatch.undo()
    with pytest.raises(DataError, match="its mask and its outlines differ"):
        read(root)
    assert "a0_label.png" in save(Drawer(root), shapes=[STROKE])["question"]


@pytest.mark.fault(70)
def test_outlines_that_somebody_changed_later_are_compared_with_the_mask(root: Path):
    save(Drawer(root))
    save(Drawer(root), 1, [], is_good=True)
    about = json.loads((root / "a0.json").read_text())
    about["shapes"][0]["points"][0] = [2, 2]
    (root / "a0.json").write_text(json.dumps(about))
    settings = resolve({"preset": "cpu", "item": "picture"})
    folder = as_item_folders(DataFolder(root, "parts"), root.parent, settings)
    assert any("a0, its mask and its outlines differ" in note for note in folder.notes)
    with pytest.raises(DataError, match="a0"):
        find_samples(folder.root)


def test_a_folder_that_was_labelled_here_is_trained_as_it_lies(root: Path):
    drawer = Drawer(root)
    for at in range(3):
        save(drawer, at, [] if at else [TRIANGLE], is_good=at > 0)
    settings = resolve({"preset": "cpu", "item": "picture"})
    folder = as_item_folders(DataFolder(root, "parts"), root.parent, settings)
    assert not [note for note in folder.notes if "not understood" in note]
    masks = {one.name: read_mask(one) for one in find_samples(folder.root)}
    assert [masks[name].any() for name in sorted(masks)] == [True, False, False]


def test_labels_elsewhere_are_not_doubled(root: Path):
    (root / "masks").mkdir()
    cv2.imwrite(str(root / "masks" / "a0.png"), (texture(3) > 190).astype(np.uint8) * 255)
    drawer, before = Drawer(root), state(root)
    assert [p.path.name for p in drawer.pictures] == ["a0.png", "a1.png", "a2.png"]
    assert "not beside it" in save(drawer)["error"] and state(root) == before
    assert save(drawer, 1)["told"]
    coco = {"images": [{"id": 1, "file_name": "a2.png"}], "annotations": [], "categories": []}
    (root / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match="parts is labelled as COCO.*convert"):
        Drawer(root)


@pytest.mark.parametrize(("name", "found"), [("empty", "no picture in empty"), ("x", "no picture")])
def test_a_folder_without_pictures_is_named(tmp_path: Path, name: str, found: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=found):
        Drawer(tmp_path / name)


def test_pictures_are_gone_through_and_the_first_without_a_label_comes_first(root: Path):
    (root / "good").mkdir()
    cv2.imwrite(str(root / "good" / "b.png"), texture(8))
    drawer = Drawer(root)
    assert ask(drawer, "show", None)["name"] == "a0.png"
    save(drawer)
    shown = ask(drawer, "show", None)
    assert (shown["name"], shown["at"], shown["count"], shown["labelled"]) == ("a1.png", 1, 4, 2)
    assert ask(drawer, "show", 3)["is_labelled"], "it lies in a folder called good"
    assert ask(drawer, "show", 4)["name"] == "a0.png" and ask(drawer, "show", -1)["at"] == 3
    assert Drawer(root).labelled == drawer.labelled


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"what": "answer"}', '{"what": "__init__"}'])
def test_a_message_that_is_none_is_answered(root: Path, text: str):
    assert "What was drawn" in Drawer(root).answer(text)["error"]


def test_what_cannot_be_read_is_told_and_the_next_picture_comes(root: Path):
    (root / "a0.png").write_bytes(b"no picture")
    (root / "a1.json").write_text('{"imagePath": "a1.png", "shapes": [{"points": [[1, 2]]}]}')
    drawer = Drawer(root)
    assert "a0.png is not a JPEG" in ask(drawer, "show", 0)["error"]
    assert "a1.json has 1 points, and needs 3" in ask(drawer, "show", 1)["error"]
    assert "picture" in ask(drawer, "show", 2)


class Seer(Judge):
    """Sees a square, or what it is told to."""

    origin, mask = "mine, trained on parts", None

    def judge(self, image: np.ndarray) -> Verdict:
        mask = np.zeros(image.shape, np.float32)
        mask[10:30, 20:50] = 0.9
        return Verdict("defective", 5.0, mask) if image.std() else Verdict("not a surface")


def test_a_model_s_mask_comes_as_outlines_that_can_be_saved(root: Path, monkeypatch):
    asked = []
    monkeypatch.setattr(draw_labels.detection, "load", lambda path: (asked.append(path), Seer())[1])
    cv2.imwrite(str(root / "a2.png"), np.full(SIZE, 90, np.uint8))
    drawer = Drawer(root, Path("mine.safetensors"))
    found = [ask(drawer, "propose", at) for at in (0, 1)]
    assert asked == [Path("mine.safetensors")], "it is loaded once"
    assert found[0]["told"].startswith("mine, trained on parts: defective, score 5.00, threshold")
    save(drawer, shapes=found[0]["shapes"])
    assert read(root)["a0.png"].sum() == pytest.approx(600, abs=60)
    none = ask(drawer, "propose", 2)
    assert none["shapes"] == [] and "no surface" in none["told"]


def test_weights_that_are_not_there_are_told(root: Path):
    drawer = Drawer(root, root / "none.safetensors")
    assert "There is no file none.safetensors" in ask(drawer, "propose")["error"]


def opened(screen, folder: str = "") -> tuple:
    draw_labels.form(folder)
    return screen.bundles[-1].children


def test_the_form_opens_a_page_that_speaks_through_two_hidden_boxes(root: Path, screen):
    box, _, button, told, page, _ = opened(screen, str(root))
    assert box.value == str(root)
    button.click()
    frame, asks, answers = page.children
    source = html.unescape(re.search('srcdoc="(.*)">', frame.value, re.S)[1])
    assert asks.layout.display == answers.layout.display == "none"
    [key] = {re.sub("-(asks|answers)$", "", one._dom_classes[0]) for one in (asks, answers)}
    assert f'const KEY = "{key}"' in source and "THE_KEY" not in source
    asks.value = f"7-0.5 {json.dumps({'what': 'show', 'at': None})}"
    shown = json.loads(answers.value)
    assert (shown["id"], shown["name"]) == ("7-0.5", "a0.png")
    asks.value = f"8-0.5 {json.dumps({'what': 'save', 'at': 0, 'shapes': [TRIANGLE]})}"
    assert json.loads(answers.value)["id"] == "8-0.5" and (root / "a0_label.png").exists()


@pytest.mark.parametrize("typed", ["", "  ", "nowhere", "a0.png"])
def test_the_form_says_what_is_wrong(root: Path, screen, typed: str, monkeypatch):
    monkeypatch.chdir(root)
    box, _, button, told, page, _ = opened(screen, "kolektorsdd")
    assert box.value == ""
    box.value = typed
    button.click()
    words = "no picture" if typed.strip() else "Type the path of a folder first."
    assert words in told.value and not page.children


def test_in_colab_the_page_calls_the_kernel(root: Path, screen, monkeypatch):
    for name in ("google", "google.colab", "google.colab.output"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["google.colab"].output = sys.modules["google.colab.output"]
    sys.modules["google.colab.output"].register_callback = fake_colab.register_callback
    monkeypatch.setattr(draw_labels.colab, "in_colab", lambda: True)
    *_, button, _, page, _ = opened(screen, str(root))
    button.click()
    shown = screen.bundles[-1]["text/html"]
    key = re.search('const KEY = "(.*?)"', shown)[1]
    answer = fake_colab.CALLBACKS[key](f"1-0.5 {json.dumps({'what': 'show', 'at': 1})}")
    assert answer.data["name"] == "a1.png" and not page.children


def test_the_page_asks_nothing_from_outside():
    page = draw_labels.PAGE.read_text("utf-8")
    assert not re.search(r"https?://|@import|\bsrc=|fetch\(|import\(", page)
    script = page.partition("<script>")[2].partition("</script>")[0]
    assert "</script" not in script and "innerHTML" not in script
