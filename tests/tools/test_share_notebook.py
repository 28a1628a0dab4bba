"""A notebook that is sent holds nothing of the sender's own."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import share_notebook
from share_notebook import WIDGET, shareable

from ksdd_lib import __main__ as commands

PICTURE = {"image/png": "iVBORw0KGgo=", "text/plain": "figure"}


def notebook(*outputs: dict, source: str = "1") -> dict:
    cell = nbformat.v4.new_code_cell(source, outputs=[nbformat.from_dict(o) for o in outputs])
    made = nbformat.v4.new_notebook(cells=[cell])
    made.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return json.loads(nbformat.writes(made))


def printed(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def shown(data: dict) -> dict:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def test_results_stay_and_widgets_go():
    panel = shown({WIDGET: {"model_id": "1"}, "text/plain": "VBox(children=...)"})
    table = shown({"text/html": "<table><tr><td>AP</td></tr></table>", "text/plain": "AP"})
    copy, removed = shareable(notebook(printed("AP 0.99\n"), panel, shown(PICTURE), table))
    assert "widgets" not in copy["metadata"]
    kept = copy["cells"][0]["outputs"]
    assert [output["output_type"] for output in kept] == ["stream"] + ["display_data"] * 2
    assert "".join(kept[0]["text"]) == "AP 0.99\n" and "image/png" in kept[1]["data"]
    assert "<td>AP</td>" in "".join(kept[2]["data"]["text/html"])
    assert removed == {"widget state": 1, "widget": 1}
    nbformat.validate(nbformat.from_dict(copy))


SECRETS = [
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "api_key = hunter2",
    "MY_TOKEN: s3cr3t",
    "someone.else+x@example.org",
    "/home/someone/parts/1.jpg",
    "/Users/someone/parts",
    r"C:\Users\someone\parts",
    "/root/work",
    "/content/drive/MyDrive/customers/acme/parts",
    "/content/drive/MyDrive/Thesis Anna someone/parts",
    "/content/drive/MyDrive/ksdd-someone/parts",
    "/content/drive/.shortcut-targets-by-id/1a2b/someone/parts",
    "drive/MyDrive/someone/parts",
    "/content/gdrive/My Drive/someone/parts",
    r"G:\My Drive\someone\parts",
    "https://drive.google.com/file/d/1someone2b/view?usp=sharing&resourcekey=0-someone",
    r"C:\Users\Anna someone\parts",
    r"c:\\users\\someone\\parts",
    "file:///C:/Users/Anna%20someone/parts",
    "/Users/Anna someone/parts",
    "/mnt/c/Users/someone/parts",
    "/media/someone/disk/parts",
    "/run/media/someone/disk",
    "/Volumes/someone",
    r"\\someone\acme\parts",
    "Authorization: Bearer someone.abc-DEF_123",
    "https://someone:hunter2@example.org/x",
    "https://example.org/x?a=1&access_token=s3cr3t&b=2",
    "os.environ['WANDB_API_KEY'] = 's3cr3t'",
    "login --password hunter2",
    '{"username": "x", "key": "s3cr3t0123456789s3cr3t0123456789"}',
    "aws_secret_access_key=s3cr3t/abc+def",
    "AccountKey=s3cr3t==;EndpointSuffix=core.windows.net",
    "xoxb-123456789012-s3cr3t",
    "glpat-s3cr3tabcdefghijk01",
    "sk_live_s3cr3tabcdefghijk01",
    "GOCSPX-s3cr3tabcdefghijk01",
    "SG.s3cr3tabcdefghijk01AA.s3cr3tabcdefghijk01AAs3cr3tabcdefghijk01AA",
    "unheard_s3cr3tABCDEFGHIJKLmnopqrstuv0123456789",
    "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cr3t\n-----END OPENSSH PRIVATE KEY-----",
]


@pytest.mark.fault(60)
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["printed", "html", "source", "traceback"])
def test_what_is_personal_goes_wherever_it_stands(secret: str, place: str):
    error = {"output_type": "error", "ename": "E", "evalue": secret, "traceback": [f"E {secret}"]}
    made = {
        "printed": lambda: notebook(printed(f"it is {secret} here")),
        "html": lambda: notebook(shown({"text/html": f"<b>{secret}</b>"})),
        "source": lambda: notebook(source=f"x = r'''{secret}'''"),
        "traceback": lambda: notebook(error),
    }[place]()
    copy, removed = shareable(made)
    text = json.dumps(copy)
    for word in ("ghp_a", "hf_a", "AIza", "hunter2", "s3cr3t", "someone", "/root", "acme"):
        assert word not in text
    assert sum(removed.values()) >= 2, "the widget state, and this"


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    "kind", ["application/json", "application/javascript", "application/vnd.plotly.v1+json", "x/y"]
)
def test_an_output_that_is_neither_text_nor_picture_goes(kind: str):
    only = shown({kind: "someone"})
    beside = shown({kind: "someone", "text/plain": "AP 0.5"})
    odd = {"output_type": "update", "data": {"text/plain": "someone"}}
    copy, removed = shareable(notebook(only, beside) | {"someone": 1})
    copy["cells"][0]["outputs"].append(odd)
    copy, more = shareable(copy)
    assert "someone" not in json.dumps(copy)
    assert copy["cells"][0]["outputs"] == [shown({"text/plain": ["AP 0.5"]})]
    assert removed["output that is neither text nor picture"] == 2
    assert more["output that is neither text nor picture"] == 1


@pytest.mark.fault(60)
def test_of_what_is_attached_to_a_text_pictures_stay():
    made = notebook()
    made["cells"][0] |= {"attachments": {"a.png": {"image/png": "iVBORw0KGgo=", "x/y": "someone"}}}
    copy, _ = shareable(made)
    assert copy["cells"][0]["attachments"] == {"a.png": {"image/png": "iVBORw0KGgo="}}


LONG = """
from share_notebook import shareable
for unit in r"a|a.|token|token |key=|-|eyJ-|/home|C:\\Users\\a |Bearer |aA1|://a:|--pwd".split("|"):
    text = unit * (1_000_000 // len(unit))
    shareable({"metadata": {}, "cells": [{"cell_type": "raw", "source": text}]})
"""


@pytest.mark.slow
@pytest.mark.fault(60)
def test_a_line_of_a_million_letters_ends():
    """Where each letter took as many steps as there are letters, this would take hours."""
    tools = Path(share_notebook.__file__).parent
    subprocess.run([sys.executable, "-c", LONG], cwd=tools, check=True, timeout=300)


def test_a_picture_inside_html_is_not_taken_for_a_secret():
    picture = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" * 20
    page = f'<img src="{picture}"> /home/someone/x'
    copy, _ = shareable(notebook(shown({"text/html": page})))
    assert (
        "".join(copy["cells"][0]["outputs"][0]["data"]["text/html"]) == f'<img src="{picture}"> ~/x'
    )


def as_colab_saves(made: dict) -> dict:
    """With what Colab writes beside the cells of an executed notebook, unseen by its reader."""
    made["metadata"] |= {
        "accelerator": "GPU",
        "colab": {
            "gpuType": "T4",
            "toc_visible": True,
            "authorship_tag": "ABX9TyM",
            "mount_file_id": "1rN7kD",
            "provenance": [{"file_id": "1rN7kD", "timestamp": 1}],
        },
    }
    made["cells"][0]["metadata"] |= {
        "tags": ["setup"],
        "outputId": "2f6f",
        "colab": {"base_uri": "https://localhost:8080/"},
        "executionInfo": {
            "status": "ok",
            "timestamp": 1700000000000,
            "user_tz": -60,
            "user": {"displayName": "Jane Student", "userId": "0123456789", "photoUrl": "x"},
        },
    }
    for output in made["cells"][0]["outputs"]:
        output["metadata"] = {"image/png": {"width": 640}, "executionInfo": {"user": "Jane"}}
    return made


def test_who_ran_it_in_colab_is_not_told():
    copy, removed = shareable(as_colab_saves(notebook(shown(PICTURE))))
    text = json.dumps(copy)
    for word in ("Jane", "0123456789", "user_tz", "1rN7kD", "ABX9", "2f6f", "localhost"):
        assert word not in text
    assert copy["metadata"]["accelerator"] == "GPU"
    assert copy["metadata"]["colab"] == {"gpuType": "T4", "toc_visible": True}
    assert copy["cells"][0]["metadata"] == {"tags": ["setup"]}
    assert copy["cells"][0]["outputs"][0]["metadata"] == {"image/png": {"width": 640}}
    assert removed["note on who ran it, or where"] == 3, "of the notebook, of a cell, of an output"
    nbformat.validate(nbformat.from_dict(copy))


def test_what_is_not_personal_stays():
    text = "score 3.2, kos01/Part5, https://github.com/o/r, step 5 of 10, tokens seen\n"
    text += "sorted(rows, key=lambda row: row.score); a basic understanding; E:/parts; a user\n"
    text += "sha256 07ee01a0337be98d1fbad22e0ed57a54be22d8e5d3085150ddd9c7577be37ea2\n"
    text += "https://data.vicos.si/datasets/KSDD/KolektorSDD.zip; KolektorSDD-07ee01a0337b/kos01\n"
    text += "ksdd.surface_pictures.gallery(PictureOfPart5AndOthers)\n"
    ours = "results are in /content/drive/MyDrive/ksdd/runs/first\n"
    ours += "!cd /content/drive/MyDrive/ksdd-main && python\n"
    copy, removed = shareable(notebook(printed(text + ours)))
    assert "".join(copy["cells"][0]["outputs"][0]["text"]) == text + ours
    assert removed == {"widget state": 1}


def test_the_command_writes_a_copy_and_never_over_a_file(tmp_path: Path, capsys):
    book, copy = tmp_path / "05.ipynb", tmp_path / "05-shared.ipynb"
    book.write_text(json.dumps(notebook(printed("/home/someone/x"))))
    before = book.read_bytes()
    assert commands.main(["share", str(book)]) == 0
    assert "1 x widget state, 1 x home folder" in capsys.readouterr().out
    assert "someone" not in copy.read_text() and book.read_bytes() == before
    book.write_text(json.dumps(notebook(printed("AP 0.5"))))
    assert commands.main(["share", str(book)]) == 0, "a copy of its own may be replaced"
    assert "AP 0.5" in copy.read_text() and "1 of 1 code cells" in capsys.readouterr().out
    book.write_text(json.dumps(notebook()))
    assert commands.main(["share", str(book)]) == 2
    assert "has no outputs, so nothing was written" in capsys.readouterr().err
    assert "AP 0.5" in copy.read_text()
    copy.write_bytes(before)
    assert commands.main(["share", str(book)]) == 2
    assert "is there already" in capsys.readouterr().err and copy.read_bytes() == before
    (tmp_path / "no.ipynb").write_text("[]")
    assert commands.main(["share", str(tmp_path / "no.ipynb")]) == 2
    assert "is no notebook" in capsys.readouterr().err
