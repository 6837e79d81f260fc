"""Pickles, and files of torch, that ask for more time or memory than their length: refused, and soon."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.structures import InputError
from boxwright.weights.common.foreign_files import read_foreign
from boxwright.weights.common.pickle_scan import DamagedError, ExcessError, PickleScan
from tests.support.hostile import try_inputs

START = b"\x80\x02"
NESTED = b")" + b"\x85" * 100_000
SHARED_TUPLES = b"K\x01q\x00" + (b"(" + b"h\x00" * 10 + b"tq\x00") * 30
EQUAL_HASHES = b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(1, 200_000))
COPIES = b"X" + struct.pack("<I", 2**20) + bytes(2**20) + b"q\x00X\x06\x00\x00\x00latin1q\x01" + (
    b"](" + b"c_codecs\nencode\nh\x00h\x01\x86R" * 10_000 + b"e"
)  # fmt: skip
BOMBS = {
    "operations": (b"N0" * 3_000_000 + b"N.", "more than 1,000,000 operations"),
    "a far place": (b"Nr\xff\xff\xff\x7f.", "the place 2147483647 in a memo of 0"),
    "depth": (NESTED + b".", "to a depth of more than 100"),
    "a deep key": (b"}" + NESTED + b"Ns.", "to a depth of more than 100"),
    "a wide key": (b"}" + SHARED_TUPLES + b"Ns.", "a tuple of more than 1,000,000 values"),
    "an integer": (b"\x8b" + struct.pack("<i", 10**6) + bytes(10**6) + b".", "an integer of 1,000,000 bytes"),
    "digits": (b"L" + b"9" * 3000 + b"L\n.", "an integer of 1,500 bytes"),
    "more digits": (b"I" + b"9" * 50_000 + b"\n.", "a number or name of 50,000 letters"),
    "equal hashes": (b"}(" + EQUAL_HASHES + b"u.", "1,000 integers of more than 8 bytes"),
    "copies": (COPIES + b".", "copies of the same bytes"),
    "outside": (b"\x82\x01.", "an object from outside the file"),
}
FORMS = {
    "pickle": lambda code: START + code,
    "zip": lambda code: archive({"archive/data.pkl": START + code, "archive/version": b"3\n"}),
    "legacy": lambda code: legacy_start() + START + code + START + b"].",  # no storages
}


def archive(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", method) as written:
        for name, data in entries.items():
            written.writestr(name, data)
    return buffer.getvalue()


def legacy_start() -> bytes:
    """Return the three pickles that a file of torch before 1.6 begins with."""
    parts = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def reader(path: Path) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        path.write_bytes(data)
        return read_foreign(path)

    return read


@pytest.mark.parametrize("form", FORMS)
def test_bombs_are_refused_in_bounded_time_and_memory(form: str, tmp_path: Path) -> None:
    outcome = try_inputs(reader(tmp_path / "bomb.pth"), [FORMS[form](code) for code, _ in BOMBS.values()])
    assert (outcome.refused, outcome.faults) == (len(BOMBS), {})


@pytest.mark.parametrize("name", BOMBS)
def test_a_refusal_says_what_is_too_much(name: str, tmp_path: Path) -> None:
    code, message = BOMBS[name]
    with pytest.raises(InputError, match=rf"a\.pkl: refused: it asks for .*{message}.*torch\.save"):
        reader(tmp_path / "a.pkl")(START + code)


def test_lists_that_contain_one_another_are_read_once(tmp_path: Path) -> None:
    lists = b"K\x07q\x00" + (b"0](" + b"h\x00" * 10 + b"eq\x00") * 30
    found = reader(tmp_path / "a.pkl")(START + b"}X\x01\x00\x00\x00a" + lists + b"s.")["a"]
    for _ in range(30):
        assert len(found) == 10
        assert all(part is found[0] for part in found if isinstance(part, list))
        found = found[0]
    assert found == 7


def test_a_list_that_contains_itself_is_read(tmp_path: Path) -> None:
    found = reader(tmp_path / "a.pkl")(START + b"}X\x01\x00\x00\x00a]q\x00h\x00as.")["a"]
    assert found[0] is found


def test_memory_by_a_number_is_refused(tmp_path: Path) -> None:
    code = b"cbuiltins\nbytearray\n\x8a\x05" + (3 * 2**32).to_bytes(5, "little") + b"\x85R."
    read = reader(tmp_path / "a.pth")
    for form in ("zip", "legacy"):
        with pytest.raises(InputError, match=r"refused: .*\(builtins\.bytearray\)"):
            read(FORMS[form](code))


@pytest.mark.filterwarnings("ignore")  # of torch, about the kinds
def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(InputError, match="a tensor of 1000000 x 1000000, more numbers than the file holds"):
        read_foreign(path)
    torch.save({"w": torch.zeros(1).expand(100, 100)}, path)
    assert read_foreign(path)["w"].shape == (100, 100)
    kinds = {
        "sparse": torch.eye(3).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "without numbers": torch.empty(10**15, device="meta"),
    }
    for tensor in kinds.values():
        torch.save({"w": tensor}, path)
        with pytest.raises(InputError, match=r"a\.pth: .*sparse, quantised, nested or without numbers"):
            read_foreign(path)


def test_archives_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    read = reader(tmp_path / "a.pth")
    assert read(archive(entries))["w"].shape == (1000,)
    with pytest.raises(InputError, match=r"in a compressed zip archive.*save it again by torch.save"):
        read(archive(entries, zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="a zip archive of 2 checkpoints"):
        read(archive(entries | {"other/data.pkl": START + b"N."}))
    twice = archive(entries | {"version1": b"3\n", "version2": b"3\n"}).replace(b"version2", b"version1")
    with pytest.raises(InputError, match="two entries of one name"):
        read(twice)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordinary_pickles_pass_and_their_names_are_found(protocol: int) -> None:
    value = {"paths": [Path("a"), Path("b")], "numbers": (1, 2.5, 2**40, -1, 2**70, None, True), "set": {b"x", "y"}}
    data = pickle.dumps(value, protocol)
    scan = PickleScan(data + b"rest")
    scan.run()
    assert scan.at == len(data)
    assert any(name.startswith("pathlib.") for name in scan.names)


def test_what_is_no_pickle() -> None:
    for data in (
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x02K",
        b"\xff",
        b"0.",
        b"h\x00.",
        b"t.",
        b"X\xff\xff\xff\xffa",
        b"I1",
    ):
        with pytest.raises(DamagedError):
            PickleScan(data).run()
    with pytest.raises(ExcessError, match="a name that is no text"):
        PickleScan(b"\x80\x04KaK\x01\x93.").run()
