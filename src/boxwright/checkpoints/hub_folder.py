"""Write and read a detector as a folder of the Hub: ``config.json``, ``model.safetensors`` and the card ``README.md``.

Recipe, class names and origin are read from ``config.json``, the file that a person sees and may edit, and not from the
header of the weights. ``model.safetensors`` alone is an ordinary checkpoint too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boxwright
from boxwright.checkpoints.checkpoint import FORMAT, Checkpoint, save_checkpoint
from boxwright.checkpoints.contents import check_meta, check_types, load_tensors, read_classes
from boxwright.checkpoints.hub_cache import CARD, CONFIG, WEIGHTS
from boxwright.checkpoints.model_card import model_card
from boxwright.config.bounds import check_bounds, shortened
from boxwright.config.config_tree import to_tree
from boxwright.config.reading import parse_json, recipe_from_tree
from boxwright.io.files import write_atomically, write_error
from boxwright.structures import Classes, InputError

LIBRARY = "boxwright"


def save_folder(checkpoint: Checkpoint, folder: Path, name: str, licence: str | None = None) -> Path:
    """Write the three files to ``folder``, which is created; existing files of these names are replaced.

    ``name``: title of the card. ``licence``: of the weights, in the Hub's abbreviation, such as "apache-2.0". Local
    paths are not written.
    """
    meta = _without_paths(checkpoint.meta)
    names = dict(enumerate(checkpoint.classes.names))
    config = {
        "library_name": LIBRARY,
        "library_version": boxwright.__version__,
        "format": FORMAT,
        "model_type": checkpoint.detector.kind,
        "id2label": {str(label): name for label, name in names.items()},
        "label2id": {name: label for label, name in names.items()},
        "category_ids": list(checkpoint.classes.ids),
        "recipe": to_tree(checkpoint.recipe),
        "meta": meta,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    save_checkpoint(folder / WEIGHTS, checkpoint.state, checkpoint.recipe, checkpoint.classes, meta)
    write_atomically(folder / CARD, model_card(checkpoint, meta, name, licence).encode())
    write_atomically(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False).encode())
    return folder


def load_folder(folder: Path) -> tuple[Checkpoint, Path]:
    """Load the checkpoint of such a folder; return it and the path of its weights. Raises InputError for others."""
    path, weights = folder / CONFIG, folder / WEIGHTS
    config = _read_config(path)
    if not weights.is_file():
        raise InputError(f"{folder}: has {CONFIG} but no {WEIGHTS}; copy the folder anew")
    state = load_tensors(weights, "copy it anew")
    recipe = recipe_from_tree(config["recipe"], lambda _: str(path), trained=True)
    return Checkpoint(recipe.detector, _read_classes(config, path), state, recipe, config["meta"]), weights


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    config = parse_json(text, f"{path}: cannot be read")
    check_bounds(config, lambda _: str(path))
    if not isinstance(config, dict) or config.get("library_name") != LIBRARY:
        kind = config.get("library_name") or config.get("model_type") if isinstance(config, dict) else None
        kind = shortened(str(kind), 80) if kind else None
        raise InputError(
            f"{path}: not a detector of Boxwright{f' but of {kind}' if kind else ''}; its library_name must be "
            f"{LIBRARY!r}"
        )
    check_types({"format": 0} | config, {"format": int}, str(path))
    if config.get("format", 0) > FORMAT:
        raise InputError(f"{path}: written by a later Boxwright (format {config['format']}); upgrade Boxwright")
    missing = [key for key in ("recipe", "id2label", "category_ids", "meta") if key not in config]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}")
    check_types(config, {"recipe": dict, "id2label": dict, "category_ids": list, "meta": dict}, str(path))
    check_meta(config["meta"], str(path))
    return config


def _read_classes(config: dict[str, Any], path: Path) -> Classes:
    labels, ids = config["id2label"], config["category_ids"]
    if set(labels) != {str(k) for k in range(len(labels))} or len(ids) != len(labels):
        raise InputError(
            f"{path}: id2label must name the labels 0 to {len(ids) - 1}, one for each of the {len(ids)} category_ids"
        )
    return read_classes([labels[str(k)] for k in range(len(labels))], ids, str(path))


def _without_paths(meta: dict[str, Any]) -> dict[str, Any]:
    """Return ``meta`` with the name of the data set's folder in place of its path."""
    data = meta.get("data")
    if isinstance(data, dict) and "root" in data:
        return {**meta, "data": {**data, "root": Path(data["root"]).name}}
    return dict(meta)
