"""Folders called by what they show, MVTec AD, KolektorSDD2 and tables are read as they lie."""

from pathlib import Path

import numpy as np
import pytest
from layouts.conftest import same, write

from ksdd_lib import __main__ as commands
from ksdd_lib.data.data_report import format_report, inspect_data
from ksdd_lib.data.folds import make_folds
from ksdd_lib.data.sources import DataFolder
from ksdd_lib.data.survey import find_samples, survey
from ksdd_lib.errors import DataError, FoldError
from ksdd_lib.layouts.arrange import as_item_folders
from ksdd_lib.layouts.catalog import LAYOUTS, recognise
from ksdd_lib.layouts.found import Tree
from ksdd_lib.presets import resolve
from ksdd_lib.settings import RULES


def mvtec(root: Path, surfaces, category: str = "") -> None:
    for number, (name, (image, annotation)) in enumerate(surfaces.items()):
        if annotation.any():
            write(root / category / "test" / "scratch" / f"{name}.png", image)
            write(root / category / "ground_truth" / "scratch" / f"{name}_mask.png", annotation)
        else:
            side = "test" if number == 5 else "train"
            write(root / category / side / "good" / f"{name}.png", image)


@pytest.mark.parametrize("category", ["", "metal_nut"])
def test_mvtec_is_read_back_equal(category, surfaces, read_back, tmp_path: Path):
    mvtec(tmp_path / "data", surfaces, category)
    assert recognise(Tree(tmp_path / "data"))[0] == "mvtec"
    same(read_back(tmp_path / "data"), surfaces)


def test_kolektorsdd2_keeps_its_own_split(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    for number, (name, (image, annotation)) in enumerate(surfaces.items()):
        side = "train" if number % 2 else "test"
        write(root / side / f"{name}.png", image)
        write(root / side / f"{name}_GT.png", annotation)
    same(read_back(root), surfaces)
    folder = as_item_folders(DataFolder(root, "data"), tmp_path, resolve({"preset": "cpu"}))
    assert folder.layout == "kolektorsdd2"
    assert [note.partition(".")[0] for note in folder.notes] == [
        "Each picture is taken for a part of its own"
    ]
    samples = find_samples(folder.root)
    [fold] = make_folds("published", samples)
    assert {one.name.rpartition("/")[2] for one in fold.test} == set(list(surfaces)[::2])
    assert len(fold.train) + len(fold.test) == 6 and fold.protocol == "published"
    settings = resolve({"preset": "cpu", "folds": "published"})
    report = inspect_data(survey(folder.root), folder, settings)
    assert report.folds["published"].folds[0].train_images == len(fold.train)
    assert f"published folds:\n  fold 0: train {len(fold.train)} (" in format_report(report)


def test_data_without_a_split_has_no_published_one(tiny_root: Path):
    with pytest.raises(FoldError, match="brings no split"):
        make_folds("published", find_samples(tiny_root))


def test_the_published_split_is_trained_alone():
    assert resolve({"preset": "demo", "folds": "published"}).fold_numbers == (0,)


@pytest.mark.fault(89)
@pytest.mark.parametrize("masks", ["masks", "Labels", "ground_truth", "gt", "annotations"])
@pytest.mark.parametrize("which", ["all", "good"])
def test_a_mask_whose_name_is_not_understood_is_no_good_picture(
    masks, which, surfaces, tmp_path: Path
):
    for name, (image, annotation) in surfaces.items():
        kind = "crack" if annotation.any() else "good"
        write(tmp_path / "images" / kind / f"{name}.png", image)
        odd = "_m" if which == "all" or kind == "good" else ""
        write(tmp_path / masks / kind / f"{name}{odd}.png", annotation)
    found = recognise(Tree(tmp_path))[1]
    told = {one.name for one in found.pictures if one.mask or one.is_defective}
    assert told and all(name.startswith("images/") for name in told)


@pytest.mark.fault(89)
@pytest.mark.parametrize("folder", ["images", "test", "all", "Photos", "data/new"])
def test_a_folder_of_no_class_beside_good_ones_names_no_defect(folder, surfaces, tmp_path: Path):
    for name, (image, annotation) in surfaces.items():
        write(tmp_path / ("good" if not annotation.any() else folder) / f"{name}.png", image)
    with pytest.raises(DataError, match="in no known layout"):
        recognise(Tree(tmp_path))
    write(tmp_path / folder / "part0_0_mask.png", surfaces["part0_0"][1])
    found = recognise(Tree(tmp_path))[1]
    assert found.labelled == 4 and not any(p.classes or p.is_defective for p in found.pictures)


@pytest.mark.parametrize("pattern", ["{kind}/{name}.png", "set/{kind}/Imgs/{name}.png"])
@pytest.mark.parametrize(("good", "bad"), [("good", "scratch"), ("OK", "NG"), ("ok", "Loch")])
def test_a_defect_without_a_mask_is_told_and_never_good(
    pattern, good, bad, surfaces, read_back, tmp_path: Path
):
    root = tmp_path / "data"
    for name, (image, annotation) in surfaces.items():
        write(root / pattern.format(kind=bad if annotation.any() else good, name=name), image)
    folder = as_item_folders(DataFolder(root, "data"), tmp_path, resolve({"preset": "cpu"}))
    assert folder.layout == "class_folders"
    assert f"its folder {bad!r} names a defect, and no mask outlines it" in folder.notes[0]
    with pytest.raises(DataError, match="3 of the images cannot be used"):
        read_back(root)


def table(
    root: Path, surfaces, head: str, row: str, file="labels.csv", encoding="utf-8", end="\n"
) -> None:
    lines = [head]
    for name, (image, annotation) in surfaces.items():
        write(root / "photos" / f"{name}.png", image)
        mask = f"{name}.png" if annotation.any() else ""
        if mask:
            write(root / "drawn" / mask, annotation)
        lines.append(
            row.format(
                name=name,
                item=name[:5],
                kind="crack" if mask else "good",
                mask=f"drawn/{mask}" if mask else "",
            )
        )
    (root / file).write_text("\n".join(lines) + "\n", encoding, newline=end)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("image,item,class,mask", "photos/{name}.png,{item},{kind},{mask}"),
        ("class;mask;image;note", "{kind};{mask};{name};x"),
        ("mask,image,item,class", '"{mask}","photos\\{name}.png",,{kind}'),
        ("Image;CLASS;Mask;;", "photos/{name}.png;{kind};{mask};;"),
        ('"image", "item", "class", "mask"', 'photos/{name}.png, {item}, {kind}, "{mask}"'),
        ("image\titem\tclass\tmask", "photos/{name}.png\t{item}\t{kind}\t{mask}"),
    ],
)
def test_a_table_is_read_back_equal(head, row, surfaces, read_back, tmp_path: Path):
    table(tmp_path / "data", surfaces, head, row)
    found = read_back(tmp_path / "data")
    same(found, surfaces)
    assert len({name.partition("/")[0] for name in found}) == (3 if "{item}" in row else 6)


@pytest.mark.parametrize("file", ["labels.csv", "Labels.CSV"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_is_read_as_any_program_saves_it(
    file, encoding, end, surfaces, read_back, tmp_path: Path
):
    row = '"photos/{name}.png";Größe, {item};{kind};{mask}'
    table(tmp_path / "data", surfaces, "image;item;class;mask", row, file, encoding, end)
    same(read_back(tmp_path / "data"), surfaces)
    text = (tmp_path / "data" / file).read_text(encoding)
    (tmp_path / "data" / file).write_text(text, "cp1252")
    with pytest.raises(DataError, match=f"{file} is not UTF-8: save it as that"):
        read_back(tmp_path / "data")


@pytest.mark.fault(92)
@pytest.mark.parametrize("row", ["photos/{name}.png,x,a scratch, long,{mask}", "{name},,,,,x"])
def test_a_row_with_too_many_cells_is_refused(row, surfaces, read_back, tmp_path: Path):
    table(tmp_path / "data", surfaces, "image,item,class,mask", row)
    with pytest.raises(DataError, match="Row 2 of labels.csv has more cells than columns"):
        read_back(tmp_path / "data")


def test_what_a_table_leaves_open_is_told(surfaces, tmp_path: Path):
    root = tmp_path / "data"
    table(root, surfaces, "image,mask", "photos/{name}.png,{mask}")
    text = (root / "labels.csv").read_text().replace("drawn/part0_0", "gone")
    (root / "labels.csv").write_text(f"{text}nowhere,\n")
    folder = as_item_folders(DataFolder(root, "data"), tmp_path, resolve({"preset": "cpu"}))
    told = " ".join(folder.notes)
    for words in (
        "whose name several have: nowhere",
        "its mask 'gone.png' is not there",
        "no mask",
    ):
        assert words in told
    (root / "labels.csv").write_text("image\nphotos/part0_0.png\nphotos/part0_0.png\n")
    with pytest.raises(DataError, match="names photos/part0_0.png twice"):
        recognise(Tree(root))


def test_every_layout_can_be_chosen():
    assert RULES["layout"].choices == ("auto", *LAYOUTS)


def test_what_fits_nothing_is_told_with_what_is_there(surfaces, tmp_path: Path):
    for name, (image, _) in surfaces.items():
        write(tmp_path / "data" / f"{name}.png", image)
    (tmp_path / "data" / "notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"holds 6 pictures and 1 other files \(.docx\)"):
        recognise(Tree(tmp_path / "data"))


def test_the_command_writes_item_folders_once(surfaces, tmp_path: Path, capsys, read_back):
    mvtec(tmp_path / "data", surfaces)
    (tmp_path / "data" / "license.txt").write_text("x")
    out = tmp_path / "written"
    assert commands.main(["convert", str(tmp_path / "data"), str(out)]) == 0
    said = capsys.readouterr().out
    assert "written from MVTec AD" in said and "1 files not understood: license.txt" in said
    same({one.name: pair for one, pair in _pairs(out)}, surfaces)
    assert commands.main(["convert", str(tmp_path / "data"), str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def _pairs(root: Path):
    from ksdd_lib.data.dataset import read_image, read_mask

    return [(one, (read_image(one), read_mask(one))) for one in find_samples(root)]


def test_data_that_changed_is_read_anew(surfaces, read_back, tmp_path: Path):
    root = tmp_path / "data"
    mvtec(root, surfaces)
    before = read_back(root)
    write(root / "ground_truth" / "scratch" / "part0_0_mask.png", np.ones((160, 128), bool))
    after = read_back(root)
    name = next(name for name in before if name.endswith("part0_0"))
    assert after[name][1].all() and not before[name][1].all()


@pytest.mark.fault(92)
@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (["folds=published"], "Fold 0 has no defective image in training"),
        (["folds=official"], "official"),
        (["folds=published", "labels=none"], ""),
        ([], ""),
    ],
)
def test_inspect_ends_with_a_run_only_where_its_folds_can_be_trained(
    chosen, told, surfaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("KSDD_HOME", str(tmp_path))
    mvtec(tmp_path / "data", surfaces)
    given = [word for one in [*chosen, "twins=similar"] for word in ("--set", one)]
    status = commands.main(["inspect", "--data", str(tmp_path / "data"), *given])
    printed = capsys.readouterr()
    assert (status, "next: run" in printed.out) == ((2, False) if told else (0, True))
    assert told in printed.err
    assert not told or chosen != ["folds=published"] or f"published folds:\n  {told}" in printed.out
