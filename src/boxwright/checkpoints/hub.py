"""Save, load and push detectors by functions of the names that are usual on the Hugging Face Hub."""

from __future__ import annotations

import os
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
"""A detector, a checkpoint, or the path or name of one, see :func:`~boxwright.checkpoints.opening.open_checkpoint`."""


def save_pretrained(model: Model, folder: Path | str, *, name: str | None = None, licence: str | None = None) -> Path:
    """Write ``model`` to ``folder`` as ``config.json``, ``model.safetensors`` and ``README.md``; return the folder.

    ``name``: title of the model card, by default the folder's name. ``licence``: of the weights, in the Hub's
    abbreviation, such as "apache-2.0"; with None the card says that none is stated. Every command takes the folder as
    a checkpoint.
    """
    folder = Path(os.path.expanduser(folder))
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
    """Load the detector from a folder or a repository of the Hub, in eval mode.

    ``source``: a folder, for which huggingface_hub is not needed, or ``owner/name`` with or without the prefix ``hf:``,
    or any other source and ``classes`` that :func:`~boxwright.checkpoints.opening.open_checkpoint` takes. A repository
    that is not in the cache is downloaded, unless ``local_files_only``. ``revision``: a branch, tag or commit.
    ``token``: for private repositories.
    """
    text = str(source)
    if not Path(os.path.expanduser(source)).exists() and _is_repository(text):
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
    """Upload ``model`` to the repository ``owner/name``, created if it does not exist; return the URL of its page.

    ``private``: create a private repository; None for the Hub's default. ``message``: of the commit. ``api``: the
    ``huggingface_hub.HfApi`` to use in place of a new one. Raises InputError if the upload fails.
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
            # Every refusal by the Hub is an OSError.
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
