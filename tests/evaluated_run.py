"""A run folder as training and evaluation leave it, without either."""

import json
from dataclasses import replace

import numpy as np
from small_results import make_rows
from small_results import train_items as items_in_training

from ksdd_lib import settings_io, storage
from ksdd_lib.evaluation.predictions import write_masks, write_predictions
from ksdd_lib.evaluation.results import made_from
from ksdd_lib.evaluation.summary import conclude
from ksdd_lib.settings import Settings

SHAPE = 128, 64


def make_run(
    folder,
    folds=(0, 1, 2),
    separation=2.0,
    with_defects=True,
    rename=str,
    generated=True,
    settings=None,
    **data,
):
    """A run folder of about 60 surfaces over three folds, as training and evaluation leave it."""
    random = np.random.default_rng(7)
    settings = settings or Settings(threshold="best_f1")
    rows = make_rows(60, 3, settings.seed, separation, with_defects, rename)
    rows = [replace(row, map_score=row.score - 1) for row in rows]
    train_items = items_in_training(rows)
    record = {
        "protocol": "clean",
        "folds": [
            {"fold": k, "train_items": sorted(items), "test_items": []}
            for k, items in train_items.items()
        ],
    }
    rows = [row for row in rows if row.fold in folds]
    protocol = data.get("protocol", "clean")
    rows, summary = conclude(rows, protocol, settings.seed, train_items, rule=settings.threshold)
    write_predictions(folder / "predictions.csv", rows)
    masks = random.normal(-4, 1, (len(rows), SHAPE[0] // 8, SHAPE[1] // 8))
    named = {row.image: mask for row, mask in zip(rows, masks, strict=True)}
    write_masks(folder / "masks.npz", named)
    fingerprint = make_data(generated, **data)["fingerprint"]
    origin = {
        "made_from": made_from(settings, fingerprint, {str(fold): "0" * 64 for fold in folds}),
        "masks_sha256": storage.sha256(folder / "masks.npz"),
    }
    storage.write_record(folder / "metrics.json", summary.model_copy(update=origin))
    storage.write_json(folder / "folds.json", record)
    storage.write_json(folder / "settings.json", settings_io.to_json(settings))
    storage.write_json(folder / "data.json", make_data(generated, **data))
    storage.write_json(folder / "environment.json", {"python": "3.11.9", "gpu": "none"})
    storage.write_json(folder / "timing.json", [{"what": "decision fold 0", "seconds": 83.2}])
    for fold in folds:
        for stage in ("segmentation", "decision"):
            history = [{"step": s, "loss": 1 / s, "lr": 0.1, "seconds": s} for s in range(1, 20)]
            lines = "".join(json.dumps(row) + "\n" for row in history)
            storage.write_text(folder / f"fold{fold}" / f"{stage}.jsonl", lines)
    return folder


def make_data(
    generated=True, kolektor=False, name="gen", protocol="clean", leaked=0, fingerprint="f" * 64
):
    total = {
        "test_items": 15,
        "test_images": 60,
        "test_defective": 15,
        "leaked_images": leaked,
        "leaked_defective": leaked // 4,
    }
    common = {
        "name": name,
        "fingerprint": fingerprint,
        "is_generated": generated,
        "is_kolektor": kolektor,
        "is_published_archive": False,
        "archive_sha256": None,
    }
    counts = {
        "origin": "made here",
        "images": 60,
        "defective": 15,
        "items": 15,
        "sizes": {"different": 1, "height": [128, 128], "width": [64, 64]},
        "duplicates": [],
        "unreadable": [],
        "ignored": [],
        "twins": [],
        "folds": {protocol: {"folds": [], "total": total}},
    }
    return common | {"place": "../data", "report": common | counts}


def read_pair(name):
    random = np.random.default_rng(len(name))
    mask = np.zeros(SHAPE, bool)
    mask[40:44, 10:40] = "Part3" in name
    return random.integers(90, 150, SHAPE).astype(np.uint8), mask
