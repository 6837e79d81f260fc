"""Read published weights files as plain dicts of tensors, numbers and text. No code in the files is run."""

from __future__ import annotations

import mmap
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from boxwright.structures import InputError
from boxwright.weights.common.pickle_scan import ExcessError, PickleScan
from boxwright.weights.common.pickles import RefusedError, plain, stand_in, unpickle_arrays

_EXPECTED = "a checkpoint (.pth, .pt, .th by torch.save, .pkl of numpy arrays, or .safetensors)"
_ENTRIES = ("model", "state_dict", "blobs", "model_state_dict", "state_dict_ema", "ema", "net", "weights")
"""Entries in which training programs keep the state dict: detectron2 and torchvision the first, MMDetection the second,
Detectron the third. The first that exists counts.
"""
_PREFIXES = ("module.", "_orig_mod.", "model.", "detector.", "net.", "network.", "ema_model.", "ema.")
"""Beginnings that programs put before the names of all tensors of a network. No published layout has them."""
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""First bytes of torch's files before version 1.6, which introduced zip archives."""

_ALLOCATING = {"builtins.bytearray", "__builtin__.bytearray"}
"""Types that torch allows and that fill as much memory as a number says."""
SMALL = 2**20
"""Bytes that a tensor may have though the file holds fewer: one number in all places."""

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype", "a web page: the download failed; download the file itself"),
    (b"<html", "a web page: the download failed; download the file itself"),
    (b"<?xml", "an XML text, such as a server's error; download the file itself"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself by `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89hdf", "an HDF5 file, as Keras writes them, which no importer reads"),
)


def read_foreign(path: Path | str) -> dict[str, Any]:
    """Read the content of a published file: nested dicts and lists of tensors, numbers and text.

    The format is detected by the first bytes: torch's zip archive (its tensors are mapped from the file), torch's older
    format, a pickle of numpy arrays (detectron2 and Detectron, by Python 2 or 3), or safetensors. Other objects, such
    as training logs, are left out.

    Raises InputError for a file that is absent, empty, truncated or of another format, or that names code to run.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file{' but a folder' if path.is_dir() else ''}; give {_EXPECTED}")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: an empty file; expected {_EXPECTED}; download it anew")
    with path.open("rb") as file:
        head = file.read(512)
    try:
        content = _read(path, head)
    except InputError:
        raise
    except RefusedError as error:
        _refuse(path, {error.name})
    except ExcessError as error:
        raise InputError(
            f"{path}: refused: it asks for {error}, which no checkpoint needs; if you trust it, load it where it was "
            "made and save the weights alone, by torch.save(model.state_dict(), ...)"
        ) from None
    except Exception as error:  # torch, pickle, zipfile and safetensors each raise many types for a damaged file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cut short or damaged ({size} bytes; {first[:200]}); expected {_EXPECTED}; download it anew"
        ) from None
    if not isinstance(content, dict) or not content:
        nothing = content is None or (isinstance(content, dict | list) and not content)
        found = "nothing that is a tensor, number or text" if nothing else f"a single {type(content).__name__}"
        raise InputError(f"{path}: holds {found}; expected a dict of tensors, as torch.save(model.state_dict()) writes")
    return content


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the model in ``content``, which is a state dict or a training's file with one in an entry.

    Prefixes that programs put before every name are removed: ``module.`` of data-parallel training, ``_orig_mod.`` of
    compiled models, ``model.`` and the like of programs that hold the network in an attribute.
    """
    inner = content
    for _ in range(3):  # such as {"state_dict": {"model": ...}}
        entries = (inner[name] for name in _ENTRIES if isinstance(inner.get(name), Mapping) and inner[name])
        found: Mapping[str, Any] | None = next(entries, None)
        if found is None:
            break
        inner = found
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    while tensors and (prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None)):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _read(path: Path, head: bytes) -> Any:
    for start, what in _OTHERS:
        if head.lstrip().lower().startswith(start):
            raise InputError(f"{path}: {what}; expected {_EXPECTED}")
    if head.startswith(b"PK\x03\x04"):
        return _read_archive(path)
    if head.startswith(_LEGACY):
        names = _scanned(path, pickles=5)  # magic number, version, machine, content, names of storages
        return _read_torch(path, names, mapped=False)
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return safetensors.torch.load_file(path)
    if head[257:262] == b"ustar":
        raise InputError(
            f"{path}: a tar archive; torch's form of 2016 cannot be read safely: load it in a torch of that time and "
            "save its state_dict anew; of any other archive give the file in it"
        )
    if head[0] == 0x80 or head.startswith((b"(dp", b"(lp", b"}")):
        _scanned(path)
        with path.open("rb") as file:
            return plain(unpickle_arrays(file))
    raise InputError(f"{path}: begins with {head[:12]!r} and is no file of weights; expected {_EXPECTED}")


def _scanned(path: Path, pickles: int = 1) -> set[str]:
    """Check the pickles that ``path`` begins with, and return every ``module.name`` in them."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        scan = PickleScan(data)
        scan.run(pickles)
        return scan.names


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        content = [name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"]
        if not content:
            raise InputError(
                f"{path}: a zip archive without a checkpoint in it (first is {entries[0] if entries else 'nothing'}); "
                f"expected {_EXPECTED}; unpack it and give the file in it"
            )
        if any(name.endswith("constants.pkl") for name in entries):
            raise InputError(
                f"{path}: a TorchScript program, not a checkpoint; save its weights by "
                "torch.save(torch.jit.load(...).state_dict(), ...)"
            )
        _check_entries(path, archive.infolist(), content)
        scan = PickleScan(archive.read(content[0]))
        scan.run()
    return _read_torch(path, scan.names, mapped=True)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], content: list[str]) -> None:
    """Raise InputError for entries that torch does not write: packed, of one name, or longer than the file.

    ``content``: the names of the pickles among them.
    """
    if len(set(content)) > 1:
        raise InputError(f"{path}: a zip archive of {len(set(content))} checkpoints; unpack it and give one of them")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(
            f"{path}: a checkpoint in a compressed zip archive, which torch does not map into memory; load it by "
            "torch.load and save it again by torch.save"
        )
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputError(f"{path}: a zip archive with two entries of one name; download it anew")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(f"{path}: a zip archive whose entries are longer than the file; download it anew")


def _read_torch(path: Path, names: set[str], mapped: bool) -> Any:
    """Load a file by torch's restricted unpickler, with placeholders for classes that are not needed."""
    if allocating := names & _ALLOCATING:
        _refuse(path, allocating)
    # torch looks Python 2's names up as Python 3's.
    known = [(stand_in(n), n.replace("__builtin__.", "builtins.")) for n in sorted(names) if stand_in(n) is not None]
    try:
        with torch.serialization.safe_globals(known):  # type: ignore[arg-type]
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        suspect = {n for n in names if stand_in(n) is None and not _of_torch(n)}
        if suspect:
            _refuse(path, suspect)
        raise
    size = path.stat().st_size
    return plain(content, lambda tensor: _check_tensor(tensor, size))


def _check_tensor(tensor: Tensor, size: int) -> None:
    """Raise ExcessError for a tensor of a kind that no detector has, or of more numbers than a file of ``size`` has."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
        raise ExcessError("a tensor that is sparse, quantised, nested or without numbers")
    stored = tensor.untyped_storage().nbytes()
    if stored > size or tensor.numel() * tensor.element_size() > max(stored, SMALL):
        raise ExcessError(f"a tensor of {' x '.join(map(str, tensor.shape))}, more numbers than the file holds")


def _of_torch(name: str) -> bool:
    """Return True for a ``module.name`` that ordinary checkpoints of torch contain."""
    if name.startswith(("collections.", "_codecs.", "torch._utils.", "torch.nn.parameter.", "torch._tensor.")):
        return True
    return name.startswith("torch.") and name.count(".") == 1


def _refuse(path: Path, names: set[str]) -> NoReturn:
    shown = ", ".join(sorted(names)[:4])
    raise InputError(
        f"{path}: refused: it can only be read by running code that it names ({shown}), and a checkpoint needs "
        "tensors, numbers and text only; if you trust it, load it where it was made and save the weights alone, by "
        "torch.save(model.state_dict(), ...)"
    )
