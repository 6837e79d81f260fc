"""Detectors to and from folders and the Hugging Face Hub, by the names that its other libraries use."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from boxwright.checkpoints.checkpoint import Checkpoint, rebuild
from boxwright.checkpoints.hub_cache import (
    HUB_PREFIX,
    endpoint,
    fetch_repository,
    first_line,
    import_hub,
    library_errors,
    split_repository,
)
from boxwright.checkpoints.hub_folder import save_folder
from boxwright.checkpoints.opening import complete, open_checkpoint, recipe_of
from boxwright.detectors.contract.detector import Detector
from boxwright.io.environment import versions
from boxwright.structures import Classes, InputError
from boxwright.weights.common.imported import Imported

Model = Detector | Checkpoint | Path | str
"""A detector, or a checkpoint, or what names one: see :func:`~boxwright.checkpoints.opening.open_checkpoint`."""


def save_pretrained(model: Model, folder: Path | str, *, name: str | None = None, licence: str | None = None) -> Path:
    """Write ``model`` as a folder: ``config.json``, ``model.safetensors``, ``README.md``; the folder.

    ``name``: what the card calls it, default the folder's. ``licence``: of the weights, as the Hub abbreviates it, such
    as "apache-2.0"; None says that none is stated. The folder is a checkpoint for every command.
    """
    folder = Path(folder).expanduser()
    return save_folder(_checkpoint_of(model), folder, name or folder.resolve().name, licence)


def from_pretrained(
    source: Path | str,
    device: torch.device | str = "cpu",
    *,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    classes: Classes | Sequence[str] | None = None,
) -> Detector:
    """The detector in a folder or of a repository of the Hub, in eval mode.

    ``source``: a path, whose folder needs no package of the Hub, or ``owner/name``, with or without ``hf:`` before it,
    which is downloaded unless it is here or ``local_files_only`` forbids it. ``revision``: a branch, tag or commit.
    ``token``: for private repositories. All else that names a checkpoint is taken too, with ``classes`` as
    :func:`~boxwright.checkpoints.opening.open_checkpoint` has them.
    """
    text = str(source)
    if not Path(source).expanduser().exists() and _is_repository(text):
        owner_name, inner = split_repository(text)
        chosen = revision or inner
        text = f"{HUB_PREFIX}{owner_name}{f'@{chosen}' if chosen else ''}"
        source = text if local_files_only else fetch_repository(text, token)
    elif revision is not None:
        raise InputError(f"{source}: a path has no revision {revision!r}; leave it out")
    checkpoint, path = open_checkpoint(source, classes)
    return rebuild(checkpoint, path).to(device).detect_with("fp32")


def push_to_hub(
    model: Model,
    repository: str,
    *,
    licence: str | None = None,
    private: bool | None = None,
    message: str | None = None,
    token: str | None = None,
    api: Any = None,
) -> str:
    """Upload ``model`` to the repository ``owner/name``, which is made if need be; the address of its page.

    ``private``: whether a new repository can be seen by its owner only; None leaves that to the Hub. ``message``: of
    the commit. ``api``: a ``huggingface_hub.HfApi`` of one's own.
    """
    name, revision = split_repository(repository)
    if revision is not None:
        raise InputError(f"{repository}: leave the revision out; a new commit goes to the main branch")
    checkpoint = _checkpoint_of(model)
    hub = import_hub(repository) if api is None else None
    api = hub.HfApi(endpoint=endpoint(), token=token, library_name="boxwright") if hub is not None else api
    with tempfile.TemporaryDirectory() as folder:
        save_folder(checkpoint, Path(folder), name, licence)
        try:
            address = api.create_repo(name, repo_type="model", private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                repo_type="model",
                commit_message=message or f"Upload {checkpoint.recipe.name}",
            )
        except (OSError, *library_errors()) as error:
            # All answers of the Hub that say no are OSErrors.
            refused = isinstance(error, OSError) and not isinstance(error, ConnectionError)
            remedy = "`hf auth login`, or HF_TOKEN, gives this machine the right to write"
            what = f"{first_line(error)}; {remedy}" if refused else f"the Hub cannot be reached ({first_line(error)})"
            raise InputError(f"{HUB_PREFIX}{name}: not uploaded: {what}") from error
    return str(address)


def _is_repository(text: str) -> bool:
    if text.startswith(HUB_PREFIX):
        return True
    try:
        split_repository(text)
    except InputError:
        return False
    return not text.startswith((".", "/")) and Path(text).suffix not in {".safetensors", ".pth", ".pkl", ".weights"}


def _checkpoint_of(model: Model) -> Checkpoint:
    if isinstance(model, Checkpoint):
        return model
    if isinstance(model, Path | str):
        return complete(open_checkpoint(model))
    state, classes, prepared = model.state_dict(), model.classes, model.preparation
    name = model.config.kind
    recipe = recipe_of(Imported(name, model.config, classes, state, prepared.transforms, prepared.pad_multiple))
    checkpoint = Checkpoint(model.config, model.classes, state, recipe, {"versions": versions()})
    try:
        rebuild(checkpoint, "this detector")
    except InputError as error:
        raise InputError(
            "this detector was changed for speed (`optimised`), or by hand, and cannot be saved; save the one before"
        ) from error
    return checkpoint
