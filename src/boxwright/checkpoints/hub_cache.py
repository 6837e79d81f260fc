"""Fetch repositories of the Hugging Face Hub, by the extra ``hub``.

A repository is written ``hf:owner/name``, or ``hf:owner/name@revision`` for a branch, tag or commit. Its files are kept
in the Hub's own cache, which other programs share: ``HF_HOME`` moves it, ``HF_ENDPOINT`` sets another server. Only
``config.json`` and ``model.safetensors`` are read, which contain no code.
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
    """Split ``hf:owner/name@revision`` into ``owner/name`` and revision; the prefix is optional."""
    found = _NAME.fullmatch(text.removeprefix(HUB_PREFIX))
    if found is None:
        raise InputError(f"{text}: no repository of the Hub; write hf:owner/name, or hf:owner/name@revision")
    return found[1], found[2]


def require_repository(text: str) -> Path:
    """Return the repository's folder in the cache. Raises InputError with the command that fetches it if absent."""
    return _files(text, local=True, token=None)


def fetch_repository(text: str, token: str | None = None) -> Path:
    """Download the repository's configuration and weights; return their folder. Cached files are only checked.

    ``token``: for private repositories; None takes that of ``hf auth login`` or ``HF_TOKEN``.
    """
    return _files(text, local=False, token=token)


def import_hub(what: str) -> Any:
    """Import ``huggingface_hub``. Raises InputError, which begins with ``what``, with the command that installs it."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise InputError(
            f"{what}: the Hugging Face Hub needs the package huggingface_hub; run `pip install 'boxwright[hub]'`"
        ) from None
    return huggingface_hub


def library_errors() -> tuple[type[BaseException], ...]:
    """Return the exceptions of a failed connection, raised by the HTTP library of ``huggingface_hub`` if installed."""
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return ()
    return HfHubHTTPError.__bases__  # that library's own error (httpx, requests in earlier versions), and OSError


def endpoint() -> str | None:
    """Return the server set by ``HF_ENDPOINT``; None for the Hub's own."""
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
                f"{shown}: access needs the owner's approval; request it on its page, then run `hf auth login`"
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
    """Return the first line of the error's cause, without the advice that follows."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
