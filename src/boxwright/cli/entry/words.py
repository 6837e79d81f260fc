"""Words that people type and that are read as something else: old names of options, words of other programs.

An option has one name in all commands. What it was called before is still read, with a remark on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

RENAMED: dict[str, dict[str, str]] = {
    "data convert": {"--to": "--format"},
    "weights export": {"--to": "--format"},
    "weights fetch": {"--to": "--output"},
    "train": {"--out": "--output"},
    "pretrain": {"--out": "--output"},
    "proposals": {"--out": "--output"},
    "detect": {"--out": "--output"},
    "demo": {"--out": "--output"},
    "data show": {"--out": "--output"},
    "weights convert": {"--out": "--output"},
}
"""Earlier names of options by command. Both forms are read, ``--to coco`` and ``--to=coco``."""

OTHER_COMMANDS: dict[str, str] = {
    "predict": "boxwright detect",
    "prediction": "boxwright detect",
    "infer": "boxwright detect",
    "inference": "boxwright detect",
    "run": "boxwright detect",
    "track": "boxwright detect",
    "val": "boxwright evaluate",
    "valid": "boxwright evaluate",
    "validate": "boxwright evaluate",
    "validation": "boxwright evaluate",
    "eval": "boxwright evaluate",
    "test": "boxwright evaluate",
    "score": "boxwright evaluate",
    "fit": "boxwright train",
    "finetune": "boxwright train RECIPE --weights CHECKPOINT",
    "fine-tune": "boxwright train RECIPE --weights CHECKPOINT",
    "resume": "boxwright train --resume RUN",
    "list": "boxwright models",
    "zoo": "boxwright models",
    "recipes": "boxwright models",
    "backbones": "boxwright models --kind backbone",
    "config": "boxwright models",
    "convert": "boxwright data convert` or `boxwright weights convert",
    "export": "boxwright weights export",
    "benchmark": "boxwright models` for the cost of detectors or `boxwright evaluate` for their accuracy",
    "check": "boxwright data check",
    "show": "boxwright data show` or `boxwright weights show",
    "visualize": "boxwright data show",
    "anchors": "boxwright data anchors",
    "scenes": "boxwright data scenes",
    "dataset": "boxwright data",
    "datasets": "boxwright data",
    "download": "boxwright weights fetch",
    "fetch": "boxwright weights fetch",
    "push": "boxwright weights push",
    "upload": "boxwright weights push",
    "checks": "boxwright env",
    "doctor": "boxwright env",
    "info": "boxwright env",
    "settings": "boxwright env",
    "example": "boxwright demo",
    "data validate": "boxwright data check",
    "data verify": "boxwright data check",
    "data stats": "boxwright data check",
    "data view": "boxwright data show",
    "data visualize": "boxwright data show",
    "data export": "boxwright data convert",
    "weights download": "boxwright weights fetch",
    "weights pull": "boxwright weights fetch",
    "weights info": "boxwright weights show",
    "weights import": "boxwright weights convert",
    "weights upload": "boxwright weights push",
}
"""Names of commands in other programs, and the command here."""

SIZE = "--set, for a setting of the recipe such as 'data.eval.0.size=[640, 640]'"
OTHER_OPTIONS: dict[str, tuple[str, ...]] = {
    "batch": ("--batch-size", "--set batch_size=8"),
    "batch-size": ("--batch-size", "--set batch_size=8"),
    "early-stopping-patience": ("--patience",),
    "checkpoint": ("CHECKPOINT", "--weights"),
    "ckpt": ("CHECKPOINT", "--weights"),
    "cfg": ("--config",),
    "class-names": ("--classes",),
    "conf": ("--threshold",),
    "conf-thres": ("--threshold",),
    "confidence": ("--threshold",),
    "data-dir": ("--data",),
    "data-path": ("--data",),
    "dataset": ("--data",),
    "fp16": ("--precision fp16",),
    "gpu": ("--device cuda",),
    "gpus": ("--device cuda",),
    "half": ("--precision fp16",),
    "images": ("SOURCES",),
    "img": (SIZE,),
    "img-size": (SIZE,),
    "imgsz": (SIZE,),
    "input": ("SOURCES", "--data"),
    "iou": ("--set, for a setting of the recipe such as detector.head.post.nms_iou=0.6",),
    "learning-rate": ("--lr", "--set optimiser.lr=0.01"),
    "lr": ("--lr", "--set optimiser.lr=0.01"),
    "lr0": ("--lr", "--set optimiser.lr=0.01"),
    "max-epochs": ("--epochs",),
    "model": ("CHECKPOINT", "RECIPE", "BACKBONE"),
    "name": ("--output",),
    "num-workers": ("--workers",),
    "out-dir": ("--output",),
    "outdir": ("--output",),
    "output-dir": ("--output",),
    "pretrained": ("--weights",),
    "project": ("--output",),
    "save-dir": ("--output",),
    "score-thr": ("--threshold",),
    "source": ("SOURCES",),
    "subset": ("--split",),
    "vid-stride": ("--every",),
    "weights": ("CHECKPOINT", "--weights"),
    "work-dir": ("--output",),
}
"""Options of other programs, and what serves here: the first of these that the command has."""

OTHER_TRAINING_OPTIONS: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("img", "img-size", "imgsz", "image-size"), ("--size",)
)
"""The same of commands that train: there ``--size`` is for every recipe, elsewhere for files of other programs."""


def read_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line as the parser takes them.

    ``version``, ``help`` and ``help train`` become options; options are renamed by `RENAMED`, with a remark on stderr.
    """
    words = list(words)
    if words == ["version"]:
        return ["--version"]
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    old_names = RENAMED.get(" ".join(words[:2])) or RENAMED.get(" ".join(words[:1]), {})
    end = words.index("--") if "--" in words else len(words)
    for place, word in enumerate(words[:end]):
        name, sign, value = word.partition("=")
        if (new := old_names.get(name)) is not None:
            print(f"note: {name} is now called {new}", file=sys.stderr)
            words[place] = new + sign + value
    return words


def assignments(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the words of the form ``key=value`` that stand alone, as other programs write options.

    Values of options, such as ``--set a=b``, and files of such a name are none.
    """
    found = []
    for before, word in zip(["", *words], words, strict=False):
        key, sign, value = word.partition("=")
        if sign and key.replace("_", "").isalnum() and key.islower() and not before.startswith("-"):
            found += [] if Path(word).exists() else [(key, value)]
    return found
