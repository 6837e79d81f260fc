"""Train Ultralytics' YOLO11n from random weights with Ultralytics' own trainer, and write its detections.

``benchmarks/peers.py`` runs this file with the Python of an environment that has ``ultralytics``, which is no
dependency of this project and never imported by it. The file imports nothing of ours. It reads a plan, a JSON file, and
writes its result beside it: seconds of the parts, and a COCO results file for each split.

Everything that Ultralytics would fetch, install or send is switched off, and its settings are kept in the folder of the
plan.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    plan = json.loads((folder / "plan.json").read_text())
    # Read when ultralytics is imported.
    os.environ |= {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(folder / "settings"),
        "MPLBACKEND": "agg",
    }
    os.chdir(folder)  # what it writes without a path goes here
    import torch
    import ultralytics
    from ultralytics import SETTINGS, YOLO

    SETTINGS.update({"sync": False, "runs_dir": str(folder / "runs"), "weights_dir": str(folder / "weights")})
    SETTINGS.update(dict.fromkeys(("clearml", "comet", "dvc", "mlflow", "raytune", "wandb", "tensorboard"), False))
    clock = Clock()
    model = YOLO("yolo11n.yaml")
    clock.listen(model)
    model.train(
        data=plan["data"],
        epochs=plan["epochs"],
        imgsz=plan["size"],
        batch=plan["batch"],
        seed=plan["seed"],
        pretrained=False,
        device="cpu",
        workers=0,
        plots=False,
        project=str(folder / "runs"),
        name="train",
        exist_ok=True,
    )
    result = {
        "ultralytics": ultralytics.__version__,
        "torch": torch.__version__,
        "seconds": time.time() - plan["started"],
        "train_seconds": clock.spent["train"],
        "val_seconds": clock.spent["val"],
        "validations": clock.validations,
    }
    best = folder / "runs" / "train" / "weights" / "best.pt"
    for split, target in plan["detections"].items():
        ids = json.loads(Path(plan["ids"][split]).read_text())
        found = detections(YOLO(best), plan, split)
        Path(target).write_text(json.dumps([renamed(row, ids) for row in found]))
    (folder / "result.json").write_text(json.dumps(result))


class Clock:
    """Seconds spent in epochs of training and in validation, from the trainer's callbacks."""

    def __init__(self) -> None:
        self.spent = {"train": 0.0, "val": 0.0}
        self.validations = 0
        self._since = 0.0

    def listen(self, model: Any) -> None:
        """Add the callbacks. The trainer calls those of validation during training too."""
        for part in self.spent:
            model.add_callback("on_train_epoch_start" if part == "train" else "on_val_start", self._start)
        model.add_callback("on_train_epoch_end", lambda _: self._stop("train"))
        model.add_callback("on_val_end", lambda _: self._stop("val"))

    def _start(self, _: Any) -> None:
        self._since = time.monotonic()

    def _stop(self, part: str) -> None:
        self.spent[part] += time.monotonic() - self._since
        self.validations += part == "val"


def detections(model: Any, plan: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """Return the detections of Ultralytics' own validation of a split, in its form of COCO results."""
    done = model.val(
        data=plan["data"],
        split=split,
        imgsz=plan["size"],
        batch=plan["batch"],
        device="cpu",
        workers=0,
        plots=False,
        save_json=True,
        project="runs",
        name=f"val-{split}",
        exist_ok=True,
    )
    return json.loads((Path(done.save_dir) / "predictions.json").read_text())


def renamed(row: dict[str, Any], ids: dict[str, Any]) -> dict[str, Any]:
    """Return a result with the data set's own ids.

    Ultralytics names an image by its file's stem, as a number if it is one, and counts classes from 1.
    """
    image_ids = ids["images"]
    stem = row.get("file_name", str(row["image_id"]))
    return {
        "image_id": image_ids[Path(stem).stem],
        "category_id": ids["categories"][row["category_id"] - 1],
        "bbox": row["bbox"],
        "score": row["score"],
    }


if __name__ == "__main__":
    main()
