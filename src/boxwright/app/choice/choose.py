"""Choose recipes for a data set and a machine by the rules of :mod:`boxwright.app.choice.table`.

The choice depends on the data, the device, its memory and the number of cores, and on no random number. It depends on
measured times only if a budget or a latency is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from boxwright.app.choice import table
from boxwright.app.choice.anchors import fit_anchors
from boxwright.app.choice.candidate import Candidate, Choice, Decision, NoRoomError, Task, Wishes, epochs_of
from boxwright.app.choice.costs import Measured, count
from boxwright.app.choice.remarks import remarks
from boxwright.app.choice.sides import choose_size, object_pixels, on_canvas, shape, smaller_sizes
from boxwright.app.choice.table import DETECTORS, LENGTHS, Known
from boxwright.app.models.counting import input_size
from boxwright.app.training.request_recipe import with_batch_size, with_epochs
from boxwright.backbones.count import built_of_shapes
from boxwright.backbones.efficientnet_lite import EfficientNetLiteConfig
from boxwright.config.recipe import Recipe, Stage
from boxwright.data.transforms.configs import FlipConfig
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.io.durations import as_option, shown
from boxwright.structures import InputError

Measure = Callable[[Recipe], Measured]


def choose(task: Task, wishes: Wishes, measure: Measure, most: int = 1) -> Choice:
    """Return up to ``most`` candidates, the choice first.

    ``measure`` times a recipe; it is called only if a budget or a latency is asked for. Raises InputError if no
    candidate keeps within them, or within the memory.
    """
    found: list[Candidate] = []
    refused: list[InputError] = []
    too_slow: list[tuple[Candidate, Measured]] = []
    too_long: list[tuple[Candidate, Measured]] = []
    for known, reason in ranked(task, wishes):
        if len(found) == most:
            break
        best: Candidate | None = None
        try:
            for candidate in _by_size(task, wishes, known, reason):
                if wishes.latency is None and wishes.budget is None:
                    found.append(candidate)
                    break
                times = measure(candidate.recipe)
                if wishes.latency is not None and times.detect > wishes.latency:
                    too_slow.append((candidate, times))
                    continue
                fitted = within_budget(task, wishes, candidate, times)
                if fitted is None:
                    too_long.append((candidate, times))
                elif best is None or epochs_of(fitted) > epochs_of(best):
                    best = fitted
                if best is not None and (wishes.budget is None or epochs_of(best) >= table.ENOUGH):
                    break
            if best is not None:
                found.append(best)
        except InputError as error:  # too little memory, or a size that this detector does not take
            refused.append(error)
    if not found:
        raise _nothing_fits(task, wishes, too_slow, too_long) or refused[0]
    return Choice(candidates=tuple(found), remarks=tuple(remarks(task, found[0])))


def ranked(task: Task, wishes: Wishes) -> list[tuple[Known, str]]:
    """Return the detectors that suit the data in order of preference, each with a sentence on why it is there."""
    data = task.data
    suitable = [known for known in DETECTORS if data.masks or not known.masks]
    size = choose_size(task, wishes, suitable[0])[0]
    small = object_pixels(task.index, size, 0.1)
    tiny = small < table.TINY_SIDE
    many = data.classes > table.MANY_CLASSES
    # Stable: the order of the table decides between equals.
    suitable.sort(key=lambda k: (not k.masks, many and k.dense_classes, tiny and not k.small_objects))
    reasons = []
    for known in suitable:
        if known.masks:
            reason = "every object has a mask: it gives masks and boxes"
        elif many and not known.dense_classes:
            reason = f"{data.classes:,} classes: its cost hardly grows with them"
        elif tiny and known.small_objects:
            reason = f"it {known.good_for}, and sees a map of stride 4: a tenth of the objects is below {small:.0f} px"
        else:
            reason = f"it {known.good_for}"
        reasons.append(reason)
    return list(zip(suitable, reasons, strict=True))


def _by_size(task: Task, wishes: Wishes, known: Known, reason: str) -> Iterator[Candidate]:
    """Return a detector's candidates, from the side that suits the objects to smaller ones that cost less."""
    size, why = choose_size(task, wishes, known)
    refused: NoRoomError | None = None
    for number, smaller in enumerate(smaller_sizes(task.index, task.machine, wishes, known, size)):
        limits = [text for text, limit in (("memory", refused), ("time", wishes.budget or wishes.latency)) if limit]
        cut = f"where {shape(size)} would suit the objects, for want of {' or '.join(limits)}"
        try:
            yield build(task, wishes, known, reason, smaller, why if number == 0 else cut)
        except NoRoomError as error:
            refused = error
        else:
            if wishes.budget is None and wishes.latency is None:
                return
    if refused is not None:
        raise refused


def build(task: Task, wishes: Wishes, known: Known, reason: str, size: tuple[int, int], why_size: str) -> Candidate:
    """Return the candidate of a detector at an input of ``size``. Raises NoRoomError if the memory is too small."""
    machine = task.machine
    base = known.base
    decisions = [Decision("detector", known.recipe, reason)]
    decisions.append(Decision("start", base.backbone_weights or "random weights", _start_reason(base, wishes)))
    recipe = on_canvas(base, size)
    check_size(recipe, task)
    decisions.append(Decision("input size", shape(size), why_size))
    recipe = _with_frozen(recipe, task, wishes, decisions)

    fit = fit_anchors(recipe, task.index)
    recipe = fit.recipe
    if fit.recall is not None and fit.before is not None:
        share = f"{100 * fit.before:.0f} % of the boxes have an anchor of their shape (IoU 0.5)"
        if fit.changed:
            decisions.append(
                Decision(
                    "anchors", "fitted to the data", f"with the recipe's only {share}, now {100 * fit.recall:.0f} %"
                )
            )
        else:
            decisions.append(Decision("anchors", "the recipe's", share))

    recipe = _with_precision(recipe, task, decisions)
    recipe = _with_batch(recipe, task, wishes, decisions)
    recipe = _with_length(recipe, task, wishes, decisions)
    recipe = _with_augmentation(recipe, task, decisions)
    workers = min(8, machine.cores) if machine.on_gpu else max(1, min(recipe.data.workers, machine.cores - 1))
    recipe = wishes.changed(replace(recipe, data=replace(recipe.data, workers=workers)))
    return Candidate(
        recipe=recipe,
        known=known,
        size=input_size(recipe),
        decisions=_as_given(decisions, recipe, wishes),
        counted=count(recipe, task.index),
        anchors=fit,
    )


def check_size(recipe: Recipe, task: Task) -> None:
    """Raise InputError if the detector does not take images of the size that ``recipe`` makes."""
    detector = built_of_shapes(lambda: build_detector(recipe.detector, task.index.classes))
    detector.check_input(*input_size(recipe), f"the input of {recipe.name}")


def _start_reason(recipe: Recipe, wishes: Wishes) -> str:
    if wishes.start is not None:
        return f"replaced by {wishes.start}"
    return (
        "weights trained on ImageNet are installed with Boxwright" if recipe.backbone_weights else "no other is there"
    )


def _with_frozen(recipe: Recipe, task: Task, wishes: Wishes, decisions: list[Decision]) -> Recipe:
    """Keep the first stages of a trained backbone as they are, on a CPU and for few images; else let all learn."""
    if not isinstance(getattr(recipe.detector, "backbone", None), EfficientNetLiteConfig):
        return recipe
    if wishes.untrained:
        return _frozen_to(0, recipe)
    if task.machine.on_gpu or task.data.images >= table.FREEZE_BELOW:
        why = "a GPU has the time" if task.machine.on_gpu else f"{task.data.images:,} images are enough for it"
        decisions.append(Decision("backbone", "all stages learn", why))
        return _frozen_to(0, recipe)
    why = "they are general, and cost the most time of a step"
    decisions.append(Decision("backbone", f"stages to C{table.FREEZE_AT} are kept", why))
    return _frozen_to(table.FREEZE_AT, recipe)


def _frozen_to(stage: int, recipe: Recipe) -> Recipe:
    config = cast(Any, recipe.detector)
    backbone = replace(config.backbone, freeze_at=stage)
    return replace(recipe, detector=cast("DetectorConfig", replace(config, backbone=backbone)))


def _as_given(decisions: Sequence[Decision], recipe: Recipe, wishes: Wishes) -> tuple[Decision, ...]:
    """Return the decisions with the values of ``recipe``, where settings that the user gives have replaced them."""
    stage = next((stage for stage in recipe.stages if isinstance(stage, Stage)), None)
    values = {"batch size": str(recipe.batch_size), "input size": shape(input_size(recipe))}
    if stage is not None and stage.unit == "epochs":
        values["epochs"] = f"{stage.length:g}"
    rows = [
        d if values.get(d.what, d.value) == d.value else Decision(d.what, values[d.what], "as your settings say")
        for d in decisions
        if d.what != "given"
    ]
    return (
        (*rows, Decision("given", wishes.given, "your own settings, which come before these"))
        if wishes.given
        else tuple(rows)
    )


def _with_precision(recipe: Recipe, task: Task, decisions: list[Decision]) -> Recipe:
    if task.machine.on_gpu and task.machine.bf16:
        decisions.append(
            Decision("precision", "bf16", f"{task.machine.name} computes it faster and in half the memory")
        )
        return replace(recipe, precision="bf16")
    why = "this GPU has no instructions for bf16" if task.machine.on_gpu else "the exact one; bf16 is for GPUs"
    decisions.append(Decision("precision", "fp32", why))
    return recipe


def _with_batch(recipe: Recipe, task: Task, wishes: Wishes, decisions: list[Decision]) -> Recipe:
    """Set the images of a step: those of the device, fewer for few images or little memory."""
    images, memory = task.data.images, task.machine.memory
    batch = wanted = wishes.batch_size or table.BATCH["gpu" if task.machine.on_gpu else "cpu"]
    why = "as --batch-size says" if wishes.batch_size else f"usual on a {'GPU' if task.machine.on_gpu else 'CPU'}"
    while wishes.batch_size is None and batch > 2 and images < table.LEAST_STEPS * batch:
        batch //= 2
        why = f"{images} images make few steps an epoch otherwise"
    counted = count(recipe, task.index)
    room = None if memory is None else int(table.MEMORY_SHARE * memory)
    while wishes.batch_size is None and batch > 1 and room is not None and counted.batch_bytes(batch) > room:
        batch //= 2
        why = f"as many as fit: {wanted} would take {_gigabytes(counted.batch_bytes(wanted))} of {_gigabytes(room)}"
    if room is not None and counted.batch_bytes(batch) > room:
        remedy = "a smaller --batch-size" if wishes.batch_size else "a smaller --size, or another machine"
        raise NoRoomError(
            f"{recipe.name} needs about {_gigabytes(counted.batch_bytes(batch))} of memory to train on {batch} image"
            f"{'s' if batch > 1 else ''} at a time, and {task.machine.name} has {_gigabytes(room)} to spare; give "
            f"{remedy}"
        )
    decisions.append(Decision("batch size", str(batch), why))
    return with_batch_size(recipe, batch)


def _with_length(recipe: Recipe, task: Task, wishes: Wishes, decisions: list[Decision]) -> Recipe:
    length = LENGTHS["gpu" if task.machine.on_gpu else "cpu"][wishes.effort]
    if wishes.epochs is not None:
        decisions.append(Decision("epochs", f"{wishes.epochs:g}", "as --epochs says"))
        return lengthened(recipe, wishes.epochs)
    wanted = round(length.seen / task.data.images)
    epochs = min(length.most, max(length.least, wanted))
    why = f"{length.seen:,} images seen is the aim of effort {wishes.effort}"
    if wanted > epochs:
        why = (
            f"the most for a set of {task.data.images:,} images with effort {wishes.effort}, which more would wear out"
        )
    elif wanted < epochs:
        why = f"the least with effort {wishes.effort}, whatever the number of images"
    decisions.append(Decision("epochs", str(epochs), why))
    return lengthened(recipe, epochs)


def lengthened(recipe: Recipe, epochs: float) -> Recipe:
    """Set the length of a recipe, with validations at even intervals of whole epochs."""
    every = max(1.0, float(epochs // table.VALIDATIONS))
    return replace(with_epochs(recipe, epochs), validation=replace(recipe.validation, every=every, unit="epochs"))


def _with_augmentation(recipe: Recipe, task: Task, decisions: list[Decision]) -> Recipe:
    names = [transform.kind.replace("_", " ") for transform in recipe.data.train]
    if task.data.directed is None:
        decisions.append(Decision("augmentation", ", ".join(names), "the recipe's"))
        return recipe
    train = tuple(replace(t, p=0.0) if isinstance(t, FlipConfig) else t for t in recipe.data.train)
    kept = [name for name in names if name != "flip"]
    why = f"no mirror images, which would turn a {task.data.directed!r} into its opposite"
    decisions.append(Decision("augmentation", ", ".join(kept), why))
    return replace(recipe, data=replace(recipe.data, train=train))


def within_budget(task: Task, wishes: Wishes, candidate: Candidate, times: Measured) -> Candidate | None:
    """Return the candidate with as many epochs as the budget has time for; None if that is too few to learn from."""
    candidate = replace(candidate, measured=times)
    if wishes.budget is None:
        return candidate
    lengths = LENGTHS["gpu" if task.machine.on_gpu else "cpu"]
    most = lengths[wishes.effort if wishes.effort_given else "best"].most
    fitting = [e for e in table.EPOCHS if e <= most and run_seconds(task, candidate.recipe, times, e) <= wishes.budget]
    epochs = max(fitting, default=0)
    if epochs < lengths["quick"].least:
        return None
    rest = "" if epochs < most else "; more would wear out the data, so time is left"
    why = f"as many as {shown(wishes.budget)} have time for at the measured speed{rest}"
    decisions = [Decision("epochs", str(epochs), why) if d.what == "epochs" else d for d in candidate.decisions]
    recipe = wishes.changed(lengthened(candidate.recipe, epochs))
    return replace(candidate, recipe=recipe, decisions=_as_given(decisions, recipe, wishes))


def run_seconds(task: Task, recipe: Recipe, times: Measured, epochs: float) -> float:
    """Return the time of a run of ``epochs`` with its validations."""
    every = max(1.0, float(epochs // table.VALIDATIONS))
    validations = -(-epochs // every) if task.val_images else 0
    return table.START_SECONDS + times.training(task.data.images, epochs, task.val_images, validations)


def _nothing_fits(
    task: Task,
    wishes: Wishes,
    too_slow: list[tuple[Candidate, Measured]],
    too_long: list[tuple[Candidate, Measured]],
) -> InputError | None:
    """Return the error that says what the least costly candidate needs; None if times decided nothing."""
    least = LENGTHS["gpu" if task.machine.on_gpu else "cpu"]["quick"].least
    if too_long and wishes.budget is not None:
        needed, candidate = min(
            ((run_seconds(task, c.recipe, times, least), c) for c, times in too_long), key=lambda pair: pair[0]
        )
        return InputError(
            f"--budget {shown(wishes.budget)}: {least} epochs, the least to learn from, of {candidate.recipe.name} at "
            f"{shape(candidate.size)} take about {shown(needed)} on {task.machine.name}; give at least "
            f"{as_option(needed * 1.1)}, or train on fewer images"
        )
    if too_slow and wishes.latency is not None:
        candidate, times = min(too_slow, key=lambda pair: pair[1].detect)
        return InputError(
            f"--latency {shown(wishes.latency)}: the fastest candidate, {candidate.recipe.name} at "
            f"{shape(candidate.size)}, takes {shown(times.detect)} for an image on {task.machine.name}; give at least "
            f"{as_option(times.detect * 1.1)}, or a GPU"
        )
    return None


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"
