"""The series in a real browser: *Run all*, controls that are moved, a page that is reloaded.

The tests follow each other on one JupyterLab, as one user goes from notebook to notebook.
"""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import browser
import cv2
import numpy as np
import pytest
from run_notebooks import NOTEBOOKS
from share_notebook import shareable

from ksdd_lib import storage
from ksdd_lib.data import synthetic
from ksdd_lib.evaluation import predictions, threshold_costs
from ksdd_lib.evaluation.threshold_costs import Costs
from ksdd_lib.training.loop import read_history

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not browser.chromium() and not os.environ.get("CI"),
        reason="there is no Chromium: sudo apt-get install chromium",
    ),
]

SETTINGS = {
    "KSDD_PRESET": "demo",
    "KSDD_GENERATED_ITEMS": "6",
    "KSDD_FOLD": "0",
    "KSDD_SEGMENTATION_STEPS": "60",
    "KSDD_DECISION_STEPS": "20",
    "KSDD_CHECKPOINT_STEPS": "10",
}
"""The demo, short enough to be looked at: two items are tested, four train."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with browser.lab(folder, SETTINGS | {"XDG_CACHE_HOME": str(folder / "cache")}) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=browser.chromium(), args=browser.FLAGS)


@pytest.fixture
def page(chromium) -> Iterator:
    opened = chromium.new_page(viewport={"width": 1300, "height": 1000})
    yield opened
    opened.close()


@pytest.fixture
def run(folder: Path) -> Path:
    """The run folder that the notebooks work in."""
    latest = folder / "home" / "runs" / "latest.txt"
    return latest.parent / latest.read_text("utf-8").strip()


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


MATHJAX = "Cannot read properties of undefined (reading 'Queue')"
"""What ipywidgets 7 complains of in JupyterLab, whose MathJax is version 3; Colab has version 2."""


def whole(book: browser.Book, most: int = 1_000_000) -> None:
    """Nothing went wrong in the notebook or in the browser, and what is saved is small."""
    assert not book.errors() and not {*book.complaints} - {MATHJAX}
    book.save()
    assert book.path.stat().st_size < most
    sent, _ = shareable(json.loads(book.path.read_text("utf-8")))
    shown = [output for cell in sent["cells"] for output in cell.get("outputs", [])]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert "image/png" in kinds and not any("widget" in kind for kind in kinds)


def judge_one_s_own(book: browser.Book, folder: Path) -> None:
    """Run notebook 0, and give it a picture."""
    page = book.page
    book.run_all()
    book.wait(120)
    text = book.text()
    assert "\ncrack: crack found" in f"\n{text}" and "fainter crack: CRACK MISSED" in text
    setup = page.locator(".jp-CodeCell", has_text="importlib.util")
    assert not setup.locator(".jp-Cell-inputArea").is_visible(), "the set-up is folded away"
    mine = folder / "mine.png"
    cv2.imwrite(str(mine), synthetic.render((704, 256), 3, 1, 0, True)[0])
    with page.expect_file_chooser() as chooser:
        page.click("button.jupyter-widgets.widget-upload")
    chooser.value.set_files(str(mine))
    book.wait_for_text("mine.png: defective, score")
    whole(book)


def test_0_a_verdict_comes_at_once_and_a_picture_of_one_s_own_is_judged(page, address, folder):
    judge_one_s_own(browser.Book(page, address, folder, "00_see_it_work"), folder)


def test_1_the_form_says_what_is_wrong_and_what_differs(page, address, folder):
    book = browser.Book(page, address, folder, NOTEBOOKS[0])
    book.run_all()
    book.wait()
    assert "no Drive" in book.text() and "run folder: demo-clean-seed0" in book.text()
    book.type("Image size", "100x100")
    book.wait_for_text("both sides must be divisible by 16, at least 128 and at most 4096")
    book.type("Image size", "128x128")
    book.wait_for_text("Image size 128x128 instead of 192x128")
    page.click("text=/^\\d+ more settings$/")
    assert book.control("Copy paste").is_visible()
    page.get_by_role("button", name="How long will it take?").click()
    book.wait_for_text("for each image that is scored")
    book.type("Seed", "1")
    book.run_all()
    book.wait_for_text("run folder: demo-128x128-clean-seed1")
    book.wait()
    settings = storage.read_json(
        folder / "home" / "runs" / "demo-128x128-clean-seed1" / "settings.json"
    )
    assert settings["image_size"] == "128x128" and settings["seed"] == 1
    whole(book)


def test_2_a_training_survives_a_stop_and_a_reload(page, address, folder, run):
    book = browser.Book(page, address, folder, NOTEBOOKS[1])
    history = run / "fold0" / "segmentation.jsonl"
    book.run_all()
    book.until(lambda: len(read_history(history)) >= 5)
    page.click('.jp-NotebookPanel-toolbar [data-command="notebook:interrupt-kernel"]')
    book.wait_for_text("run again to go on")
    stopped = len(read_history(history))
    assert 5 <= stopped < 60
    book.run_all()
    book.until(lambda: len(read_history(history)) > stopped + 2)
    book.save()
    book.open()  # the page is loaded again; the kernel goes on
    saved = page.locator('.jp-OutputArea [style*="height: 0.9em"] > div')
    share = "bar => bar.offsetWidth / bar.parentNode.clientWidth"
    assert 0.05 < saved.evaluate(share) < 0.95, "the bar as it was saved"
    book.run_all()
    book.wait()
    assert saved.evaluate(share) > 0.98 and "fold 0: done in" in book.text()
    assert [row["step"] for row in read_history(history)] == list(range(1, 61))
    assert "fold 0: was already finished" in book.text()
    assert "all 60 steps done" in book.text()
    assert book.control("Annotation").locator("select").is_disabled()
    whole(book)


def test_3_the_decision_network_is_trained_on_a_first_stage_that_stays(page, address, folder, run):
    book = browser.Book(page, address, folder, NOTEBOOKS[2])
    book.run_all()
    book.wait()
    assert "fold 0: trained" in book.text() and "the first stage is still" in book.text()
    assert len(read_history(run / "fold0" / "decision.jsonl")) == 20
    whole(book)


def test_4_the_line_is_drawn_with_the_user_s_own_money(page, address, folder, run):
    book = browser.Book(page, address, folder, NOTEBOOKS[3])
    book.run_all()
    book.wait()
    rows = predictions.read_predictions(run / "predictions.csv")
    assert len(rows) == 16 and book.text().count("oracle") == 1 and "just so" in book.text()
    for loaded in range(2):
        frame = page.frame_locator('iframe[title="Operating point"]')
        line = frame.locator("#line")
        line.press("Home")
        assert frame.locator("#misses").inner_text() == "0"
        assert frame.locator("#alarms").inner_text() == "12"
        assert frame.get_by_text("now a false alarm").count()
        for _ in range(3):  # the keys are the page's, not the notebook's
            line.press("ArrowRight")
        shift = float(line.get_attribute("data-shift"))
        assert shift == threshold_costs.shifts(rows)[3]
        point = threshold_costs.at(rows, shift)
        told = [frame.locator(f"#{name}").inner_text() for name in ("misses", "alarms")]
        assert told == [str(point.misses), str(point.false_alarms)]
        frame.get_by_label("A missed defect costs").fill("500")
        cost = float(frame.locator("#cost").get_attribute("data-value"))
        assert cost == point.cost(Costs(500, 1, 0.01))
        if not loaded:
            whole(book)
            book.open()  # the page needs no kernel
    stranger = json.loads(book.path.read_text("utf-8"))
    stranger["metadata"]["from"] = "elsewhere"  # so it is not trusted: no scripts, no frames
    other = book.path.with_name("stranger.ipynb")
    other.write_text(json.dumps(stranger), "utf-8")
    book = browser.Book(page, address, folder, other.stem)
    page.get_by_text("least cost", exact=True).wait_for()
    assert page.locator('img[alt*="Scores of all test surfaces"]').is_visible()
    assert not page.locator('iframe[title="Operating point"]').count()


def test_5_parts_are_gone_through_and_pictures_judged(page, address, folder, run):
    pictures = folder / "parts"
    pictures.mkdir()
    for item in (90, 91):
        pixels = synthetic.render((192, 128), 0, item, 0, True)[0]
        cv2.imwrite(str(pictures / f"part{item}.png"), pixels)
    book = browser.Book(page, address, folder, NOTEBOOKS[4])
    book.run_all()
    book.wait()
    book.choose("order", "most suspicious first")
    book.slide("part", "ArrowRight", 2)
    rows = sorted(table(run / "predictions.csv"), key=lambda row: -float(row["score"]))
    book.wait_for_text(f": {rows[2]['image']}, score {float(rows[2]['score']):.2f}")
    page.wait_for_selector('img[alt*="output at 50%"]')
    book.slide("output", "End")
    page.wait_for_selector('img[alt*="output at 100%"]')
    with page.expect_file_chooser() as chooser:
        page.click("button.jupyter-widgets.widget-upload")
    chooser.value.set_files(str(pictures / "part90.png"))
    book.wait_for_text("part90.png: ")
    box = page.locator('input[placeholder^="a folder of pictures"]')
    box.fill(str(pictures))
    box.press("Tab")
    page.get_by_role("button", name="Judge this folder").click()
    page.wait_for_selector('img[alt*="part91.png"]')  # the contact sheet
    assert not page.get_by_text("judged: 1 of 2").count(), "it is at its end"
    [verdicts] = (folder / "home" / "judged").glob("parts-*/verdicts.csv")
    assert {row["image"] for row in table(verdicts)} == {"part90.png", "part91.png"}
    whole(book)


def test_6_the_report_needs_nothing_beside_it_and_prints(page, folder, run):
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((run / "report.html").as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    assert not complaints and page.locator("h1").is_visible()
    widths = page.evaluate("[document.body.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    page.set_viewport_size({"width": 400, "height": 800})  # a telephone
    assert page.evaluate("document.body.scrollWidth") <= 400
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and 3 <= pdf.count(b"/Type /Page\n") <= 20
    assert (run / "report.html").stat().st_size < 5_000_000


def test_7_a_label_is_drawn_with_the_mouse(page, address, folder):
    pictures = folder / "unlabelled"
    pictures.mkdir()
    for number in (1, 2):
        pixels, _ = synthetic.render((256, 192), 0, number, 0, True)
        cv2.imwrite(str(pictures / f"p{number}.png"), pixels)
    book = browser.Book(page, address, folder, NOTEBOOKS[0])
    book.run_all()
    book.wait()
    book.type("Folder to label", str(pictures))
    page.get_by_role("button", name="Draw labels").click()
    frame = page.frame_locator('iframe[title="Draw labels"]')
    frame.locator("#name", has_text="p1.png").wait_for()
    frame.get_by_text("Click around the defect").wait_for()
    canvas = frame.locator("#canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scale = min(box["width"] / 192, box["height"] / 256)
    corners = [(-60, -50), (50, -40), (0, 70), (-60, -50)]  # the first once more: it is closed
    for x, y in corners:
        page.mouse.click(middle[0] + x * scale, middle[1] + y * scale)
    canvas.press("Control+z")
    frame.locator("#save").click()
    frame.get_by_text("press No defect").wait_for()
    for x, y in corners:
        page.mouse.click(middle[0] + x * scale, middle[1] + y * scale)
    frame.get_by_role("button", name="Brush").click()
    page.mouse.move(middle[0] - 50 * scale, middle[1] + 90 * scale)
    page.mouse.down()
    page.mouse.move(middle[0] + 50 * scale, middle[1] + 90 * scale, steps=5)
    page.mouse.up()
    frame.locator("#save").click()
    frame.get_by_text("Saved: p1_label.png (defective)").wait_for()
    mask = cv2.imread(str(pictures / "p1_label.png"), cv2.IMREAD_UNCHANGED)
    expected = np.zeros((256, 192), np.uint8)
    cv2.fillPoly(expected, [np.array(corners) + (96, 128)], 255)
    assert mask.shape == expected.shape
    assert np.mean(mask[:200] != expected[:200]) < 0.01 and mask[218, 50:140].all()
    outlines = storage.read_json(pictures / "p1.json")["shapes"]
    assert [len(one["points"]) for one in outlines][0] == 3 and len(outlines) == 2
    frame.get_by_role("button", name="Next picture").last.click()
    frame.locator("#name", has_text="p2.png").wait_for()
    frame.get_by_role("button", name="No defect").click()
    frame.get_by_text("Saved: p2_label.png (good)").wait_for()
    assert not cv2.imread(str(pictures / "p2_label.png"), cv2.IMREAD_UNCHANGED).any()
    widen = "(frame, width) => frame.style.width = width"
    page.locator('iframe[title="Draw labels"]').evaluate(widen, "390px")  # a telephone
    assert frame.locator("body").evaluate("body => body.scrollWidth <= innerWidth")
    fingers = page.context.new_cdp_session(page)
    page.wait_for_timeout(300)
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, apart in (("touchStart", 20), ("touchMove", 60), ("touchEnd", None)):
        points = [{"x": middle[0] + x * (apart or 0), "y": middle[1], "id": x} for x in (0, 1)]
        told = {"type": kind, "touchPoints": points if apart else []}
        fingers.send("Input.dispatchTouchEvent", told)
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before, "two fingers zoom"
    assert frame.locator("#undo").is_disabled(), "and draw nothing"
    whole(book)


TINY = SETTINGS | {"KSDD_IMAGE_SIZE": "128x128", "KSDD_FOLD": "all"}
TINY |= {"KSDD_SEGMENTATION_STEPS": "4", "KSDD_DECISION_STEPS": "4"}


@pytest.mark.parametrize("is_colab_s", [False, True], ids=["ipywidgets", "ipywidgets 7.7.1"])
def test_8_the_series_in_one_and_its_controls(page, tmp_path, is_colab_s: bool):
    """Also with the widgets that Colab has; there notebook 0 too, which ran with ours above."""
    widgets = browser.colab_widgets(tmp_path / "widgets") if is_colab_s else {}
    with browser.lab(tmp_path, TINY | widgets) as address:
        if is_colab_s:
            judge_one_s_own(browser.Book(page, address, tmp_path, "00_see_it_work"), tmp_path)
        book = browser.Book(page, address, tmp_path, "demo_in_one")
        book.run_all()
        book.wait(400)
        book.type("Image size", "100x100")
        book.wait_for_text("both sides must be divisible by 16, at least 128 and at most 4096")
        page.click("text=/^\\d+ more settings$/")
        assert book.control("Copy paste").is_visible()
        for stage in ("segmentation", "decision"):
            cell = page.locator(".jp-CodeCell", has_text=f'ksdd.train(run, data, "{stage}"')
            assert cell.locator('img[src^="data:image/png"], img[alt]').count() == 1, (
                "for all folds"
            )
            assert f"{stage}, fold 2: all 4 steps done" in book.text()
        frame = page.frame_locator('iframe[title="Operating point"]')
        frame.locator("#line").press("Home")
        assert frame.locator("#misses").inner_text() == "0"
        book.choose("order", "most suspicious first")
        book.slide("part", "ArrowRight", 2)
        [run] = (tmp_path / "home" / "runs").glob("demo-*/predictions.csv")
        rows = sorted(table(run), key=lambda row: -float(row["score"]))
        book.wait_for_text(f": {rows[2]['image']}, score {float(rows[2]['score']):.2f}")
        whole(book, 5_000_000)
