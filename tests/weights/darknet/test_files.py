"""Reading Darknet's files: headers, the order of parameters in each kind of layer, and files of another cfg."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from boxwright.backbones.darknet import conv_bn_leaky
from boxwright.structures import InputError
from boxwright.weights.darknet.files import parse_cfg, plan_layers, read_cfg, read_darknet
from boxwright.weights.darknet.matching import state_in_order

CFG = """
[net]
# comments and blanks are allowed
height = 8
width=8
channels=3

[convolutional]
batch_normalize=1
filters=2
size=3
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[local]
filters=2
size=3
stride=1
pad=1

[connected]
batch_normalize=1
output=3

[connected]
output=2
"""
FLOATS = 2 * 4 + 2 * 27 + 32 + 16 * 36 + 3 * 4 + 3 * 32 + 2 + 6
V02 = struct.pack("<3iq", 0, 2, 5, 2**40)
V01 = struct.pack("<4i", 0, 1, 0, 77)
OLD = struct.pack("<3fi", 0.001, 0.9, 0.0005, 77)


def write(folder: Path, header: bytes, floats: int = FLOATS, cfg: str = CFG) -> tuple[Path, Path]:
    """Write the cfg, and weights that count 0, 1, 2, ..."""
    (folder / "n.cfg").write_text(cfg)
    (folder / "n.weights").write_bytes(header + np.arange(floats, dtype="<f4").tobytes())
    return folder / "n.cfg", folder / "n.weights"


@pytest.mark.parametrize(
    ("header", "seen", "version"), [(V02, 2**40, (0, 2)), (V01, 77, (0, 1)), (OLD, 77, None)], ids=["0.2", "0.1", "old"]
)
def test_headers(tmp_path: Path, header: bytes, seen: int, version: tuple[int, int] | None) -> None:
    network = read_darknet(*write(tmp_path, header))
    assert network.seen == seen
    assert version is None or network.version == version
    assert network.layers[0].arrays["bias"].tolist() == [0, 1], "the first number after the header"


def test_order_of_the_numbers(tmp_path: Path) -> None:
    conv, pool, local, first, last = read_darknet(*write(tmp_path, V01)).layers
    assert list(conv.arrays) == ["bias", "scale", "mean", "var", "weight"]
    assert [t.flatten()[0].item() for t in conv.arrays.values()] == [0, 2, 4, 6, 8]
    assert conv.arrays["weight"].shape == (2, 3, 3, 3)
    assert pool.arrays == {}
    assert (conv.outputs, pool.outputs, local.outputs, first.outputs) == ((2, 8, 8), (2, 4, 4), (2, 4, 4), (3, 1, 1))
    assert local.arrays["bias"].shape == (2, 4, 4)
    assert local.arrays["weight"].shape == (16, 2, 2, 3, 3)
    start = 62 + 32 + 16 * 36
    assert {k: v.flatten()[0].item() for k, v in first.arrays.items()} == {
        "bias": start, "weight": start + 3, "scale": start + 99, "mean": start + 102, "var": start + 105
    }  # fmt: skip
    assert first.arrays["weight"][0, :2].tolist() == [start + 3, start + 4]
    assert last.arrays["weight"][1, 2] == FLOATS - 1


def test_the_oldest_files_have_their_matrices_transposed(tmp_path: Path) -> None:
    new = read_darknet(*write(tmp_path, V01)).layers[3].arrays
    old = read_darknet(*write(tmp_path, OLD)).layers[3].arrays
    assert torch.equal(old["weight"].flatten().sort().values, new["weight"].flatten())
    assert old["weight"].shape == (3, 32)
    assert old["weight"][:, 0].tolist() == new["weight"].flatten()[:3].tolist()


@pytest.mark.parametrize(("floats", "stop"), [(FLOATS - 1, "; it ends within layer 4"), (FLOATS + 1, "")])
def test_a_file_must_be_used_up(tmp_path: Path, floats: int, stop: str) -> None:
    with pytest.raises(InputError) as caught:
        read_darknet(*write(tmp_path, V02, floats))
    words = str(caught.value)
    assert f"n.weights: holds {floats} floats after a header of 20 bytes, but" in words
    assert f"n.cfg describes {FLOATS}{stop}" in words


def test_a_header_taken_for_another_shows_in_the_count(tmp_path: Path) -> None:
    """A header four bytes too long or short, a common fault of readers of these files."""
    cfg, weights = write(tmp_path, struct.pack("<3iq", 0, 1, 0, 77))
    with pytest.raises(InputError, match=f"holds {FLOATS + 1} floats after a header of 16 bytes"):
        read_darknet(cfg, weights)


def test_backbone_files_end_after_a_layer(tmp_path: Path) -> None:
    files = write(tmp_path, V02, 62)
    assert [layer.section.kind for layer in read_darknet(*files, prefix=True).layers] == ["convolutional", "maxpool"]
    with pytest.raises(InputError, match="holds 62 floats"):
        read_darknet(*files)
    with pytest.raises(InputError, match=r"it ends within layer 2 \(\[local\]\)"):
        read_darknet(*write(tmp_path, V02, 63), prefix=True)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ("height=3\n", r"n.cfg, line 1: 'height=3' is neither"),
        ("[convolutional]\nfilters=2\n", r"must begin with the section \[net\]"),
        ("", r"must begin with the section \[net\]"),
        ("[net]\nheight=8\n", r"n.cfg, line 1: \[net\] lacks width"),
        ("[net]\nheight=8\nwidth=eight\n", "width = eight; give numbers"),
        ("[net]\nheight=8\nwidth=8.5\n", r"width = 8.5; it must be a whole number"),
        ("[net]\nheight=8\nwidth=8\n\n[gru]\n", r"n.cfg, line 5: layers of the kind \[gru\] cannot be read"),
        ("[net]\nheight=8\nwidth=8\n[maxpool]\n[route]\nlayers=-2\n", "must name layers before it, 0 to 0 or -1"),
        ("[net]\nheight=8\nwidth=8\n[route]\nlayers=-1\n", "must name layers before it"),
        ("[net]\nheight=2\nwidth=2\n[convolutional]\nsize=5\n", "leaves nothing of 2 x 2"),
    ],
)
def test_bad_cfgs(tmp_path: Path, cfg: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_darknet(*write(tmp_path, V02, 0, cfg))


def test_bad_files(tmp_path: Path) -> None:
    cfg, weights = write(tmp_path, V02)
    with pytest.raises(InputError, match=r"absent.weights: cannot be read"):
        read_darknet(cfg, tmp_path / "absent.weights")
    weights.write_bytes(b"short")
    with pytest.raises(InputError, match="has 5 bytes, too few for the header"):
        read_darknet(cfg, weights)


def test_shapes_of_the_other_layers() -> None:
    text = """[net]
height=12
width=10
[convolutional]
filters=4
size=3
stride=2
padding=1
[maxpool]
size=2
stride=1
[reorg]
stride=2
[upsample]
stride=2
[route]
layers=-1,1
[shortcut]
from=-1
[batchnorm]
[avgpool]
[dropout]
"""
    plan = plan_layers(parse_cfg(text))
    shapes = [output for _, _, output, _ in plan]
    assert shapes == [
        (4, 6, 5), (4, 6, 5), (16, 3, 2), (16, 6, 4), (20, 6, 4), (20, 6, 4), (20, 6, 4), (20, 1, 1), (20, 1, 1)
    ]  # fmt: skip
    assert plan[6][3] == {"scale": (20,), "mean": (20,), "var": (20,)}


def test_giving_the_numbers_to_modules(tmp_path: Path) -> None:
    cfg = "[net]\nheight=8\nwidth=8\n[convolutional]\nbatch_normalize=1\nfilters=2\n[convolutional]\nfilters=4\n"
    network = read_darknet(*write(tmp_path, V02, 14 + 12, cfg))
    last = nn.Conv2d(2, 4, 1)
    module = nn.Sequential(conv_bn_leaky(3, 2, 1), last)
    module.load_state_dict(state_in_order(module, network))
    norm = next(m for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    assert (norm.bias.tolist(), norm.weight.tolist()) == ([0, 1], [2, 3])
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert (norm.running_mean.tolist(), norm.running_var.tolist()) == ([4, 5], [6, 7])
    assert last.bias is not None
    assert last.bias.tolist() == [14, 15, 16, 17]
    with pytest.raises(InputError, match=r"layer 0 \(\[convolutional\]\) is 2 x 3 x 1 x 1 with batch norm, but 0"):
        state_in_order(nn.Sequential(nn.Conv2d(3, 2, 1)), network)
    with pytest.raises(InputError, match="2 layers with weights, but the detector has 1"):
        state_in_order(module[:1], network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("stride=1", "stride=0"), r"\[convolutional\] has stride = 0; it must be at least 1"),
        (("filters=", "filters=-"), "it must be at least 1"),
        (("height=", "height=9" + "9" * 400), r"\[net\] has height = 9{60}\.\.\.; give numbers"),
        (("height=", "height=nan;"), r"\[net\] has height = nan; give numbers"),
        (("height=", "height=;"), r"\[net\] has height without a number"),
        (("width=", "width=1e300;"), r"\[net\] has width = 1e300; give numbers"),
    ],
)
def test_numbers_that_no_network_has(change: tuple[str, str], message: str) -> None:
    assert change[0] in SMALL
    with pytest.raises(InputError, match=message):
        plan_layers(parse_cfg(SMALL.replace(*change)))


SMALL = "[net]\nheight=8\nwidth=8\n[convolutional]\nfilters=2\nstride=1\n"


def test_a_file_that_is_too_long_for_a_cfg(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert len(read_cfg(tmp_path / "a.cfg")) == 2
    (tmp_path / "a.cfg").write_bytes(b"#" * 5_000_000)
    with pytest.raises(InputError, match=r"a\.cfg: is no Darknet cfg: it has more than 4,194,304 bytes"):
        read_cfg(tmp_path / "a.cfg")


def test_of_an_option_given_twice_the_first_counts() -> None:
    _, section = parse_cfg("[net]\nheight=8\n[convolutional]\nfilters = 4\nsize=3\nfilters=9\n")
    assert section.integer("filters") == 4


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_cfg_in_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    start = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "n.cfg").write_bytes(f"{start}[net]\nheight=8\nwidth=8\n".encode(encoding))
    with pytest.raises(InputError, match=r"n.cfg: is text in UTF-16; save it as UTF-8"):
        read_cfg(tmp_path / "n.cfg")
