"""Repositories of the Hugging Face Hub as folders on this machine, behind the extra ``hub``.

``hf:owner/name``, or ``hf:owner/name@revision`` for a branch, tag or commit. Files lie in the Hub's own cache, which
other programs share; ``HF_HOME`` moves it and ``HF_ENDPOINT`` names another server. Two files are read, neither of
which can run anything: ``config.json`` and ``model.safetensors``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from boxwright.structures import InputError

HUB_PREFIX = "hf:"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"

_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def split_repository(text: str) -> tuple[str, str | None]:
    """``owner/name`` and revision of ``hf:owner/name@revision``, the prefix being optional."""
    found = _NAME.fullmatch(text.removeprefix(HUB_PREFIX))
    if found is None:
        raise InputError(f"{text}: no repository of the Hub; write hf:owner/name, or hf:owner/name@revision")
    return found[1], found[2]


def require_repository(text: str) -> Path:
    """The repository's folder in the cache. InputError with the command that fetches it where it is absent."""
    return _files(text, local=True, token=None)


def fetch_repository(text: str, token: str | None = None) -> Path:
    """Download the repository's configuration and weights; their folder. What is here already is only checked.

    ``token``: for private repositories; None takes what ``hf auth login`` or ``HF_TOKEN`` left.
    """
    return _files(text, local=False, token=token)


def import_hub(what: str) -> Any:
    """The package ``huggingface_hub``. InputError with the command that installs it, for ``what``."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise InputError(
            f"{what}: the Hugging Face Hub needs the package huggingface_hub; run `pip install 'boxwright[hub]'`"
        ) from None
    return huggingface_hub


def library_errors() -> tuple[type[BaseException], ...]:
    """What the library below ``huggingface_hub`` raises where no server answers; nothing without the package."""
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return ()
    return HfHubHTTPError.__bases__  # that library's own error (httpx, requests in earlier versions), and OSError


def endpoint() -> str | None:
    """The server, where ``HF_ENDPOINT`` names one."""
    return os.environ.get("HF_ENDPOINT") or None


def _files(text: str, local: bool, token: str | None) -> Path:
    name, revision = split_repository(text)
    hub = import_hub(text)
    errors = hub.errors
    shown = f"{HUB_PREFIX}{name}{f'@{revision}' if revision else ''}"
    path = Path()
    for file in (CONFIG, WEIGHTS):
        try:
            path = Path(
                hub.hf_hub_download(
                    name,
                    file,
                    revision=revision,
                    endpoint=endpoint(),
                    token=token,
                    local_files_only=local,
                    library_name="boxwright",
                )
            )
        except errors.GatedRepoError:
            raise InputError(
                f"{shown}: its owner hands it out on request only; ask on its page, then run `hf auth login`"
            ) from None
        except errors.RepositoryNotFoundError:
            raise InputError(
                f"{shown}: there is no such repository, or it is private; check the name, or run `hf auth login`"
            ) from None
        except errors.RevisionNotFoundError:
            raise InputError(f"{shown}: the repository has no revision {revision!r}") from None
        except errors.LocalEntryNotFoundError as error:
            if local:
                raise InputError(
                    f"{shown}: not fetched yet, and nothing is downloaded unasked; run `boxwright weights fetch "
                    f"{shown}`"
                ) from None
            raise InputError(f"{shown}: the Hub cannot be reached ({first_line(error)}); check the network") from None
        except errors.EntryNotFoundError:
            raise InputError(
                f"{shown}: has no {file}, so that it is no detector of Boxwright (`boxwright.push_to_hub` writes one)"
            ) from None
        except (errors.HfHubHTTPError, OSError) as error:
            raise InputError(f"{shown}: {file} could not be downloaded: {first_line(error)}") from None
    return path.parent


def first_line(error: BaseException) -> str:
    """What went wrong, without the page of advice after it."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
