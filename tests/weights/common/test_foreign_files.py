"""Reading published files: whole ones are read, harmful and broken ones are refused, and no code in them runs."""

import os
import pickle
import struct
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from boxwright.structures import InputError
from boxwright.weights.common.foreign_files import read_foreign, tensors_in

LEGACY: dict[str, Any] = {"_use_new_zipfile_serialization": False}


class Harmful:
    """An object whose pickle creates the file ``mark`` when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.mark}",)


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, **LEGACY)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
def test_code_in_a_file_is_refused_and_never_runs(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "harmful.pth"
    save({"model": {"a": np.ones(2)}, "extra": Harmful(mark)}, path)
    with pytest.raises(
        InputError, match=r"harmful\.pth: refused: .*running code.*(posix|nt)\.system.*save the weights"
    ):
        read_foreign(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Harmful(mark)))  # the file would have made it
    assert mark.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch MARK'\ntR.",  # called at once
        b"(S'touch MARK'\nios\nsystem\n.",  # as an instance
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch MARK\x85R.",  # names from the stack
        b"cnumpy\nndarray\n(cos\nsystem\ntR.",  # inside a call that is allowed
    ],
)
def test_every_way_to_name_a_function_is_refused(code: bytes, tmp_path: Path) -> None:
    path, mark = tmp_path / "x.pkl", tmp_path / "M"
    path.write_bytes(b"\x80\x02" * (not code.startswith(b"\x80")) + code.replace(b"MARK", str(mark).encode()[:4]))
    with pytest.raises(InputError, match=r"refused|damaged"):
        read_foreign(path)
    assert not mark.exists()


def test_a_pickle_cannot_change_the_readers_own_functions(tmp_path: Path) -> None:
    """The opcode BUILD sets attributes. It must not change the reader's functions."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(NX\x08\x00\x00\x00__call__K\x01dtb.")
    with pytest.raises(InputError, match="damaged"):
        read_foreign(path)
    path.write_bytes(pickle.dumps({"a": np.arange(3)}))
    assert read_foreign(path)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays_are_read_in_every_protocol(protocol: int, tmp_path: Path) -> None:
    arrays = {
        "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
        "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
        "big": np.arange(4, dtype=">i4"),
        "half": np.float16([1, 2]),
        "none": np.zeros((0, 3), dtype=np.float32),
        "point": np.array(7, dtype=np.int64),
        "flags": np.array([True, False]),
    }
    beside = {"text": np.array(["a"]), "objects": np.array([None]), "scalar": np.float32(0.5), "author": "me", "n": 3}
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": OrderedDict(arrays), **beside}, protocol=protocol))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = read_foreign(path)
    assert content == {"model": content["model"], "scalar": 0.5, "author": "me", "n": 3}
    assert set(content["model"]) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(content["model"][name].numpy(), array, err_msg=name)
        assert content["model"][name].is_contiguous(), name


def python2_pickle(arrays: dict[str, np.ndarray]) -> bytes:
    """Return ``{"blobs": arrays}`` as Python 2 writes it in protocol 2, where text and bytes are both strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    out = b"\x80\x02}(" + text(b"blobs") + b"}("
    for name, array in arrays.items():
        dtype = b"cnumpy\ndtype\n(" + text(array.dtype.str[1:].encode()) + b"K\x00K\x01tR"
        dtype += b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"".join(b"K" + bytes([side]) for side in array.shape)
        out += text(name.encode()) + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b")
        out += b"tR(K\x01(" + shape + b"t" + dtype + b"\x89" + text(array.tobytes()) + b"tb"
    return out + b"u" + text(b"cfg") + text("caf\xe9".encode("latin1")) + b"u."


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    arrays = {"conv1_w": np.random.default_rng(0).normal(size=(4, 3, 7, 7)).astype(np.float32), "lr": np.float32([0.1])}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(python2_pickle(arrays))
    content = read_foreign(path)
    assert list(content) == ["blobs", "cfg"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(content["blobs"][name].numpy(), array)


def test_safetensors_and_both_forms_of_torch_are_read(tmp_path: Path) -> None:
    state = {"module.a": torch.arange(6.0).reshape(2, 3), "module.b": torch.ones(2, dtype=torch.int64)}
    safetensors.torch.save_file(state, tmp_path / "a.bin")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "b.pth.tar")
    torch.save({"state_dict": OrderedDict(state), "best": [1.5, None]}, tmp_path / "c.th", **LEGACY)
    torch.save({"state_dict": {k: torch.nn.Parameter(v.float()) for k, v in state.items()}}, tmp_path / "d.pt")
    for name in ("a.bin", "b.pth.tar", "c.th", "d.pt"):
        tensors = tensors_in(read_foreign(tmp_path / name))
        assert sorted(tensors) == ["a", "b"]
        assert all(type(value) is torch.Tensor and not value.requires_grad for value in tensors.values())
        assert torch.equal(tensors["a"], state["module.a"])
    assert read_foreign(tmp_path / "b.pth.tar")["epoch"] == 3
    assert read_foreign(tmp_path / "c.th")["best"] == [1.5, None]


def test_a_zip_archives_tensors_stay_in_the_file(tmp_path: Path) -> None:
    """Tensors are mapped: there is no copy in memory, and other views share the storage."""
    path = tmp_path / "big.pth"
    torch.save({"a": torch.zeros(1000, 1000)}, path)
    before = Path("/proc/self/smaps").read_text().count(str(path)) if sys.platform == "linux" else 0
    content = read_foreign(path)
    if sys.platform == "linux":
        assert Path("/proc/self/smaps").read_text().count(str(path)) > before
    assert content["a"].shape == (1000, 1000)


@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_logs_and_settings_beside_the_weights_are_left_out(
    save: Callable[[Any, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs and settings as MMEngine stores them: buffers with numpy arrays, numpy numbers, a configuration that is a
    subclass of dict.
    """
    logging, config = types.ModuleType("mmengine.logging.history_buffer"), types.ModuleType("mmengine.config.config")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.history, self.methods = np.arange(3.0), {"mean": getattr}

    class ConfigDict(OrderedDict):  # type: ignore[type-arg]
        pass

    for module, kind in ((logging, HistoryBuffer), (config, ConfigDict)):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for package in ("mmengine", "mmengine.logging", "mmengine.config"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    path = tmp_path / "epoch_12.pth"
    hub = {"loss": HistoryBuffer(), "lr": np.float64(0.5), "steps": np.arange(2), "when": Path("here")}
    content = {"meta": {"epoch": 12, "cfg": ConfigDict(a=1)}, "state_dict": {"w": torch.ones(2)}, "message_hub": hub}
    save(content, path)
    for module in (logging, config):
        monkeypatch.delitem(sys.modules, module.__name__)
    found = read_foreign(path)
    assert found["meta"] == {"epoch": 12, "cfg": {"a": 1}}
    assert found["state_dict"]["w"].tolist() == [1, 1]
    assert set(found["message_hub"]) == {"lr", "steps"}
    assert found["message_hub"]["lr"] == 0.5
    assert found["message_hub"]["steps"].tolist() == [0, 1]


def test_a_whole_pickled_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for options in ({}, LEGACY):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth", **options)
        with pytest.raises(InputError, match=r"refused.*torch\.nn\.modules\.linear\.Linear.*state_dict"):
            read_foreign(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "arrays.pkl", "a.safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_files_that_are_cut_short_are_named(name: str, share: float, tmp_path: Path) -> None:
    path, tensors = tmp_path / name, {"a": torch.rand(200, 10), "b": torch.rand(30)}
    match name:
        case "zip.pth":
            torch.save(tensors, path)
        case "legacy.pth":
            torch.save(tensors, path, **LEGACY)
        case "arrays.pkl":
            path.write_bytes(pickle.dumps({k: v.numpy() for k, v in tensors.items()}, protocol=2))
        case _:
            safetensors.torch.save_file(tensors, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(int(len(whole) * share), 16)])
    with pytest.raises(InputError, match=rf"{name}: .*expected a checkpoint.*") as caught:
        read_foreign(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\n\n<!DOCTYPE html><html><head><title>Sign in</title>", "a web page: the download failed"),
        (b"<html>404</html>", "a web page: the download failed"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "an XML text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "a gzip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file"),
        (b'{"message": "not found"}', "begins with b'{\"message"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
    ],
)
def test_what_is_no_checkpoint_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_foreign(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_other_contents_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; give a checkpoint"):
        read_foreign(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="no such file but a folder"):
        read_foreign(tmp_path)
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    with pytest.raises(InputError, match="a single Tensor; expected a dict"):
        read_foreign(tmp_path / "tensor.pth")
    (tmp_path / "none.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="nothing that is a tensor"):
        read_foreign(tmp_path / "none.pkl")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", pickle.dumps({}))
        archive.writestr("script/constants.pkl", pickle.dumps(()))
    with pytest.raises(InputError, match=r"a TorchScript program.*torch\.jit\.load"):
        read_foreign(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "folder.zip", "w") as archive:
        archive.writestr("model/readme.txt", "hello")
    with pytest.raises(InputError, match=r"a zip archive without a checkpoint.*model/readme\.txt"):
        read_foreign(tmp_path / "folder.zip")


def test_three_published_pickles_are_read(shared_data: Path) -> None:
    expected = {
        "akamaster_resnet20-12fca82f.th": ("conv1.weight", 97),
        "retinaface_Final_Retinaface.pth": ("body.stage1.0.0.weight", 300),
        "retinaface_model_best.pth.tar": ("stage1.0.0.weight", 164),
    }
    for name, (first, count) in expected.items():
        tensors = tensors_in(read_foreign(shared_data / "weight_fixtures" / name))
        assert (next(iter(tensors)), len(tensors)) == (first, count)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3},
        lambda state: {"state_dict": {"model": state}, "meta": {}},
        lambda state: {"model": "ssd300", "state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {f"module.model.{name}": value for name, value in state.items()},
        lambda state: {"net": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
        lambda state: {"model": {}, "state_dict_ema": state},
        lambda state: {"state_dict": {name: value.half() for name, value in state.items()}},
    ],
)
def test_what_programs_put_around_a_state_dict(wrap: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    state = {"vgg.0.weight": torch.ones(2), "L2Norm.weight": torch.zeros(3)}
    torch.save(wrap(state), tmp_path / "checkpoint")
    tensors = tensors_in(read_foreign(tmp_path / "checkpoint"))
    assert {name: value.tolist() for name, value in tensors.items()} == {
        name: value.tolist() for name, value in state.items()
    }
