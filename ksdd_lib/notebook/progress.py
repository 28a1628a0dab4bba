"""How far all the work of a notebook is, as one bar: plain HTML, so that a saved page shows it."""

import html
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from ksdd_lib.formatting import duration
from ksdd_lib.methods.catalog import method_of
from ksdd_lib.methods.protocol import StagePlan
from ksdd_lib.notebook.outputs import ProgressLine
from ksdd_lib.runs.prepare import DataSet
from ksdd_lib.runs.run import FINAL, Run, fold_name
from ksdd_lib.training.loop import read_history

BAR = 'style="max-width: 40em; height: 0.9em; border: 1px solid #888"'
FILL = 'style="width: {:.1f}%; height: 100%; background-color: #0072b2"'


@dataclass
class Work:
    """A part of the work: steps of a training, or images to score.

    Attributes:
        kind: pieces of one kind take equally long.
        seconds: what those that are done took, in earlier sessions too.
    """

    kind: str
    pieces: int
    done: int = 0
    seconds: float = 0.0


@dataclass
class Whole:
    """All parts of the work together, each replaced as it goes on.

    Attributes:
        name: what they are, such as "all 3 folds".
        before: other works, which tell how long pieces of their kind take.
    """

    parts: dict[Hashable, Work]
    name: str = ""
    before: Sequence[Work] = ()

    @property
    def is_done(self) -> bool:
        return all(part.done >= part.pieces for part in self.parts.values())

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts.values())

    @property
    def left(self) -> float:
        """Seconds, estimated: 0 where no pace is known yet."""
        parts = self.parts.values()
        return sum(self._pace(part.kind) * max(0, part.pieces - part.done) for part in parts)

    @property
    def share(self) -> float:
        """What is done, by time, or by pieces where no pace is known."""
        if total := 0.0 if self.is_done else self.seconds + self.left:
            return self.seconds / total
        pieces = sum(part.pieces for part in self.parts.values())
        return sum(part.done for part in self.parts.values()) / pieces if pieces else 1.0

    def _pace(self, kind: str) -> float:
        """Seconds a piece: as measured, as before, or as of the other kinds."""
        parts = [*self.parts.values()]
        same, before = ([w for w in works if w.kind == kind] for works in (parts, self.before))
        for works in (same, before, parts):
            if done := sum(work.done for work in works):
                return sum(work.seconds for work in works) / done
        return 0.0

    def words(self) -> str:
        """ "38 %, 3.2 min of about 8.4 min"."""
        if self.is_done:
            return "done" + f" in {duration(self.seconds)}" * bool(self.parts)
        times = f", {duration(self.seconds)} of about {duration(self.seconds + self.left)}"
        return f"{int(100 * self.share)} %" + times * (self.seconds + self.left > 0)

    def show(self, place: str, line: ProgressLine) -> None:
        """Renew the bar, with where the work is now; on a terminal the words alone."""
        line.show(f"{place}; {self.name}: {self.words()}", self.is_done, page=self.page(place))

    def page(self, place: str) -> str:
        """The bar and its words, as HTML that needs neither a script nor a widget."""
        percent = 100 * self.share
        role = f'role="progressbar" aria-valuenow="{int(percent)}"'
        told = f"{html.escape(place)}<br><b>{html.escape(self.name)}: {self.words()}</b>"
        return f"<div {role} {BAR}><div {FILL.format(percent)}></div></div><div>{told}</div>"


def training(run: Run, stage: str, fold: int) -> Whole:
    """What trains together with this stage of this fold, as far as the run folder holds it.

    It is the stage in all folds of the run; of the final model both stages, at the folds' pace.
    """
    plans = [p for p in method_of(run.settings).stages if FINAL == fold or p.name == stage]

    def works(folds: Sequence[int]) -> dict[Hashable, Work]:
        return {(plan.name, k): _work(run, plan, k) for plan in plans for k in folds}

    trained = run.settings.fold_numbers
    folds = (FINAL,) if fold == FINAL else trained
    return Whole(works(folds), _named(folds), [*works(trained).values()])


def _work(run: Run, plan: StagePlan, fold: int) -> Work:
    """A stage of a fold, as far as its history goes."""
    rows = read_history(run.fold_folder(fold) / f"{plan.name}.jsonl")
    done, seconds = (rows[-1]["step"], rows[-1]["seconds"]) if rows else (0, 0.0)
    steps = plan.recipe(run.settings).steps
    return Work(plan.name, steps, min(int(done), steps), seconds)


def scoring(run: Run, data: DataSet) -> Whole:
    """The test images of the run's folds that have no scores yet."""
    folds = run.settings.fold_numbers
    left = [k for k in folds if not (run.fold_folder(k) / "scores.json").exists()]
    return Whole({k: Work("images", len(data.folds[k].test)) for k in left}, _named(folds))


def watch_scoring(run: Run, data: DataSet) -> Callable[[int, int, int], None]:
    """A `watch` for scoring: one bar for all folds, on a terminal one line."""
    whole, line, began = scoring(run, data), ProgressLine(1.0), time.monotonic()

    def watch(fold: int, done: int, total: int) -> None:
        nonlocal began
        now = time.monotonic()
        whole.parts[fold] = Work("images", total, done, now - began)
        began = now if done == total else began
        whole.show(f"scoring, {fold_name(fold)}: {done} of {total} images", line)

    if whole.is_done:
        whole.show("all images are scored", line)
    return watch


def _named(folds: Sequence[int]) -> str:
    return fold_name(folds[0]) if len(folds) == 1 else f"all {len(folds)} folds"
