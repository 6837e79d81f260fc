"""Reading ``.caffemodel``: old and new layers, every form of a shape, and files of another format."""

import pickle
from pathlib import Path

import pytest
import torch

from boxwright.structures import InputError
from boxwright.weights.caffe.protobuf import fields_of, floats_of, integer_of, read_caffemodel
from tests.support.caffe_reference import blob, field, floats, layer, old_layer, varint, write

WEIGHT, BIAS = torch.arange(24.0).reshape(2, 3, 2, 2), torch.tensor([7.0, -8.0])


def test_a_layer_and_its_settings(tmp_path: Path) -> None:
    settings = field(203, floats(1, 35.84) + field(2, b"") + field(4, 1))
    data = field(1, b"VGG") + layer("data", "Input") + layer("conv", "Convolution", (WEIGHT, BIAS), settings)
    (tmp_path / "a.caffemodel").write_bytes(data + field(8, b"debug"))
    model = read_caffemodel(tmp_path / "a.caffemodel")
    assert (model.name, list(model.layers), model.weighted) == ("VGG", ["data", "conv"], ["conv"])
    conv = model.layers["conv"]
    assert (conv.name, conv.kind) == ("conv", "Convolution")
    assert torch.equal(conv.blobs[0], WEIGHT)
    assert torch.equal(conv.blobs[1], BIAS)
    assert floats_of(conv.settings[203], 1) == [pytest.approx(35.84)]
    assert (integer_of(conv.settings[203], 4, 0), integer_of(conv.settings[203], 5, 9)) == (1, 9)


def test_layers_from_before_2015(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).reshape(3, 2)
    (tmp_path / "a").write_bytes(old_layer("fc6", 14, (matrix, BIAS)) + old_layer("relu", 18))
    layers = read_caffemodel(tmp_path / "a").layers
    assert (layers["fc6"].kind, layers["relu"].kind) == ("InnerProduct", "type 18")
    assert layers["fc6"].blobs[0].shape == (1, 1, 3, 2)
    assert torch.equal(layers["fc6"].blobs[0].flatten(), matrix.flatten())
    assert layers["fc6"].blobs[1].shape == (1, 1, 1, 2)


def test_every_form_of_a_blob(tmp_path: Path) -> None:
    single = field(7, field(1, 2)) + floats(5, 3.0, 4.0)  # dimensions and numbers one by one
    split = field(5, BIAS.numpy().tobytes()) + field(7, field(1, varint(2) + varint(2))) + field(5, bytes(8))
    with_gradient = blob(BIAS) + field(6, bytes(400))
    body = b"".join(field(7, b) for b in (single, split, with_gradient, blob(WEIGHT, double=True)))
    (tmp_path / "a").write_bytes(field(100, body + field(1, b"late name") + field(2, b"Scale")))
    first, second, third, fourth = read_caffemodel(tmp_path / "a").layers["late name"].blobs
    assert first.tolist() == [3, 4]
    assert second.tolist() == [[7, -8], [0, 0]]
    assert third.tolist() == [7, -8]
    assert torch.equal(fourth, WEIGHT)
    assert fourth.dtype == torch.float32


def test_a_layer_of_two_phases_is_the_one_with_weights(tmp_path: Path) -> None:
    data = layer("data", "Input") + layer("data", "Input") + layer("a", "Scale", (BIAS,)) + layer("a", "Dropout")
    (tmp_path / "a").write_bytes(data)
    assert read_caffemodel(tmp_path / "a").layers["a"].kind == "Scale"
    (tmp_path / "a").write_bytes(data + layer("a", "Scale", (BIAS,)))
    with pytest.raises(InputError, match="has two layers 'a' with weights"):
        read_caffemodel(tmp_path / "a")


@pytest.mark.parametrize("left", [*range(1, 60), 120, 150])
def test_no_truncated_file_is_read(tmp_path: Path, left: int) -> None:
    whole = write(tmp_path / "whole", {"conv": (WEIGHT, BIAS)}).read_bytes()
    assert len(whole) > 150
    (tmp_path / "cut").write_bytes(whole[:left])
    with pytest.raises(InputError, match=r"cut: (truncated|is no \.caffemodel)"):
        read_caffemodel(tmp_path / "cut")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'name: "VGG"\nlayer {\n  name: "conv1"\n}\n', r"is no .caffemodel|truncated, or no"),
        (pickle.dumps({"model": [1, 2, 3]}), r"is no .caffemodel|truncated, or no"),
        (b"PK\x03\x04" + bytes(60), r"is no .caffemodel|truncated, or no"),
        (bytes(100), "byte 0 is no field of a protocol-buffer message"),
        (field(1, 5) + field(3, b"input"), "is no .caffemodel: it holds no layer with weights"),
        (field(1, b"\xff\xfe"), "the name at byte 2 is no text"),
        (b"\x08" + b"\xff" * 12, "is longer than 64 bits"),
        (field(2, field(1, b"v0")), "from before 2014; run its tool upgrade_net_proto_binary"),
        (field(100, field(1, b"c") + field(7, field(7, field(1, 3)) + floats(5, 1.0))),
         "layer 'c' states a shape of 3 and holds 1 numbers"),
        (field(100, field(1, b"c") + field(7, field(5, bytes(7)))), "layer 'c' has 7 bytes of numbers"),
        (field(100, field(1, b"c") + field(7, field(7, field(1, 3)))), "states a shape of 3 and holds 0 numbers"),
    ],
)  # fmt: skip
def test_what_is_no_network(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_caffemodel(tmp_path / "a")


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.caffemodel: cannot be read: No such file"):
        read_caffemodel(tmp_path / "nothing.caffemodel")


def test_fields_of_every_wire_type() -> None:
    message = field(1, 300) + varint(2 << 3 | 1) + bytes(8) + floats(3, 1.0) + field(4, b"ab")
    assert [(f.number, f.kind, f.at) for f in fields_of(message, start=10)] == [
        (1, 0, 11), (2, 1, 14), (3, 5, 23), (4, 2, 29)
    ]  # fmt: skip
