"""Files are whole or absent, and numbers, times and lists read the same everywhere."""

import csv
import errno
import io
import math
import os
from pathlib import Path

import numpy as np
import pytest

from ksdd_lib import formatting, storage
from ksdd_lib.errors import RunError


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_text_and_json_come_back_as_written(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "a.txt", "Kratzer \u00e4\n")
    storage.write_json(tmp_path / "deep" / "a.json", {"name": "\u00e4", "rate": 0.1, "none": None})
    assert (tmp_path / "a.txt").read_bytes() == "Kratzer \u00e4\n".encode()
    assert storage.read_json(tmp_path / "deep" / "a.json") == {
        "name": "\u00e4",
        "rate": 0.1,
        "none": None,
    }


@pytest.mark.fault(47)
@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "\u00fc" * 127, " a ", "a\rb", "\udcff"])
def test_a_file_of_any_name_is_written(tmp_path: Path, name: str) -> None:
    storage.write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "text"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "kept.txt"
    storage.write_text(path, "old")
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(OSError, match="no room for kept.txt"):
        storage.write_text(path, "new and longer")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_without_a_meaning_is_never_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "a.json", {"loss": value})
    assert not list(tmp_path.iterdir())


def test_a_missing_or_torn_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a.json is missing"):
        storage.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"step": 1')
    with pytest.raises(RunError, match="a.json is not valid JSON"):
        storage.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'{"step": "\xff"}')
    with pytest.raises(RunError, match="a.json is not valid JSON"):
        storage.read_json(tmp_path / "a.json")


class Step(storage.Record):
    step: int
    rate: float = 0.5


def test_a_record_comes_back_and_one_of_another_form_is_refused_by_field(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_record(path, Step(step=3))
    assert storage.read_record(path, Step) == Step(step=3, rate=0.5)
    for content, reason in (
        ('{"step": 3, "of_a_later_version": 1}', None),
        ('{"rate": 0.1}', "a.json is not as it was written: step"),
        ('{"step": "3"}', "a.json is not as it was written: step"),
        ('{"step": 3, "rate": NaN}', "a.json is not as it was written: rate"),
        ('{"step": 3', "a.json is not valid JSON"),
        ("[]", "a.json is not as it was written: the whole"),
    ):
        path.write_text(content)
        if reason is None:
            assert storage.read_record(path, Step) == Step(step=3)
            continue
        with pytest.raises(RunError, match=reason):
            storage.read_record(path, Step)
    path.unlink()
    with pytest.raises(RunError, match="a.json is missing"):
        storage.read_record(path, Step)


def test_a_content_is_known_by_its_size_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    known = storage.FileHash.of(path)
    assert known == storage.FileHash.of(b"abc") and known.bytes == 3
    assert known.fits(path) and known.fits(b"abc")
    assert not known.fits(b"abd") and not known.fits(b"abcd") and not known.fits(tmp_path / "b")


def test_bytes_and_file_have_the_same_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert storage.sha256(b"abc") == storage.sha256(tmp_path / "a") == expected


SAFE_CELLS = [
    "kos01/Part5",
    "a b",
    "a-1",
    "a'b",
    "\u00fc",
    "a=b",
    "1.5",
    " a ",
    "",
    "a@b.c",
    "x/-1",
]
QUOTED_CELLS = ["a,b", "a;b", 'a"b', "a\rb", "a\nb", "a\tb", "a\r\n"]
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@A1",
    "\t=1",
    "\r=1",
    "'=1",
    "  =1",
    "\xa0=1",
    "\uff1d1",
    "=1,2",
    '=","',
]
HIDDEN_FORMULAS = [f"a{end}{text}" for end in (";", "; ", ";;", "\t", "\n") for text in FORMULAS]


@pytest.mark.fault(50)
@pytest.mark.parametrize("text", SAFE_CELLS + QUOTED_CELLS + FORMULAS + HIDDEN_FORMULAS)
def test_no_text_becomes_a_formula_wherever_a_spreadsheet_begins_a_cell(text: str) -> None:
    table = storage.csv_text(["a", "b", "c"], [[text, text, 1.0], ["x", text, 2.0]])
    for delimiter in ",;\t":
        for line in csv.reader(io.StringIO(table, newline=""), delimiter=delimiter):
            for cell in line:
                first = cell.lstrip(" \xa0")[:1]
                assert not first or first not in "=+-@\t\r\uff1d", (delimiter, cell)
    [_, one, two] = csv.reader(io.StringIO(table, newline=""))
    assert list(map(storage.csv_value, [*one, *two])) == [text, text, "1.0", "x", text, "2.0"]
    assert ('"' in table) == (text not in SAFE_CELLS)


@pytest.mark.fault(50)
def test_a_table_of_ordinary_names_and_numbers_is_as_plain_as_can_be() -> None:
    rows = [["kos01/Part5", True, None, 3, 0.1], ["a b-c", np.bool_(False), "", np.int64(7), 1e-9]]
    expected = "name,is,none,count,rate\nkos01/Part5,1,,3,0.1\na b-c,0,,7,1e-09\n"
    assert storage.csv_text(["name", "is", "none", "count", "rate"], rows) == expected


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert storage.cache_folder() == tmp_path / "ksdd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert storage.cache_folder() == Path.home() / ".cache" / "ksdd"


def test_a_folder_is_whole_or_absent_whoever_else_makes_it(tmp_path: Path) -> None:
    """What a living process is filling stays; what a dead one has left goes."""
    living = tmp_path / f".set.{os.getppid()}.tmp"
    for folder in (living, tmp_path / ".set.999999999.tmp", tmp_path / "set"):
        folder.mkdir()
        (folder / "half").touch()
    with (
        pytest.raises(KeyboardInterrupt),
        storage.whole_folder(tmp_path / "set", lambda: False) as made,
    ):
        (made / "new").touch()
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([living.name, made.name, "set"])
        raise KeyboardInterrupt
    assert sorted(p.name for p in tmp_path.iterdir()) == [living.name, "set"]
    assert (tmp_path / "set" / "half").exists()
    with (
        pytest.warns(UserWarning, match="set has changed.* kept as set-changed"),
        storage.whole_folder(tmp_path / "set", lambda: False) as made,
    ):
        (made / "new").touch()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "set-changed").iterdir()] == ["half"]


def test_a_folder_that_another_process_has_finished_meanwhile_is_left_to_its_readers(
    tmp_path: Path,
) -> None:
    target = tmp_path / "set"
    with storage.whole_folder(target, lambda: (target / "whole").exists()) as made:
        (made / "ours").touch()
        target.mkdir()
        (target / "whole").touch()
    assert [path.name for path in target.iterdir()] == ["whole"] and not made.exists()


def test_what_killed_writes_have_left_goes_and_what_living_ones_write_stays(tmp_path: Path) -> None:
    deep = tmp_path / "fold0"
    deep.mkdir()
    dead, nobody = deep / ".history.jsonl.999999999.tmp", tmp_path / ".a.json.tmp"
    living, ours = tmp_path / f".a.json.{os.getppid()}.tmp", deep / f".b.json.{os.getpid()}.tmp"
    for path in (dead, nobody, living, ours, deep / "a.tmp"):
        path.touch()
    theirs = tmp_path / ".notes.txt.999999999.tmp"
    theirs.touch()
    storage.sweep(tmp_path, lambda name: name in ("fold0/history.jsonl", "a.json", "fold0/b.json"))
    assert set(tmp_path.rglob("*.tmp")) == {nobody, living, ours, theirs, deep / "a.tmp"}


def test_a_place_on_another_drive_is_named_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage.relative(tmp_path / "a" / "b", tmp_path / "c") == os.path.join("..", "a", "b")

    def no_way(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", no_way)
    assert storage.relative(tmp_path / "a", tmp_path / "c") == str(tmp_path / "a")


def test_a_name_is_shown_as_one_line_of_text() -> None:
    for name in ("kos01/Part5", " \u00fc\u20ac\U0001f600 ", "Foto\u202f3", "\u0928\u200d"):
        assert formatting.printable(name) == name
    odd = "a\udcfc\r\n\t\x1b\x9f\u2028\ud800b"
    assert formatting.printable(odd) == r"a\xfc\r\n\t\x1b\x9f\u2028\ud800b"


def test_a_long_list_says_how_many_more_there_are() -> None:
    assert formatting.listed(["a", "b", "c"], 3) == "a, b, c"
    assert formatting.listed(["a", "b", "c", "d"], 2, "; ") == "a; b and 2 more"
    assert formatting.listed([]) == ""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(40, "40 s"), (99.6, "100 s"), (250, "4.2 min"), (9000, "2.5 h")]
)
def test_a_duration_has_the_unit_that_is_easy_to_read(seconds: float, expected: str) -> None:
    assert formatting.duration(seconds) == expected


def test_what_the_data_do_not_define_is_said_in_a_word() -> None:
    assert (formatting.number(None), formatting.percent(None), formatting.interval(None)) == (
        "undefined",
        "undefined",
        "none",
    )
    assert formatting.interval((0.5, 1.0)) == "0.500 to 1.000"


def test_an_upper_end_is_never_rounded_down() -> None:
    assert formatting.percent_up_to(0.0301) == "3.1\N{NO-BREAK SPACE}%"
    assert formatting.percent_up_to(0.03) == "3.0\N{NO-BREAK SPACE}%"


def test_settings_and_facts_read_as_words() -> None:
    assert (formatting.plain(True), formatting.plain(["x", "y"]), formatting.plain(3)) == (
        "yes",
        "x, y",
        "3",
    )
