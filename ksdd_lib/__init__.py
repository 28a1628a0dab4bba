"""Surface-crack detection from few defective samples; CONTRIBUTING.md has the map of the rooms.

`import ksdd_lib as ksdd` is all that a notebook needs: `ksdd.NAME` is loaded when it is first used.
"""

from importlib import import_module

__version__ = "0.1.0"

FACE = {
    "data": "synthetic",
    "data.dataset": "read_image read_mask",
    "data.folds": "count_leaks",
    "data.data_report": "format_report",
    "deploy": "detection weights",
    "drive.background": "BackgroundCopy",
    "drive.recovery": "bring_from",
    "errors": "DataError MissingError",
    "evaluation": "promises",
    "evaluation.metrics": "average_precision",
    "evaluation.predictions": "failures_first sureness verdict",
    "evaluation.scoring": "evaluate most_doubtful",
    "evaluation.threshold_costs": "Costs",
    "methods.catalog": "method_of",
    "methods.stage_training": "advised load_stage require_trained",
    "methods.two_stage": "trained_segmentation untrained_segmentation",
    "notebook": "browse colab controls draw_labels judge_pictures label_effort operating_point"
    " outputs",
    "notebook.live": "watch_training",
    "notebook.progress": "watch_scoring",
    "pipeline": "train train_final",
    "reporting": "plots surface_pictures teaching_figures",
    "reporting.report": "make_figures make_report open_surfaces",
    "runs.open": "create home resume",
    "runs.prepare": "open_data prepare_data",
    "settings": "RULES",
    "training.batches": "Order Pasted Shown load_surfaces one_of_each",
    "training.loop": "read_history",
    "training.targets": "annotate probability soft_targets",
}
"""Room or module -> its modules or names that the notebooks use."""


def __getattr__(name: str) -> object:
    for place, names in FACE.items():
        if name in names.split():
            module = import_module(f"ksdd_lib.{place}")
            return getattr(module, name, None) or import_module(f"ksdd_lib.{place}.{name}")
    raise AttributeError(f"module 'ksdd_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *" ".join(FACE.values()).split()])
