"""The report says what the stored files say, to anyone, in one file, and refuses mixed results."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from unittest.mock import Mock

import numpy as np
import pytest
from evaluated_run import make_run, read_pair
from scipy.stats import beta

from ksdd_lib import presets, settings_io, storage
from ksdd_lib.errors import RunError
from ksdd_lib.evaluation import results
from ksdd_lib.evaluation.classes import class_scores
from ksdd_lib.evaluation.predictions import (
    ClassScore,
    Prediction,
    failures_first,
    read_predictions,
    verdict,
    write_predictions,
)
from ksdd_lib.evaluation.summary import FoldScores, Intervals, PooledScores, Summary, conclude
from ksdd_lib.evaluation.thresholds import FalseAlarms
from ksdd_lib.reporting import report, wording
from ksdd_lib.settings import RULES, Settings


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo-clean-seed0")


@pytest.fixture(scope="module")
def page(run_folder):
    return report.make_report(run_folder, read_pair).read_text(encoding="utf-8")


@pytest.fixture
def quick(monkeypatch):
    """Figures are composed but not painted: for tests that read the words alone."""
    from ksdd_lib.reporting import plots

    monkeypatch.setattr(plots, "png", lambda figure: b"")


def text_of(page):
    """What a reader sees, with single spaces."""
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


class Balance(HTMLParser):
    """Collects every element's attributes, and whether all tags are closed in order."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, page):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_figures_are_written_for_all_kinds(run_folder, page):
    names = {path.stem for path in (run_folder / "figures").iterdir()}
    assert {
        "errors",
        "strip_1",
        "scores",
        "roc_curve",
        "precision_recall_curve",
        "confusion_matrix",
        "training_curves",
    } <= names


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    "name", ["scores_2.png", "strip.png", "strip2.png", "strip_1_mine.png", "roc.png", "notes.txt"]
)
def test_a_picture_of_the_user_beside_the_figures_stays(tmp_path, quick, name):
    folder = make_run(tmp_path / "run")
    mine = folder / "figures" / name
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    report.make_figures(folder)
    assert mine.read_bytes() == b"mine"


@pytest.mark.fault(56)
@pytest.mark.parametrize("make", [report.make_figures, report.make_report])
def test_a_report_whose_run_was_taken_over_meanwhile_is_not_written(tmp_path, monkeypatch, make):
    from ksdd_lib.reporting import plots

    folder, left = make_run(tmp_path / "run"), {}

    def take_over(figure):
        (folder / "owner.json").write_text('{"owner": "colab-vm process 7", "last_wrote": 0.0}')
        left.update({path: path.read_bytes() for path in folder.rglob("*.*")})
        return b""

    monkeypatch.setattr(plots, "png", take_over)
    with pytest.raises(RunError, match="colab-vm process 7 has taken it over"):
        make(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == left


def test_the_report_is_one_well_formed_file_that_fetches_and_runs_nothing(page):
    parsed = Balance(page)
    assert not parsed.open
    assert not parsed.tags & {"script", "link", "iframe", "object"}
    sources = [value for _, name, value in parsed.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    names = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(names) == len(set(names)) >= 5
    assert {value[1:] for value in sources if value.startswith("#")} <= set(names)
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert "url(" not in page and "@import" not in page


def first_page(page):
    """What stands there before anything is unfolded, as HTML."""
    while (shorter := re.sub(r"<details((?!<details).)*?</details>", "", page, flags=re.S)) != page:
        page = shorter
    return page


WORDY = Settings(preset="cpu", data="KolektorSDD.zip", defective_images=5, masks="5")


@pytest.mark.fault(81)
class TestTheFirstPage:
    """Verdict, three numbers, three pictures and the next step; the rest is folded."""

    @pytest.mark.parametrize(
        "kinds",
        [
            {},
            {"separation": 0.0},
            {"separation": 60.0},
            {"with_defects": False},
            {"folds": (1,)},
            {"generated": False, "kolektor": True, "settings": WORDY, "leaked": 8},
            {"generated": False, "settings": Settings(labels="none")},
        ],
        ids=str,
    )
    def test_it_has_at_most_900_words_and_the_rest_is_folded(self, tmp_path, quick, kinds):
        if "leaked" in kinds:
            kinds = kinds | {"protocol": "official"}
        folder = make_run(tmp_path / "run", **kinds)
        page = report.make_report(folder, read_pair).read_text(encoding="utf-8")
        assert len(text_of(first_page(page)).split()) <= 900
        assert "<details open" not in page and page.count("<details") >= 6
        tags = [tag for tag, name, value in Balance(first_page(page)).attributes]
        assert tags.count("table") == 0
        folded = text_of(page).replace(text_of(first_page(page)), "")
        for title in ("What the numbers mean", "Results by fold", "Curves", "Data and leaks"):
            assert title in folded and title not in text_of(first_page(page))

    def test_it_leads_from_the_verdict_to_the_next_step(self, page):
        first = first_page(page)
        parts = ["In short:", "Defects missed (FN)", "False alarms (FP)", "Missed among other"]
        parts += ['class="card"', "Next step:", 'class="cautions"', "How to cite"]
        places = [first.index(part) for part in parts]
        assert places == sorted(places) and first.count('class="tile"') == 3

    def test_it_says_how_many_defects_other_parts_may_hide(self, run_folder, page, tmp_path):
        """Counted by part, with the bound that a few dozen allow; folds that leak tell none."""
        rows = read_predictions(run_folder / "predictions.csv")
        parts = {row.item for row in rows if row.is_defective}
        found = {row.item for row in rows if row.is_defective and row.is_flagged}
        below = beta.ppf(0.95, len(parts - found) + 1, len(found))
        share, said = wording.still_missed(rows)
        assert abs(float(share.replace("\xa0%", "")) / 100 - below) <= 0.001 + 1e-9
        assert f"{len(parts - found)} of {len(parts)} were passed" in said and "more, none" in said
        first = text_of(first_page(page))
        assert f"Missed among other parts, below {' '.join(share.split())}" in first
        assert wording.still_missed([r for r in rows if not r.is_defective])[0] == "not known"
        leaking = make_run(tmp_path / "run", generated=False, protocol="official", leaked=8)
        first = text_of(first_page(report.make_report(leaking).read_text("utf-8")))
        assert "Missed among other parts not known These folds leak" in first

    def test_one_defect_that_is_found_stands_before_the_two_worst_errors(self, run_folder, page):
        rows = read_predictions(run_folder / "predictions.csv")
        verdicts = re.findall(
            r"<figcaption><b[^>]*>([^<]+)</b>.*?<br>\n(.+?), fold", first_page(page)
        )
        found = [row for row in rows if row.is_defective and row.is_flagged]
        best = max(found, key=lambda row: row.score - row.threshold)
        wrong = [row for row in failures_first(rows) if verdict(row) != "found"][:2]
        expected = [("found", best.image)]
        expected += [(verdict(row).upper(), row.image) for row in wrong]
        assert verdicts == expected and len(expected) == 3

    def test_without_errors_it_says_so_and_without_pictures_it_shows_none(self, tmp_path, quick):
        perfect = make_run(tmp_path / "run", separation=60.0)
        first = first_page(report.make_report(perfect, read_pair).read_text("utf-8"))
        assert first.count('class="card"') == 2 and "No verdict was wrong" in first
        rows = sorted(read_predictions(perfect / "predictions.csv"), key=lambda row: row.margin)
        found = [row.image for row in rows if row.is_defective]
        shown = re.findall(r"</b>( \(generated\))?, (.+?)<br>\n(.+?), fold", first)
        assert [one[1:] for one in shown] == [
            (f"the clearest of {len(found)}", found[-1]),
            (f"the closest call of {len(found)}", found[0]),
        ]
        blind = first_page(report.make_report(perfect).read_text("utf-8"))
        assert 'class="card"' not in blind and "Next step:" in blind

    def test_each_verdict_stands_above_its_picture(self, page):
        for card in re.findall(r'<figure class="card">(.*?)</figure>', page, re.S):
            assert card.index("<figcaption>") < card.index("score") < card.index("<img ")
        shown = len(re.findall('<figure class="card">', page))
        assert shown == 3 + len(
            re.findall("<figure class=.card.>", page[page.index('"surfaces"') :])
        )

    @pytest.mark.parametrize(
        ("author", "comment"),
        [("A. Šela", ""), ("", "Looks fine."), ("<b>B", "Try <script> & 2\n")],
    )
    def test_author_and_comment_stand_on_it(self, run_folder, quick, author, comment):
        path = report.make_report(run_folder, None, author, comment)
        first = first_page(path.read_text("utf-8"))
        assert not Balance(first).open and "<script" not in first
        [said] = re.findall(r'<p class="said">(.*?)</p>', first, re.S)
        told = html.unescape(re.sub(r"<[^>]*>", "", said))
        assert author.strip() in told and comment.strip() in told
        assert ("(" in told) == bool(author)

    def test_nobody_is_named_unless_given(self, page):
        assert 'class="said"' not in page


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ({}, "Photograph parts of your own"),
        ({"generated": False, "protocol": "official", "leaked": 8}, "with clean folds"),
        ({"generated": False, "folds": (0,)}, "Train the other folds"),
        ({"generated": False}, "Photograph more defective parts"),
    ],
)
def test_the_next_step_follows_from_the_results(tmp_path, quick, monkeypatch, kinds, told):
    found = results.load_results(make_run(tmp_path / "run", **kinds))
    assert told in wording.next_step(found)
    if told.startswith("Photograph more"):
        monkeypatch.setattr(wording, "FEW", 2)
        assert wording.next_step(found).startswith("Let somebody who knows the parts look")
        perfect = results.load_results(make_run(tmp_path / "all", separation=60.0, **kinds))
        assert wording.next_step(perfect).startswith("Try the model beside your inspection")


def test_headline_numbers_are_those_of_metrics_json(run_folder, page):
    pooled = storage.read_json(run_folder / "metrics.json")["pooled"]
    text = text_of(page)
    assert f"{pooled['ap']:.4f}" in text
    assert f"Defects missed (FN) {pooled['fn']} of {pooled['defective']}" in text
    assert f"False alarms (FP) {pooled['fp']} of 45" in text
    assert "95 % interval" in text
    assert "out-of-fold scores of the fold's own training items" in text.replace("&#39;", "'")


def test_the_errors_are_seen_before_the_figures_and_only_where_there_are_any(
    run_folder, page, tmp_path, quick
):
    pooled = storage.read_json(run_folder / "metrics.json")["pooled"]
    assert pooled["fp"] + pooled["fn"] > 0
    glance = 'alt="The errors at a glance'
    assert page.count(glance) == 1 and page.index(glance) < page.index('id="results"')
    perfect = make_run(tmp_path / "run", separation=60.0)
    storage.write_bytes(perfect / "figures" / "errors.png", b"of an earlier report")
    assert glance not in report.make_report(perfect, read_pair).read_text(encoding="utf-8")
    assert not (perfect / "figures" / "errors.png").exists()


JUDGES = {
    "decision": "the decision network alone",
    "mask": "the highest value of the mask alone",
    "both": "both: the sum of their logits",
}


@pytest.mark.parametrize(
    ("kind", "names"), [("decision", JUDGES), ("both", JUDGES), ("mask", ["mask"])]
)
def test_each_way_to_judge_stands_beside_the_others(tmp_path, quick, kind, names):
    folder = make_run(tmp_path / "run", settings=Settings(score=kind))
    summary = storage.read_json(folder / "metrics.json")
    storage.write_json(
        folder / "metrics.json", summary | {"darkest_pixel": {"ap": 0.1234, "auc": 0.5678}}
    )
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    pooled, mask = summary["pooled"], summary["segmentation_score"]["pooled"]
    for name in ("mask", kind):
        own = " (this run)" * (name == kind)
        row = mask if name == "mask" else pooled
        counts = " ".join(str(row["oracle"][count]) for count in ("fp", "fn", "fp_at_fn0"))
        assert f"{JUDGES[name]}{own} {row['ap']:.4f} {row['auc']:.4f} {counts}" in text
    assert all((what in text) == (name in names) for name, what in JUDGES.items())
    assert "the darkest pixel, without training 0.1234 0.5678 – – –" in text


@pytest.mark.fault(67)
@pytest.mark.parametrize("kolektor", [True, False])
def test_pixel_numbers_stand_beside_what_annotators_agree_on(tmp_path, quick, kolektor):
    folder = make_run(tmp_path / "run", kolektor=kolektor)
    older = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "AP-loc" not in older
    row = {"ap_loc": 0.1231, "iou": 0.2341, "dice": 0.3791, "image_iou": None}
    fold = {"fold": 2, "threshold": 0.4561, "threshold_from": {"images": 5, "defective": 1}}
    found = {"threshold_rule": "best of all", "folds": [fold | row], "pooled": row}
    summary = storage.read_json(folder / "metrics.json") | {"pixel_scores": found}
    storage.write_json(folder / "metrics.json", summary)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    numbers = "undefined 0.234 0.379 0.123"
    assert f"2 {numbers} 0.456 pooled {numbers}" in text and "from: best of all." in text
    assert "an IoU of 0.40 to 0.66" in text
    assert f"defects{' ' if kolektor else ' of KolektorSDD '}were annotated twice" in text


def test_the_day_of_the_evaluation_stands_above(run_folder, page, tmp_path, quick):
    assert "Evaluated on" not in text_of(page)  # results of an earlier version have none
    folder = make_run(tmp_path / "run")
    storage.write_json(folder / "environment.json", {"evaluated on": "2026-11-25"})
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "that had learned from other items alone. Evaluated on 2026-11-25." in text


def test_every_score_stands_with_its_fold(run_folder, page):
    text = text_of(page)
    for row in read_predictions(run_folder / "predictions.csv"):
        kind = "defective" if row.is_defective else "good"
        said = "flagged" if row.is_flagged else "passed"
        shown = f"{row.image} {kind} {said} {row.score:.2f} {row.threshold:.2f} {row.fold}"
        assert shown in text


def test_what_differs_from_the_preset_is_marked_and_whence_the_preset_comes(tmp_path, quick):
    settings = Settings(preset="cpu", seed=3)
    folder = make_run(tmp_path / "run", generated=False, kolektor=True, settings=settings)
    page = report.make_report(folder).read_text(encoding="utf-8")
    assert re.search(r'<tr class="own"><td class="name">seed</td><td class="value">3</td>', page)
    assert re.search(r'<tr><td class="name">folds</td>', page)
    cautions = page[page.index('<ul class="cautions">') : page.index("</ul>")]
    assert "only new items give an untouched test" in cautions
    assert re.search("<pre>python -m ksdd_lib run --data DATA --preset cpu .*--set seed=3", page)


def test_the_command_that_does_a_run_again_names_what_the_machine_had_chosen(tmp_path, quick):
    settings = presets.resolve({"preset": "demo", "image_size": "256x128", "defective_images": 5})
    folder = make_run(tmp_path / "run", settings=settings)
    made = storage.read_json(folder / "environment.json") | {"arithmetic": "bfloat16"}
    storage.write_json(folder / "environment.json", made | {"commit": "1322b804fb91+"})
    page = report.make_report(folder).read_text(encoding="utf-8")
    [command] = re.findall("<pre>python -m ksdd_lib run --data DATA (.*)</pre>", page)
    given = dict(pair.split("=") for pair in command.split() if "=" in pair)
    given = {name: settings_io.convert(name, text) for name, text in given.items()}
    again = settings_io.to_json(presets.resolve({"preset": "demo"} | given))
    assert again == settings_io.to_json(settings) | {"precision": "bfloat16"}
    assert "1322b804fb91 with changes that are in no commit" in page


def test_settings_stand_with_unit_and_reason(page):
    rule = RULES["generated_items"]
    text = text_of(page)
    assert f"generated_items 12 {rule.unit} {rule.reason}" in text
    assert "decision fold 0 83 s" in text
    assert "python 3.11.9" in text


def test_generated_surfaces_are_called_so(page):
    assert "GENERATED surfaces: this report shows no real part" in text_of(page)


def test_every_figure_of_generated_surfaces_is_stamped_and_no_other(tmp_path, monkeypatch, quick):
    from ksdd_lib.reporting import plots

    stamped = []
    draw = plots.stamp
    monkeypatch.setattr(plots, "stamp", lambda *args: stamped.append(args) or draw(*args))
    paths = report.make_figures(make_run(tmp_path / "run"), read_pair)
    assert len(stamped) == len(paths) > 6
    stamped.clear()
    report.make_figures(make_run(tmp_path / "real", generated=False), read_pair)
    assert not stamped


def test_no_path_of_this_machine_is_in_the_report(run_folder, page):
    assert str(run_folder.parent) not in page
    assert "../data" not in page


def test_without_the_data_set_the_pictures_are_left_out_and_it_says_so(tmp_path, quick):
    folder = make_run(tmp_path / "run")
    storage.write_bytes(folder / "figures" / "strip_1.png", b"of an earlier report")
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "the data set was not at hand" in text
    assert not list((folder / "figures").glob("strip*"))


def test_pictures_of_kolektorsdd_carry_its_licence(tmp_path, quick):
    folder = make_run(tmp_path / "run", generated=False, kolektor=True, name="KolektorSDD.zip")
    with_pictures = text_of(report.make_report(folder, read_pair).read_text(encoding="utf-8"))
    assert "CC BY-NC-SA 4.0" in with_pictures and "shows pictures of KolektorSDD" in with_pictures
    assert "GENERATED" not in with_pictures
    assert "Beside what is published on KolektorSDD" in with_pictures
    without = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "CC BY-NC-SA 4.0" in without and "shows pictures" not in without


def test_a_leak_stands_beside_the_numbers(tmp_path, quick):
    folder = make_run(tmp_path / "run", protocol="official", leaked=8)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "official folds leak. Over all of them, 8 of 60 test images (2 of 15 defective)" in text


def test_a_single_fold_says_so_and_where_its_threshold_comes_from(tmp_path, quick):
    folder = make_run(tmp_path / "run", folds=(1,))
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "clean folds, only 1 trained" in text
    assert "Only 1 of the 3 folds is trained" in text
    assert "a logit of 0.0" in text


def test_few_defects_in_training_say_so(tmp_path, quick):
    folder = make_run(tmp_path / "run", settings=Settings(defective_images=5))
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "Each network learned from at most 5 defective images" in text
    summary = storage.read_json(folder / "metrics.json")
    summary["trained_defects"] = {"0": ["kos01/Part5"], "1": ["kos03/Part1", "kos09/Part2"]}
    storage.write_json(folder / "metrics.json", summary)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "of its training items and 1 defective: kos01/Part5." in text
    assert "of its training items and 2 defective: kos03/Part1, kos09/Part2." in text


def test_what_training_knew_of_defects_is_told(tmp_path, quick):
    folder = make_run(tmp_path / "none", settings=Settings(labels="none"))
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "No defect was known in training" in text and "(crack)" in text
    folder = make_run(tmp_path / "few", settings=Settings(masks="5", drawn_kinds="pit,stain"))
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "Each network knew 5 masks" in text and "(pit, stain)" in text


def test_a_threshold_without_defects_says_what_it_promises():
    one = FalseAlarms(fold=0, wanted=0.05, parts=31, flagged=1, below=0.1449)
    summary = Mock(false_alarms=[one])
    said = wording.promised(summary).replace("\xa0", " ")
    assert "fold 0 flags 1 of the 31 training parts that set it, so fewer than 14.5 % of" in said
    assert "More parts are needed to promise 5.0 %." in said


def test_perfect_separation_has_no_interval(tmp_path, quick):
    folder = make_run(tmp_path / "run", separation=60.0)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "No interval: some threshold separates perfectly" in text


@pytest.mark.fault(14)
def test_without_defects_the_numbers_are_undefined(tmp_path, quick):
    folder = make_run(tmp_path / "run", with_defects=False)
    text = text_of(report.make_report(folder).read_text(encoding="utf-8"))
    assert "Average precision, pooled undefined For engineers: how well the scores order" in text
    assert "Needs defective and good surfaces" in text
    assert "Defects missed (FN) none was tested" in text
    assert "With the oracle threshold" not in text and "Where the defect is" not in text
    assert "Missed among other parts not known No defective part was tested" in text


def test_the_mask_of_squared_error_training_is_not_squashed(tmp_path):
    squared = Settings(segmentation_loss="mean_squared_error")
    found = results.load_results(make_run(tmp_path / "squared", settings=squared))
    row = found.rows[0]
    logits = found.masks[row.image].astype(float)
    linear = report.judged_surface(found, read_pair, row).output
    assert linear == pytest.approx(np.clip(logits, 0, 1))
    found = results.load_results(make_run(tmp_path / "entropy"))
    squashed = report.judged_surface(found, read_pair, row).output
    assert squashed == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-3)


def test_a_method_that_learns_nothing_has_a_report_without_what_is_said_of_training(tmp_path):
    folder = make_run(tmp_path / "run", settings=Settings(method="darkest_pixel"))
    text = text_of(report.make_report(folder, read_pair).read_text(encoding="utf-8"))
    assert "Run run: method darkest pixel, preset demo" in text
    assert "Nothing was learned from any surface." in text
    told = text[: text.index("Settings This command does the run again")]
    assert not re.search("network|Training|What judges|are logits", told)
    assert "Tabernik" not in text
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert {"errors", "strip_1", "scores"} <= names and "training_curves" not in names


@pytest.mark.fault(12)
def test_names_are_escaped(tmp_path, quick):
    evil = "<img src=x onerror=alert(1)>", '"><script>alert(1)</script>', "=1+1 & é"

    def rename(part):
        return evil[int(part[3:5]) % 3] + part.replace("/", "|").replace("|", "/", 1)

    folder = make_run(tmp_path / "<b>run", rename=rename, name="".join(evil))
    page = report.make_report(folder, read_pair).read_text(encoding="utf-8")
    parsed = Balance(page)
    assert not parsed.open
    assert not parsed.tags & {"script"}
    assert not any(key.startswith("on") for _, key, _ in parsed.attributes)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "Run &lt;b&gt;run" in page


def test_results_without_masks_histories_timing_still_make_a_report(tmp_path, quick):
    folder = make_run(tmp_path / "run")
    for name in ("masks.npz", "environment.json", "timing.json"):
        (folder / name).unlink()
    for path in folder.glob("fold*/*.jsonl"):
        path.unlink()
    text = text_of(report.make_report(folder, read_pair).read_text(encoding="utf-8"))
    assert "Pictures of the surfaces are left out" in text
    assert "Time taken" not in text
    assert not (folder / "figures" / "training_curves.png").exists()


def test_the_strip_is_bounded_and_says_what_it_leaves_out(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(report, "STRIP_LIMITS", {"missed": 1, "false alarm": 1, "found": 2})
    folder = make_run(tmp_path / "run", separation=0.0)
    text = text_of(report.make_report(folder, read_pair).read_text(encoding="utf-8"))
    assert re.search(r"\b4 of \d+ defective or flagged surfaces are shown", text)


def test_failures_fill_the_first_page_of_the_strip(tmp_path):
    rows = read_predictions(make_run(tmp_path / "run") / "predictions.csv")
    rows = [replace(row, threshold=10.0, is_flagged=False) for row in rows]
    rows[0] = replace(rows[0], is_flagged=True)
    shown = report._strip_rows(rows)
    assert len(shown) > report.STRIP_ROWS
    assert shown[-1].image == rows[0].image


def test_the_first_sentences_say_what_was_found_and_what_is_left_open():
    intervals = Intervals.model_construct(recall=(0.889, 0.999), false_positive_rate=(0.002, 0.027))
    pooled = PooledScores.model_construct(
        tp=47, fn=1, fp=3, tn=324, ap=0.99, recall=47 / 48, intervals=intervals
    )
    row = Prediction("a", "a", 0, 0, True, -1.0, 0.0, threshold=0.0, is_flagged=False)
    found, left_open, missed = wording.in_words(pooled, [row])
    assert found.startswith("47 of 48 defective surfaces were found, and 3 of 327 good ones")
    assert (
        "0 of 1 defective ones have a flagged surface. Every item here has a defect. A good "
        "surface was flagged on 0 of 1, about the share of good items that would be stopped."
    ) in found
    alarm = Prediction("a/2", "a", 0, 0, False, 1.0, 0.0, threshold=0.0, is_flagged=True)
    assert "was flagged on 1 of 1, about" in wording.in_words(pooled, [row, alarm])[0]
    assert found.endswith(
        "Here 13\xa0% of the surfaces are defective. If only 1 in 1,000 were, about 9 of 10 "
        "alarms would be false."
    )
    good = replace(row, image="b", item="b", is_defective=False, is_flagged=True)
    assert ", and so have 1 of 1 good ones." in wording.in_words(pooled, [row, good])[0]
    assert "up to 11.1\xa0% of the defects" in left_open
    assert "up to 2.7\xa0% of the good" in left_open
    assert (
        "fewer than 1\xa0% misses with 95\xa0% confidence (one-sided), 473 defective" in left_open
    )
    assert "in all, with only this one missed. The 48 tested here count towards them." in left_open
    assert "prove anything" not in left_open
    two, none = (pooled.model_copy(update={"fn": missed}) for missed in (2, 0))
    assert "with only these 2 missed." in wording.in_words(two, [row])[1]
    assert "with none of them missed." in wording.in_words(none, [row])[1]
    toy = pooled.model_copy(update={"tp": 2, "fn": 1, "ap": 1.0})
    _, left_open, ranked, _ = wording.in_words(toy, [row])
    assert left_open.startswith("Only 3 defective surfaces were tested, too few to prove anything.")
    assert ranked.startswith("All defects score above all good surfaces")
    assert missed == "Missed: a. They are shown first below."
    assert "of one kind" in wording.in_words(pooled.model_copy(update={"tp": 0, "fn": 0}), [])[0]


def test_the_conclusion_stands_first_and_recommends_no_more_than_a_trial():
    intervals = Intervals.model_construct(recall=(0.8893, 0.999), false_positive_rate=(0.0, 0.1))
    pooled = PooledScores.model_construct(tp=47, fn=1, fp=3, tn=324, intervals=intervals)
    told = wording.conclusion(pooled, is_generated=False)
    assert told.startswith("In short: 47 of 48 defects were found, and 3 of 327 good surfaces were")
    assert told.endswith("not to replace one.")
    assert "nothing about real parts" in wording.conclusion(pooled, is_generated=True)
    undefined = Intervals.model_construct(recall=None, false_positive_rate=(0.0, 0.1))
    of_one_kind = pooled.model_copy(update={"tp": 0, "fn": 0, "intervals": undefined})
    said = wording.conclusion(of_one_kind, is_generated=False)
    assert said.startswith("In short: no defective part was tested")


def test_errors_of_a_threshold_alone_are_called_so():
    """As on the official folds at 1056x384: nearly all misses came from one fold's threshold."""
    names = ("fold", "ap", "fp", "fn", "threshold")
    rows = [(0, 1.0, 2, 0, 1.33), (1, 1.0, 0, 5, 4.8), (2, 0.99, 1, 1, 0.69)]
    folds = [FoldScores.model_construct(**dict(zip(names, row, strict=True))) for row in rows]
    told = wording.unlucky_thresholds(Summary.model_construct(folds=folds))
    assert "In fold 0 all defects" in told and "its errors (2 FP, 0 FN) come from" in told
    assert "(0 FP, 5 FN) come from its threshold alone, 4.80" in told and "In fold 2" not in told
    assert told.endswith(
        "The folds' thresholds are 1.33, 4.80, 0.69. With few defects, a threshold is uncertain."
    )
    assert wording.unlucky_thresholds(Summary.model_construct(folds=folds[2:])) == ""
    lucky = [folds[0].model_copy(update={"fp": 0}), folds[2]]
    assert wording.unlucky_thresholds(Summary.model_construct(folds=lucky)) == ""


def test_what_precision_means_where_defects_are_rare():
    """1 alarm in 100 good surfaces, half of the defects found: 9.99 false for each 0.5 found."""
    pooled = PooledScores.model_construct(recall=0.5, fp=1, tn=99)
    assert abs(wording.false_share(pooled, 0.001) - 9.99 / (9.99 + 0.5)) < 1e-12
    assert wording.false_share(pooled.model_copy(update={"fp": 0, "tn": 100}), 0.001) == 0
    assert wording.false_share(pooled.model_copy(update={"recall": None}), 0.001) is None
    none = PooledScores.model_construct(recall=0.0, fp=0, tn=9)
    assert wording.false_share(none, 0.001) is None


@pytest.mark.fault(72)
def test_the_report_of_several_classes_shows_no_threshold_that_decides_nothing(tmp_path, quick):
    rows = read_predictions(make_run(tmp_path) / "predictions.csv")
    told = storage.read_json(tmp_path / "metrics.json")
    random = np.random.default_rng(1)
    several = []
    for row in rows:
        dent = ClassScore("<dent>", row.score - 5 + random.normal(), row.is_defective)
        several.append(replace(row, classes=(ClassScore("a", row.score, False), dent)))
    train = {k: {r.item for r in rows if r.fold != k} for k in range(3)}
    judged, summary = conclude(several, "clean", rows[0].seed, train)
    kept = {name: told[name] for name in ("made_from", "masks_sha256")}
    found = {"class_scores": class_scores(judged, train).model_dump()}
    write_predictions(tmp_path / "predictions.csv", judged)
    storage.write_json(tmp_path / "metrics.json", summary.model_dump(mode="json") | kept | found)
    page = report.make_report(tmp_path).read_text("utf-8")
    for fold in summary.folds:
        row = re.search(rf"<tr class=\"\"><td>{fold.fold}</td>.*?</tr>", page, re.DOTALL)[0]
        assert "<td>by class</td>" in row
    each = [f"{one.threshold:.3f}" for one in class_scores(judged, train).classes[1].folds]
    assert f"<td>{', '.join(each)}</td>" in page
    assert "for any class is greater than" in page and "&lt;dent&gt;" in page
