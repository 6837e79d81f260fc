"""Settings that a trained detector is used with, in place of its recipe's: what acts at test, never what it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxwright.checkpoints.checkpoint import Checkpoint, MisfitError, rebuild
from boxwright.config.input_check import check_eval_input
from boxwright.config.overlay import apply_overlays, parse_set
from boxwright.config.reading import check_recipe
from boxwright.detectors.build import Build
from boxwright.detectors.contract.detector import Detector
from boxwright.structures import InputError

AT_TEST = ("detector", "data.eval", "data.pad_multiple", "data.proposals.most")
"""What acts wherever a detector is used; everything else is of training, or of its own option (``--proposals``)."""


def rebuild_changed(
    checkpoint: Checkpoint,
    path: Path,
    sets: Sequence[str] = (),
    build: Build | None = None,
) -> tuple[Detector, Checkpoint]:
    """The detector of a checkpoint with other settings, ``a.b=c`` as ``boxwright train --set`` has them, and the
    checkpoint that says so.

    Raises InputError for a setting that acts in training alone, for one that makes another network than the file's,
    and where the detector cannot take the images that the settings make. The file stays as it is.
    """
    if not sets:
        return rebuild(checkpoint, path, build), checkpoint
    for text in sets:
        key = text.partition("=")[0].strip()
        if not any(f"{key}.".startswith(f"{allowed}.") for allowed in AT_TEST):
            raise InputError(f"--set {text}: does not act at test; what does: {', '.join(AT_TEST)}")
        if key.startswith("data.proposals") and checkpoint.recipe.data.proposals is None:
            raise InputError(f"--set {text}: a {checkpoint.detector.kind} finds its own proposals; leave it out")
    recipe = check_recipe(apply_overlays(checkpoint.recipe, [parse_set(text) for text in sets]))
    changed = checkpoint._replace(recipe=recipe, detector=recipe.detector)
    try:
        detector = rebuild(changed, path, build)
    except MisfitError:
        named = " ".join(f"--set {text}" for text in sets)
        raise InputError(f"{named}: makes another network than that of {path}; train it anew for that") from None
    check_eval_input(detector, recipe.data)
    return detector, changed
