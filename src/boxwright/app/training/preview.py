"""Preview of a run: everything that is decided before its first step, with nothing trained or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from boxwright.app.training.canvas import Size, canvas_text, evaluation_canvas, training_canvas
from boxwright.checkpoints.checkpoint import TRAIN_SUFFIX
from boxwright.config.config_tree import to_tree
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex
from boxwright.detectors.build import build_detector
from boxwright.training.distributed import processes
from boxwright.training.logging.run_folder import FILES, check_folder
from boxwright.training.loop import opener
from boxwright.training.plan import Plan
from boxwright.training.run import announcement, compare_files, open_session

VALIDATED = ("best.safetensors", "ap.png", "samples.jpg", "validation.csv")
"""Files that a run without validation does not write."""


@dataclass(frozen=True)
class Preview:
    """The plan of a run that is not started. ``lines``: what it would say before its first step.

    ``parameters`` and ``learning`` count values of the network and those that learn in its current stage; ``done`` are
    the steps of the run to resume. ``training_canvas`` and ``validation_canvas``: smallest and largest (height, width)
    of a batch, None if they are random or nothing is validated. ``files``: names in the run folder, with their content
    in words.
    """

    recipe: Recipe
    parameters: int
    learning: int
    images: int
    validation_images: int
    plan: Plan
    done: int
    training_canvas: tuple[Size, Size] | None
    validation_canvas: tuple[Size, Size] | None
    folder: Path
    files: dict[str, str]
    lines: list[str]

    def text(self) -> list[str]:
        """Return the preview as lines for people, without the recipe."""
        validated = canvas_text(self.validation_canvas) if self.validation_images else "none"
        every, metric = self.plan.validate_every, self.recipe.validation.metric
        return [
            *self.lines,
            f"input in pixels, height x width: training {canvas_text(self.training_canvas)}, validation {validated}",
            *([f"validated every {every} steps; {metric} decides which is best"] if self.validation_images else []),
            f"to be written into {self.folder}: {', '.join(self.files)}",
        ]

    def values(self) -> dict[str, Any]:
        """Return the preview as plain values for JSON."""
        plan = self.plan
        return {
            "recipe": to_tree(self.recipe),
            "parameters": self.parameters,
            "learning": self.learning,
            "images": {"train": self.images, "validation": self.validation_images},
            "steps": plan.total,
            "done": self.done,
            "epochs": plan.epoch(plan.total),
            "stages": [{"name": s.stage.name, "steps": s.steps} for s in plan.stages],
            "input": {"train": self.training_canvas, "validation": self.validation_canvas},
            "folder": str(self.folder),
            "files": self.files,
            "notes": self.lines,
        }


def preview(
    recipe: Recipe | None,
    train_index: DetectionIndex,
    val_index: DetectionIndex | None,
    output: Path | str,
    *,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    records: dict[str, str] | None = None,
    resume_command: str | None = None,
    **options: Any,
) -> Preview:
    """Open a run as :func:`~boxwright.training.loop.train` does, with the same arguments, and say what it would do.

    Network, weights and data are opened and checked, so that what the run would refuse is refused here. Nothing is
    written, and no step is taken. Raises InputError as ``train`` does.
    """
    output = Path(output)
    open_task = opener(recipe, train_index, val_index, output, resume=resume, **{"build": build_detector, **options})
    with processes(device) as joined:
        check_folder(output, resume)
        session = open_session(open_task, joined, output / f"last{TRAIN_SUFFIX}" if resume else None)
        try:
            if resume:
                compare_files(session, output, resume)
            found, model = cast(Recipe, session.recipe), session.model
            task = session.task
            files = {**task.files(), **FILES, "README.txt": "the commands to use and to resume the run"}
            if not task.validated:
                files = {name: text for name, text in files.items() if name not in VALIDATED}
            files |= {} if resume else dict.fromkeys(records or {}, "a record of the run")
            files |= {"tensorboard/": "a TensorBoard log"} if tensorboard else {}
            return Preview(
                recipe=found,
                parameters=sum(p.numel() for p in model.parameters()),
                learning=session.runner.learning,
                images=len(train_index),
                validation_images=0 if val_index is None else len(val_index),
                plan=session.plan,
                done=session.step,
                training_canvas=training_canvas(found.data, train_index),
                validation_canvas=None if val_index is None else evaluation_canvas(found.data, val_index),
                folder=output,
                files=files,
                lines=announcement(session, output),
            )
        finally:
            session.close()
