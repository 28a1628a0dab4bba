"""The errors of each fold, and the page on which the user draws the line."""

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import browser
import cv2
import numpy as np
import pytest
from share_notebook import shareable
from small_results import ROWS, judged, make_rows, row, train_items

from ksdd_lib.evaluation import threshold_costs
from ksdd_lib.evaluation.metrics import Oracle
from ksdd_lib.evaluation.predictions import Prediction, sureness
from ksdd_lib.evaluation.summary import AllClassScores, ClassScores, conclude
from ksdd_lib.evaluation.threshold_costs import Costs
from ksdd_lib.notebook import operating_point
from ksdd_lib.reporting.surface_pictures import JudgedSurface

COSTS = Costs(miss=100.0, false_alarm=1.0, defective_share=0.01)


def many(count: int, **chosen: float) -> list[Prediction]:
    rows = make_rows(count, **chosen)
    return judged(rows, train_items(rows))


def surface(one: Prediction, shape: tuple[int, int] = (96, 64)) -> JudgedSurface:
    mask = np.zeros(shape, bool)
    mask[40:44, 10:30] = one.is_defective
    image = np.random.default_rng(0).integers(90, 160, shape).astype(np.uint8)
    return JudgedSurface(one, image, mask, np.full((12, 8), 0.2))


def test_each_fold_stands_in_a_table_misses_first_and_below_what_else_could_judge(screen):
    _, summary = conclude(ROWS, "clean", 0, {0: {"b"}, 1: {"a"}})
    operating_point.show_folds(summary, {"the mask": 0.5, "nothing": None})
    table = screen.bundles[0]["text/html"]
    assert table.count("<tr>") == 7 and table.index("misses") < table.index("false alarms")
    cells = re.sub("<[^>]*>", "|", table)
    assert "|fold 0||0 of 2||1 of 1||0.8333||0.5000||-1.70||" in cells
    assert "|pooled||1 of 3||1 of 3||0.8056 (95 %: " in cells
    assert "|the mask||||||0.5000||" in cells and "|nothing||||||undefined||" in cells


def test_no_threshold_of_a_fold_is_shown_where_each_class_has_its_own(screen):
    _, summary = conclude(ROWS, "clean", 0, {0: {"b"}, 1: {"a"}})
    told = AllClassScores(threshold_rule="", classes=[], confusion={})
    operating_point.show_folds(summary.model_copy(update={"class_scores": told}), {})
    cells = re.sub("<[^>]*>", "|", screen.bundles[0]["text/html"])
    assert cells.count("|each class's own|") == 2 and "-1.70" not in cells


def test_the_classes_are_shown_as_a_table_that_stays(screen):
    found = AllClassScores(
        threshold_rule="",
        classes=[
            ClassScores(
                name="<spot>", images=2, ap=0.5, auc=None, oracle=Oracle(fp_at_fn0=None), folds=[]
            )
        ],
        confusion={"<spot>": {"<spot>": 1, "good": 1}, "good": {"<spot>": 0, "good": 7}},
    )
    operating_point.show_classes(found)
    [shown] = screen.bundles
    assert "&lt;spot&gt;" in shown["text/html"] and "7" in shown["text/html"]
    assert "0.5" in shown["text/plain"]


def test_in_a_terminal_the_points_are_lines(capsys):
    operating_point.show(ROWS, surface, False, COSTS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "operating    1 misses of 3, 1 false alarms of 3" and len(lines) == 2


@pytest.mark.parametrize(
    ("score", "threshold", "said"),
    [
        (1.0, 0.0, "clearly defective"),
        (0.99, 0.0, "just so"),
        (-0.5, -0.4, "just so"),
        (-0.4, -0.4, "just so"),
        (5.0, 6.0, "clearly good"),
        (7.5, 6.0, "clearly defective"),
        (-9.0, 6.0, "clearly good"),
    ],
)
def test_words_come_before_logits_whatever_the_label_is(score, threshold, said):
    assert {sureness(row("a/1", 0, kind, score, threshold)) for kind in (True, False)} == {said}


def told(bundle: dict) -> dict:
    """What the page knows."""
    page = html.unescape(re.search('srcdoc="([^"]*)"', bundle["text/html"])[1])
    return json.loads(
        re.search('<script type="application/json" id="told">(.*?)</script>', page)[1]
    )


@pytest.mark.parametrize("is_generated", [True, False])
def test_where_no_scripts_run_a_table_and_a_picture_stand(screen, is_generated: bool):
    operating_point.show(ROWS, surface, is_generated, COSTS)
    [shown] = screen.bundles
    still = shown["text/html"].partition("<iframe")[0]
    assert still.count("<tr>") == 3 and "1 of 3 [95 %: 0.8% to 90.6%]" in still
    assert ("GENERATED; Scores of all test surfaces" in still) == is_generated
    assert "score minus threshold" in still and "data:image/png;base64," in still
    assert "<script" not in shown["text/html"], "it is all in the frame's attribute"
    assert told(shown)["is_generated"] is is_generated
    assert shown["text/plain"].startswith("operating    1 misses of 3")


@pytest.mark.fault(93)
@pytest.mark.parametrize(
    "name",
    ["</script><script>alert(1)</script>", "a\"b'c", "<!--", "&lt;b&gt;", "a\udcffb", "a\nb"],
)
def test_names_are_the_user_s_and_only_text(screen, name: str):
    rows = [row(name, 0, True, 0.5, 1.0), *ROWS]
    operating_point.show(rows, surface, False, COSTS)
    page = screen.bundles[0]["text/html"]
    page.encode()  # bytes that are not UTF-8 have been escaped
    [card] = [one for one in told(screen.bundles[0])["cards"] if one["row"] == 0]
    assert card["name"] == {"a\udcffb": r"a\xffb", "a\nb": r"a\nb"}.get(name, name)
    frame = html.unescape(page.partition('srcdoc="')[2])
    assert frame.count("</script>") == 2 and "<!--" not in frame


def test_pictures_are_of_the_surfaces_nearest_to_the_line(screen):
    rows = many(300)
    operating_point.show(rows, surface, False, COSTS)
    cards = {card["row"] for card in told(screen.bundles[0])["cards"]}
    for kind in (True, False):
        for flagged in (True, False):
            of_kind = [
                n
                for n, one in enumerate(rows)
                if one.is_defective is kind and (one.margin > 0) is flagged
            ]
            nearest = sorted(of_kind, key=lambda n: abs(rows[n].margin))[: operating_point.NEAREST]
            assert cards & {*of_kind} == {*nearest}
    assert len(screen.bundles[0]["text/html"]) < 400_000


@pytest.mark.parametrize("shape", [(20, 30), (1408, 512), (3000, 4000)])
def test_a_picture_of_any_size_becomes_a_small_square_with_the_defect(shape):
    one = surface(ROWS[0], shape)
    one.image[one.annotation] = 0
    picture = operating_point._thumbnail(one).partition(",")[2]
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), 0)
    assert pixels.shape == (112, 112)
    assert (pixels.min() < 60) == one.annotation.any()


def test_a_copy_to_send_keeps_the_page_whole(screen):
    operating_point.show(many(60), surface, True, COSTS)
    data = {"output_type": "display_data", "data": screen.bundles[0], "metadata": {}}
    cell = {"cell_type": "code", "source": "", "metadata": {}, "outputs": [data]}
    sent, removed = shareable({"cells": [cell], "metadata": {}})
    assert sent["cells"][0]["outputs"][0]["data"] == screen.bundles[0] and not removed


# In a real browser


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=browser.chromium(), args=browser.FLAGS)


@pytest.fixture
def opened(chromium, screen, tmp_path: Path) -> Iterator[Callable]:
    """`opened(rows, costs, **context)`: the page in a browser, and its frame."""
    contexts = []

    def open_page(rows, costs=COSTS, **context):
        operating_point.show(rows, surface, True, costs)
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html>{screen.bundles[0]['text/html']}", encoding="utf-8")
        contexts.append(
            chromium.new_context(**{"viewport": {"width": 1300, "height": 900}} | context)
        )
        page = contexts[-1].new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(path.as_uri())
        return page, page.frame_locator("iframe")

    yield open_page
    for one in contexts:
        one.close()


in_browser = pytest.mark.skipif(
    not browser.chromium() and not os.environ.get("CI"), reason="there is no Chromium"
)


def numbers(frame) -> tuple[int, int, float]:
    """Misses, false alarms and cost, as they stand large on the page."""
    misses, alarms = (int(frame.locator(f"#{name}").inner_text()) for name in ("misses", "alarms"))
    value = float(frame.locator("#cost").get_attribute("data-value"))
    assert float(frame.locator("#cost").inner_text().replace(",", "")) == pytest.approx(
        value, abs=0.051
    )
    return misses, alarms, value


def expected(rows, shift: float, costs: Costs) -> tuple[int, int, float]:
    point = threshold_costs.at(rows, shift)
    return point.misses, point.false_alarms, point.cost(costs)


TIED = [row(f"c/{n}", 0, n % 2 == 0, n // 3 / 2, 1.0) for n in range(12)]


@pytest.mark.fault(93)
@pytest.mark.slow
@in_browser
@pytest.mark.parametrize(
    ("rows", "costs"),
    [
        (ROWS, COSTS),
        (many(40, seed=3), Costs(1e6, 1.0, 0.5)),
        (TIED, Costs(1.0, 1000.0, 0.07)),
        ([one for one in ROWS if not one.is_defective], COSTS),
    ],
    ids=["six", "forty", "tied", "all good"],
)
def test_each_number_is_that_of_threshold_costs(opened, rows, costs):
    page, frame = opened(rows, costs)
    line = frame.locator("#line")
    assert numbers(frame) == expected(rows, 0.0, costs)
    line.press("Home")
    for place in threshold_costs.shifts(rows):
        assert float(line.get_attribute("data-shift")) == place
        assert numbers(frame) == expected(rows, place, costs)
        line.press("ArrowRight")
    frame.get_by_role("button", name="Least cost").click()
    best = threshold_costs.cheapest(rows, costs)
    assert numbers(frame) == expected(rows, best.shift, costs)
    assert float(line.get_attribute("data-shift")) == best.shift
    frame.get_by_role("button", name="Operating point").click()
    for name, value in (("A missed defect costs", 7), ("A false alarm costs", 3)):
        frame.get_by_label(name).fill(str(value))
    frame.get_by_label("Defective parts, in %").fill("20")
    assert numbers(frame) == expected(rows, 0.0, Costs(7, 3, 0.2))
    best = threshold_costs.cheapest(rows, Costs(7, 3, 0.2))
    assert float(frame.locator("#least").get_attribute("data-shift")) == best.shift
    frame.get_by_label("Defective parts, in %").fill("101")
    assert "between 0 and 100" in frame.get_by_role("alert").inner_text()
    assert numbers(frame) == expected(rows, 0.0, Costs(7, 3, 0.2)), "what was right still counts"
    assert not page.complaints


def spot(page, frame, value: float) -> tuple[float, float]:
    """Where a value of the line lies on the page."""
    box = frame.locator("#line").bounding_box()
    low, high = (float(frame.locator("#line").get_attribute(end)) for end in ("min", "max"))
    return box["x"] + 22 + (value - low) / (high - low) * (box["width"] - 44), box["y"] + 100


@pytest.mark.fault(93)
@pytest.mark.slow
@in_browser
@pytest.mark.parametrize(("way", "width"), [("mouse", 1300), ("click", 390), ("finger", 390)])
def test_the_line_is_dragged_and_shows_what_changes_sides(opened, way: str, width: int):
    rows = many(60, seed=1)
    view = {"viewport": {"width": width, "height": 1000}, "has_touch": way == "finger"}
    page, frame = opened(rows, **view)
    frame.locator("#found").wait_for(state="attached")
    start, end = spot(page, frame, 0.0), spot(page, frame, -1.2)
    if way == "finger":
        session = page.context.new_cdp_session(page)
        for kind, at in (("touchStart", start), ("touchMove", end), ("touchEnd", None)):
            points = [{"x": at[0], "y": at[1]}] if at else []
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    elif way == "click":
        page.mouse.click(*end)
    else:
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=4)
        page.mouse.up()
    frame.get_by_text("On the other side").wait_for()
    shift = float(frame.locator("#line").get_attribute("data-shift"))
    assert shift == pytest.approx(-1.2, abs=0.1)
    assert numbers(frame) == expected(rows, shift, COSTS)
    changed = threshold_costs.at(rows, shift).changed
    cards = frame.locator(".cards div").all_inner_texts()
    assert changed and {card.rpartition(", ")[2] for card in cards} == {
        one.image for one in changed
    }
    assert frame.locator(".cards .wrong").count() == sum(not one.is_defective for one in changed)
    loaded = "image => image.complete && image.naturalWidth === 112"
    assert all(one.evaluate(loaded) for one in frame.locator(".cards img").all())
    dots = frame.locator("svg").evaluate(
        "svg => ['missed', 'found', 'alarm', 'passed'].map(id => svg.getElementById(id)"
        ".getAttribute('d').split('M').length - 1)"
    )
    misses, alarms, _ = numbers(frame)
    bad = sum(one.is_defective for one in rows)
    assert dots == [misses, bad - misses, alarms, len(rows) - bad - alarms], (
        "a dot for each surface"
    )
    assert frame.locator("body").evaluate("body => body.scrollWidth <= innerWidth")
    height = page.locator("iframe").bounding_box()["height"]
    assert height == pytest.approx(frame.locator("#point").bounding_box()["height"] + 4, abs=2)
    assert not page.complaints


@pytest.mark.fault(93)
@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("scripts", [True, False])
def test_one_of_page_and_table_is_seen(opened, scripts: bool):
    page, frame = opened(ROWS, java_script_enabled=scripts)
    page.wait_for_timeout(300)
    assert page.locator("table").is_visible() is not scripts
    assert page.locator('img[alt*="Scores of all test surfaces"]').is_visible() is not scripts
    assert (page.locator("iframe").bounding_box()["height"] > 300) is scripts


@pytest.mark.fault(93)
@pytest.mark.slow
@in_browser
def test_thousands_of_surfaces_are_drawn(opened):
    rows = many(4_000, separation=4.0)
    page, frame = opened(rows)
    frame.locator("#line").press("ArrowLeft")
    shift = float(frame.locator("#line").get_attribute("data-shift"))
    assert numbers(frame) == expected(rows, shift, COSTS) and shift < 0
    dots = (
        "svg => [...svg.querySelectorAll('path[id]')].map(path => path.getAttribute('d')).join('')"
    )
    assert frame.locator("svg").evaluate(dots).count("M") == 4_000
