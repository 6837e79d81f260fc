"""Text and plain values of a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boxwright.app.choice.candidate import Candidate, Choice, Task, epochs_of
from boxwright.app.choice.choose import run_seconds
from boxwright.app.choice.facts import DataFacts, MachineFacts
from boxwright.app.choice.sides import shape
from boxwright.io.durations import shown

CHOICE = "choice.json"
"""Name of the record of the choice in the run folder."""


def data_line(data: DataFacts) -> str:
    """Describe a training set in a line."""
    small, middle, large = (100 * data.object_sides[i] for i in (1, 2, 3))
    sides = "" if data.long_sides[0] == data.long_sides[-1] else f"{data.long_sides[0]:,} to "
    parts = [
        f"{_number(data.images, 'image')} of {sides}{data.long_sides[-1]:,} px",
        _number(data.classes, "class"),
        f"{_number(data.boxes, 'box')} with sides of {small:.0f} to {large:.0f} % of the image, half of them below "
        f"{middle:.0f} %",
        "masks" if data.masks else "no masks",
    ]
    if data.empty_share:
        parts.append(f"{100 * data.empty_share:.0f} % of the images without objects")
    return ", ".join(parts)


def machine_line(machine: MachineFacts) -> str:
    """Describe the machine in a line."""
    memory = "" if machine.memory is None else f", {machine.memory / 2**30:.1f} GB of memory"
    cores = f" and {machine.cores} cores of the processor" if machine.on_gpu else ""
    return f"{machine.name}{memory}{cores}"


def choice_lines(choice: Choice) -> list[str]:
    """Return the choice with a reason for each decision, and the remarks on the data."""
    decisions = choice.candidates[0].decisions
    widths = [max(len(row[i]) for row in decisions) for i in (0, 1)]
    lines = [f"  {d.what:<{widths[0]}}  {d.value:<{widths[1]}}  {d.reason}" for d in decisions]
    return [*lines, *(f"NOTE: {remark}" for remark in choice.remarks)]


def choice_report(choice: Choice, task: Task) -> list[str]:
    """Return the lines that a run begins with: data, machine and the choice."""
    lines = [f"data: {data_line(task.data)}", f"machine: {machine_line(task.machine)}"]
    return [*lines, f"chosen: {title(choice.candidates[0])}", *choice_lines(choice)]


def cost_line(candidate: Candidate, task: Task) -> str:
    """Return the costs of a candidate: times if they are measured, size and multiply-adds."""
    counted, times = candidate.counted, candidate.measured
    parts = [f"{counted.parameters / 1e6:.1f} M parameters", f"{counted.multiply_adds / 1e9:.1f} G multiply-adds"]
    if times is not None:
        total = run_seconds(task, candidate.recipe, times, epochs_of(candidate))
        parts = [f"about {shown(total)} of training", f"{shown(times.detect)} for an image in detect", *parts]
    return ", ".join(parts)


def title(candidate: Candidate) -> str:
    """Name a candidate with its input and its length."""
    return f"{candidate.recipe.name} at {shape(candidate.size)}, {epochs_of(candidate):g} epochs"


def recommendation_lines(choice: Choice, task: Task, commands: list[str]) -> list[str]:
    """Return the choice and the runners-up, each with its costs and the command that trains it."""
    first, *others = choice.candidates
    lines = [f"data: {data_line(task.data)}", f"machine: {machine_line(task.machine)}", ""]
    lines += [
        f"Recommended: {title(first)}",
        *choice_lines(choice),
        f"  {cost_line(first, task)}",
        f"    {commands[0]}",
    ]
    if others:
        lines += ["", "Runners-up:", *_table(others, task)]
        lines += ["", "Train one of them with:", *(f"  {command}" for command in commands[1:])]
    return lines


def _table(candidates: Sequence[Candidate], task: Task) -> list[str]:
    rows = [("detector", "input", "epochs", "training", "an image", "why not first")]
    for candidate in candidates:
        epochs, times = epochs_of(candidate), candidate.measured
        total = "" if times is None else shown(run_seconds(task, candidate.recipe, times, epochs))
        speed = "" if times is None else shown(times.detect)
        rows.append(
            (candidate.recipe.name, shape(candidate.size), f"{epochs:g}", total, speed, candidate.known.less_for)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def choice_dict(choice: Choice, task: Task, commands: list[str] | None = None) -> dict[str, Any]:
    """Return the choice as plain values for JSON: facts, candidates with their decisions and costs, remarks."""
    rows = [_candidate_dict(candidate, task) for candidate in choice.candidates]
    for row, command in zip(rows, commands or [], strict=False):
        row["command"] = command
    return {
        "data": task.data.to_dict(),
        "machine": task.machine.to_dict(),
        "validation_images": task.val_images,
        "candidates": rows,
        "remarks": list(choice.remarks),
    }


def _candidate_dict(candidate: Candidate, task: Task) -> dict[str, Any]:
    times = candidate.measured
    epochs = epochs_of(candidate)
    return {
        "recipe": candidate.recipe.name,
        "size": list(candidate.size),
        "epochs": epochs,
        "batch_size": candidate.recipe.batch_size,
        "decisions": [decision._asdict() for decision in candidate.decisions],
        "parameters": candidate.counted.parameters,
        "multiply_adds": candidate.counted.multiply_adds,
        "memory": candidate.counted.batch_bytes(candidate.recipe.batch_size),
        "training_seconds": None if times is None else round(run_seconds(task, candidate.recipe, times, epochs), 1),
        "latency_seconds": None if times is None else round(times.detect, 5),
        "against": candidate.known.less_for,
    }


def _number(count: int, what: str) -> str:
    plural = {"box": "boxes", "class": "classes"}.get(what, f"{what}s")
    return f"{count:,} {what if count == 1 else plural}"
