"""The help in docs/: whole, in step with the package, and linked from errors."""

import ast
import re
from pathlib import Path

import cv2
import help_pages
import numpy as np
import pytest
from pages import place_of
from test_house import ROOT, anchors

from ksdd_lib import errors, presets, storage
from ksdd_lib.__main__ import commands, main
from ksdd_lib.data.data_report import inspect_data, obstacles
from ksdd_lib.data.folds import make_folds
from ksdd_lib.data.sources import from_folder
from ksdd_lib.data.survey import find_samples, survey
from ksdd_lib.errors import (
    EXPLAINED,
    DataError,
    FoldError,
    KsddError,
    SettingsError,
    with_link,
    without_link,
)
from ksdd_lib.layouts import arrange
from ksdd_lib.runs import open as runs
from ksdd_lib.settings import RULES, Settings
from ksdd_lib.settings_io import from_assignments, to_json

DOCS = ROOT / "docs"
PAGES = ["README", *EXPLAINED]
NAMES = [name for names in EXPLAINED.values() for name in names.split()]


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text("utf-8")


def named_pages() -> set[str]:
    """Each page that the package's texts name, as "labels#alpha"."""
    pages = "|".join(EXPLAINED)
    texts = [
        node.value
        for path in (ROOT / "ksdd_lib").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    short = {text for text in texts if re.fullmatch(rf"({pages})#[\w-]+", text)}
    found = [re.findall(r"docs/([\w-]+)\.md(#[\w-]+)?", text) for text in texts]
    return short | {f"{page}{anchor}" for pairs in found for page, anchor in pairs}


class TestPages:
    @pytest.mark.fault(88)
    def test_every_setting_and_command_stands_on_one_page(self):
        assert sorted(NAMES) == sorted([*RULES, *commands()])

    @pytest.mark.fault(88)
    @pytest.mark.parametrize("page", PAGES)
    def test_a_page_is_as_the_package_has_it(self, page: str):
        """`python tools/help_pages.py` writes it anew."""
        text = text_of(page)
        for name, make in help_pages.texts(page).items():
            assert place_of(name).search(text)[0] == make(), name

    @pytest.mark.parametrize("page", EXPLAINED)
    def test_each_name_can_be_linked_to(self, page: str):
        path = DOCS / f"{page}.md"
        assert set(EXPLAINED[page].split()) <= anchors(path)
        headings = re.findall(r"^#+ (.+)$", text_of(page), re.M)
        made = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]
        made += re.findall(r'<a id="([^"]+)"', text_of(page))
        assert len(made) == len(set(made)), "two places have one name"

    def test_the_index_holds_every_name(self):
        text = text_of("README")
        for name in NAMES:
            [page] = [page for page, names in EXPLAINED.items() if name in names.split()]
            assert f"| [`{name}`]({page}.md#{name}) |" in text
        assert all(f"| **[{page}]({page}.md)** | topic |" in text for page in EXPLAINED)

    @pytest.mark.fault(88)
    def test_what_the_package_s_texts_name_is_there(self):
        found = named_pages()
        assert {"labels#alpha", "data#layout", "runs#drive", "protocols#twins"} <= found
        for page in found:
            name, _, anchor = page.partition("#")
            assert not anchor or anchor in anchors(DOCS / f"{name}.md"), page

    @pytest.mark.parametrize("page", [*PAGES, "../notebooks/README"])
    def test_the_english_is_plain(self, page: str):
        """At most 14 words a sentence in the middle, and 28 in 95 of 100."""
        text = re.sub(
            r"<!-- (\w+):begin -->.*?<!-- \1:end -->|```.*?```", "", text_of(page), flags=re.S
        )
        lines = [re.sub(r"^- |\*\*|<[^>]+>|\(\S+\)", "", line) for line in text.splitlines()]
        told = [line for line in lines if line and line[0] not in "#|"]
        sentences = [one for line in told for one in re.split(r"(?<=[.?:;])\s+", line)]
        counts = sorted(len(one.split()) for one in sentences if one)
        assert counts[len(counts) // 2] <= 14
        assert counts[len(counts) * 95 // 100] <= 28


ALPHA = np.full((160, 130, 4), 255, np.uint8)
ALPHA[40:60, 20:90, 3] = 0


def write(root: Path, label: np.ndarray | None, name: str = "a_label.png") -> Path:
    for item in ("x", "y", "z"):
        (root / item).mkdir(parents=True)
        cv2.imwrite(str(root / item / "a.jpg"), np.full((160, 130), 99, np.uint8))
        if label is not None:
            cv2.imwrite(str(root / item / name), label)
    return root


def black(*size: int) -> np.ndarray:
    return np.zeros(size, np.uint8)


class TestErrors:
    """What a newcomer meets most ends with one link."""

    @pytest.mark.fault(88)
    @pytest.mark.parametrize(
        ("label", "name", "page"),
        [
            (ALPHA, "a_label.png", "labels.md#alpha"),
            (np.full((160, 130, 3), (0, 90, 255), np.uint8), "a_label.png", "labels.md#alpha"),
            (np.tile(np.arange(130, dtype=np.uint8), (160, 1)), "a_label.bmp", "labels.md#alpha"),
            (black(80, 65), "a_label.png", "labels.md#sizes"),
            (black(160, 130), "a_Label.png", "labels.md#names"),
            (None, "", "labels.md#names"),
        ],
    )
    def test_labels(self, tmp_path: Path, label: np.ndarray | None, name: str, page: str):
        root = write(tmp_path / "parts", label, name)
        with pytest.raises(DataError) as told:
            find_samples(root)
        assert (
            str(told.value).endswith(f" See docs/{page}.") and str(told.value).count("docs/") == 1
        )
        report = inspect_data(survey(root), from_folder(root), Settings())
        assert obstacles(report)[0].endswith(f" See docs/{page}.")

    def test_labels_of_several_kinds(self, tmp_path: Path):
        root = write(tmp_path / "parts", ALPHA)
        (root / "y" / "a_label.png").unlink()
        with pytest.raises(DataError, match=r"See docs/labels\.md#incomplete\.$") as told:
            find_samples(root)
        assert str(told.value).count("docs/") == 1

    @pytest.mark.fault(88)
    @pytest.mark.parametrize(
        ("given", "page"),
        [
            ("image_size=100x100", "data.md#image_size"),
            ("item=(", "data.md#item"),
            ("layout=zip", "data.md#layout"),
            ("decision_steps=0", "training.md#decision_steps"),
            ("false_alarms=2", "thresholds.md#false_alarms"),
            ("precision=int8", "speed.md#precision"),
            ("partition=x", "protocols.md#partition"),
            ("masks=some", "labels.md#masks"),
            ("step=3", "runs.md#options"),
        ],
    )
    def test_a_setting_that_is_not_allowed_leads_to_it(self, given: str, page: str):
        with pytest.raises(SettingsError) as told:
            presets.resolve(from_assignments([given]))
        assert re.search(rf"[ (][Ss]ee docs/{re.escape(page)}[.)]+$", str(told.value))
        assert str(told.value).count("docs/") == 1

    def test_no_layout_fits(self, tmp_path: Path):
        (tmp_path / "parts").mkdir()
        cv2.imwrite(str(tmp_path / "parts" / "one.png"), black(160, 130))
        with pytest.raises(DataError, match=r"See docs/data\.md#layout\.$"):
            arrange.as_item_folders(from_folder(tmp_path / "parts"), tmp_path, Settings())

    def test_other_settings_of_a_run(self, tmp_path: Path):
        opened = runs.create(presets.resolve({"preset": "demo"}), tmp_path / "first")
        storage.write_json(tmp_path / "first/settings.json", to_json(presets.resolve({"seed": 3})))
        with pytest.raises(KsddError, match=r"See docs/runs\.md#other-settings\.$"):
            opened.require_stored()

    def test_folds_that_do_not_suit(self, tmp_path: Path):
        samples = find_samples(write(tmp_path / "parts", black(160, 130)))
        with pytest.raises(FoldError, match=r"See docs/protocols\.md#folds\.$"):
            make_folds("official", samples)
        with pytest.raises(FoldError, match=r"See docs/(protocols\.md#twins|data\.md#item)\.$"):
            make_folds("clean", samples)

    def test_a_terminal_and_a_notebook_show_it(self, tmp_path: Path, capsys):
        root = write(tmp_path / "parts", ALPHA)
        assert main(["inspect", "--data", str(root)]) == 2
        out, told = capsys.readouterr()
        assert told.rstrip().endswith("See docs/labels.md#alpha.") and "docs/" not in out
        [line] = SettingsError("fold is 9")._render_traceback_()
        assert line.endswith("(see docs/protocols.md#fold)")


class TestLink:
    def test_it_stands_last_and_once(self):
        inner = DataError("a.png has colours", see="labels#alpha")
        assert str(inner) == "a.png has colours (see docs/labels.md#alpha)"
        outer = DataError(f"Two fail: {inner}; b: {inner}. Mend them.", see="labels#incomplete")
        assert str(outer) == (
            "Two fail: a.png has colours; b: a.png has colours. Mend them."
            " See docs/labels.md#alpha."
        )
        assert without_link(str(outer)).endswith("Mend them.")

    def test_parts_that_do_not_agree_lead_to_the_whole_s_page(self):
        parts = [str(DataError("x", see="data#item")), str(DataError("y.", see="data#fit"))]
        assert with_link("Two.", "data#region", *parts) == "Two. See docs/data.md#region."
        assert with_link("None.") == "None."

    @pytest.mark.parametrize(
        ("home", "link"),
        [("https://github.com/a/b", "https://github.com/a/b/blob/main/docs/"), ("", "docs/")],
    )
    def test_without_the_pages_it_leads_to_the_repository(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, link: str
    ):
        monkeypatch.setattr(errors, "__file__", str(tmp_path / "ksdd_lib" / "errors.py"))
        monkeypatch.setattr(errors, "repository", lambda: home)
        inner = DataError("It fails.", see="labels#alpha")
        assert str(inner) == f"It fails. See {link}labels.md#alpha."
        assert str(DataError(f"So: {inner}")) == f"So: It fails. See {link}labels.md#alpha."


class TestHelp:
    @pytest.mark.parametrize(
        ("word", "found"),
        [
            ("false_alarms", "docs/thresholds.md#false_alarms"),
            ("MIRROR", "docs/training.md#flips"),
            ("grid", "docs/study.md#study"),
            ("alpha", "A mask has two levels\n    docs/labels.md#alpha"),
            ("telephone", "docs/labels.md#sizes"),
            ("SHA-256", "docs/runs.md#when-something-breaks"),
            ("exit status", "docs/line.md#judge"),
        ],
    )
    def test_a_word_leads_to_its_page(self, capsys, word: str, found: str):
        assert main(["help", word]) == 0
        assert found in capsys.readouterr().out

    def test_each_section_found_is_there(self):
        assert len(errors.sections()) > 40
        for place, heading, text in errors.sections():
            page, _, anchor = place.partition("#")
            assert anchor in anchors(DOCS / f"{page}.md"), heading
            assert text.startswith(heading)

    def test_without_the_pages_settings_and_commands_are_found(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(errors, "__file__", str(tmp_path / "ksdd_lib" / "errors.py"))
        assert main(["help", "mirror"]) == 0
        assert "docs/training.md#flips" in capsys.readouterr().out
        assert main(["help", "telephone"]) == 2

    def test_an_unknown_word_is_told(self, capsys):
        assert main(["help", "xyzzy"]) == 2
        assert "Nothing is told of 'xyzzy'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names",
    [
        [f"lid{part}_{picture}" for part in range(5) for picture in range(3)],
        [f"{part:03}-{picture}" for part in range(6) for picture in ("left", "right")],
        [f"lots/{kind} {part}.top {n}" for kind in "ab" for part in range(4) for n in range(2)],
    ],
)
def test_the_pages_show_the_pattern_that_inspect_proposes(names: list[str]):
    [pattern] = re.findall(r"--set '(item=.+?)'", arrange.propose(names))
    for page in ("../notebooks/README", "data"):
        assert re.findall(r"--set '(item=.+?)'", text_of(page)) == [pattern]
    assert RULES["item"].reason.endswith(f"as {pattern.removeprefix('item=')}")
