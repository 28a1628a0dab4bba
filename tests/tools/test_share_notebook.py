"""A notebook that is sent holds nothing of the sender's own."""

import json
from pathlib import Path

import nbformat
import pytest
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
]


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
