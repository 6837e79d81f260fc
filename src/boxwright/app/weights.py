"""Published and foreign checkpoints for people: what there is, what one is, bringing it here, making it ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from boxwright.app.progress import ProgressBar
from boxwright.checkpoints.checkpoint import SUFFIX, Checkpoint, rebuild, save_checkpoint
from boxwright.checkpoints.hub_cache import HUB_PREFIX, fetch_repository
from boxwright.checkpoints.hub_folder import save_folder
from boxwright.checkpoints.model_card import parameter_count
from boxwright.checkpoints.opening import Opened, open_checkpoint
from boxwright.config.config_tree import to_tree
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.fast_rcnn import truncate_fc
from boxwright.structures import InputError
from boxwright.weights.import_detector import read_names
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

MEGA = 1e6


def published_rows(publisher: str | None = None) -> list[dict[str, Any]]:
    """Every published checkpoint that Boxwright reads, detectors first, or those of one publisher.

    Name, kind (detector or backbone), data, figures on what, licence, bytes (roughly, None where unknown), files with
    address, exact size and checksum as far as they are known, and the path in the cache, None where it is not fetched.
    """
    if publisher is not None and publisher not in PUBLISHERS:
        raise InputError(f"--publisher {publisher}: none of {', '.join(PUBLISHERS)}")
    return [_row(entry) for entry in (*CATALOGUE, *BACKBONES) if publisher in (None, entry.publisher)]


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


def fetch_named(name: str, folder: Path | None = None) -> Path:
    """Bring the published checkpoint ``name`` here, into ``folder`` or the cache, with a progress bar; its path."""
    if name.startswith(HUB_PREFIX):
        if folder is not None:
            raise InputError(f"--to {folder}: a repository of the Hub stays in the Hub's own cache; leave --to out")
        return fetch_repository(name)
    if not is_name(name):
        names = ", ".join(f"{p}:" for p in (*PUBLISHERS, "hf"))
        raise InputError(
            f"{name}: give a name that begins with one of {names}; `boxwright weights list` shows all but the last"
        )
    entry = find_published(name)
    bars = _Bars()
    try:
        return fetch(entry, folder, bars)
    finally:
        bars.close()


def is_backbone(name: str) -> bool:
    """Whether the published checkpoint ``name`` is an ImageNet network and no detector."""
    return is_name(name) and find_published(name).kind == "backbone"


class _Bars:
    """A bar a file, in whole megabytes."""

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
        """End the bar under way."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def describe(
    source: str, classes: Path | None = None, publisher: str | None = None, size: int | None = None
) -> dict[str, Any]:
    """What ``source`` is: the row of what is published and no detector or not fetched, else what its file holds."""
    if is_name(source) and not Path(source).exists():
        entry = find_published(source)
        if entry.kind == "backbone" or cached(entry) is None:
            return {**_row(entry), "fetched": False}
    return _described(_open(source, classes, publisher, size))


def _described(opened: Opened) -> dict[str, Any]:
    checkpoint, path = opened
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "source": (checkpoint.meta.get("imported") or {}).get("source") or f"Boxwright, {checkpoint.recipe.name}",
        "detector": checkpoint.detector.kind,
        "backbone": _backbone(checkpoint),
        "parameters": parameter_count(checkpoint.state),
        "classes": list(checkpoint.classes.names),
        "images": {"eval": to_tree(checkpoint.recipe.data.eval), "pad_multiple": checkpoint.recipe.data.pad_multiple},
        "meta": checkpoint.meta,
        "fetched": True,
    }


def _backbone(checkpoint: Checkpoint) -> str:
    tree = to_tree(checkpoint.detector.backbone)
    detail = next((str(tree[key]) for key in ("depth", "variant", "name") if tree.get(key)), "")
    return f"{tree['kind']} {detail}".strip()


def convert(
    source: str,
    output: Path,
    classes: Path | None = None,
    publisher: str | None = None,
    size: int | None = None,
    licence: str | None = None,
    ranks: Sequence[int] = (),
) -> Opened:
    """Write ``source`` as a checkpoint of ours; what was written.

    ``output`` is a ``.safetensors`` file, or a folder in the Hub's convention where it has no suffix. ``classes``: a
    text file with a name on each line. ``ranks``: of the head's fully connected layers, by truncated SVD. InputError
    where ``output`` exists.
    """
    if output.suffix not in ("", SUFFIX):
        raise InputError(f"--output {output}: name a file that ends in {SUFFIX}, or a folder")
    if licence is not None and output.suffix:
        raise InputError(f"--licence {licence}: stands in the card of a folder; name a folder with --output")
    if output.exists():
        raise InputError(f"--output {output}: exists already; choose another name")
    opened = _open(source, classes, publisher, size)
    checkpoint = truncated(opened, ranks) if ranks else opened.checkpoint
    if output.suffix == SUFFIX:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(output, checkpoint.state, checkpoint.recipe, checkpoint.classes, checkpoint.meta)
    else:
        save_folder(checkpoint, output, output.resolve().name, licence)
    return Opened(checkpoint, output)


def truncated(opened: Opened, ranks: Sequence[int]) -> Checkpoint:
    """The checkpoint of its detector with the given ranks. InputError where its head has other layers, or none."""
    checkpoint = opened.checkpoint
    thin = truncate_fc(rebuild(checkpoint, opened.path), ranks)
    config = cast(DetectorConfig, thin.config)
    meta = {**checkpoint.meta, "truncated": list(ranks)}
    return Checkpoint(config, checkpoint.classes, thin.state_dict(), replace(checkpoint.recipe, detector=config), meta)


def _open(source: str, classes: Path | None, publisher: str | None, size: int | None) -> Opened:
    return open_checkpoint(source, None if classes is None else read_names(classes), publisher, size)
