"""Inference-time overrides (``--set``) of a checkpoint's recipe; changes of the architecture are rejected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxwright.checkpoints.checkpoint import Checkpoint, MisfitError, rebuild
from boxwright.config.input_check import check_eval_input
from boxwright.config.overlay import apply_overlays, parse_set
from boxwright.detectors.build import Build
from boxwright.detectors.contract.detector import Detector
from boxwright.structures import InputError

AT_TEST = ("detector", "data.eval", "data.pad_multiple", "data.proposals.most")
"""Options that act at inference. All others act in training only, or have a command-line option of their own."""


def rebuild_changed(
    checkpoint: Checkpoint,
    path: Path,
    sets: Sequence[str] = (),
    build: Build | None = None,
) -> tuple[Detector, Checkpoint]:
    """Build the detector of a checkpoint with overrides ``a.b=c`` of its recipe; return it and the changed checkpoint.

    Raises InputError for an option that acts in training only, for one that makes another network than the file's, and
    if the detector cannot take the images that the options make. The file is not changed.
    """
    if not sets:
        return rebuild(checkpoint, path, build), checkpoint
    for text in sets:
        key = text.partition("=")[0].strip()
        if not any(f"{key}.".startswith(f"{allowed}.") for allowed in AT_TEST):
            raise InputError(f"--set {text}: does not act at test; what does: {', '.join(AT_TEST)}")
        if key.startswith("data.proposals") and checkpoint.recipe.data.proposals is None:
            raise InputError(f"--set {text}: a {checkpoint.detector.kind} finds its own proposals; leave it out")
    recipe = apply_overlays(checkpoint.recipe, [parse_set(text) for text in sets])
    changed = checkpoint._replace(recipe=recipe, detector=recipe.detector)
    try:
        detector = rebuild(changed, path, build)
    except MisfitError:
        named = " ".join(f"--set {text}" for text in sets)
        raise InputError(f"{named}: makes another network than that of {path}; train it anew for that") from None
    check_eval_input(detector, recipe.data)
    return detector, changed
