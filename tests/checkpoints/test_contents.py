"""Checkpoints with edited headers, broken numbers and impossible recipes are refused by name, before they are built."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from boxwright.checkpoints.backbone_files import load_pretrained, save_pretrained, start_backbone
from boxwright.checkpoints.checkpoint import KEY, load_checkpoint, rebuild, save_checkpoint
from boxwright.checkpoints.hub_folder import load_folder, save_folder
from boxwright.checkpoints.opening import load_detector, open_checkpoint
from boxwright.checkpoints.transfer import take_weights
from boxwright.config.config_tree import to_tree
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.structures import Classes, InputError
from tests.support.hostile import assert_read_or_refused
from tests.support.mutations import json_mutations, mutations
from tests.support.tiny_detector import TINY, tiny_recipe
from tests.support.toys import CLASSES

FIRST = "backbone.stem.conv.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "best.safetensors"
    torch.manual_seed(0)
    state = build_detector(TINY, CLASSES).state_dict()
    meta = {"step": 3, "epoch": 1.0, "metrics": None, "weights": "model", "versions": {"boxwright": "0.1"}, "data": {}}
    save_checkpoint(path, state, tiny_recipe(3), CLASSES, meta)
    return path


def edited(path: Path, target: Path, change: Callable[[Any], Any]) -> Path:
    """Write a copy of a checkpoint whose part of the header was changed."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[KEY])
    new = change(header)
    text = json.dumps(header if new is None else new) if not isinstance(new, str) else new
    target.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), {KEY: text}))
    return target


def opened(path: Path) -> None:
    rebuild(open_checkpoint(path).checkpoint, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_value_that_is_not_finite_is_named_with_its_tensor(
    value: float, kind: torch.dtype, saved: Path, tmp_path: Path
) -> None:
    state = load_checkpoint(saved).state
    name = sorted(name for name, tensor in state.items() if tensor.is_floating_point())[3]
    broken = {key: tensor.to(kind) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    broken[name] = broken[name].clone()
    broken[name].view(-1)[-1] = value
    run = tmp_path / "run"
    run.mkdir()
    save_checkpoint(run / "best.safetensors", broken, tiny_recipe(3), CLASSES, {})
    match = rf"best\.safetensors: values that are NaN or infinite in {name}; take an earlier checkpoint"
    for source in (run, run / "best.safetensors"):
        with pytest.raises(InputError, match=match):
            load_detector(source)
    with pytest.raises(InputError, match=rf"^mine: values that are NaN or infinite in {name}; "):
        take_weights(build_detector(TINY, CLASSES), broken, "mine")
    folder = save_folder(load_checkpoint(saved), tmp_path / "hub", "a")
    (folder / "model.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    with pytest.raises(InputError, match=rf"model\.safetensors: values that are NaN or infinite in {name}; "):
        load_folder(folder)


def test_a_backbone_with_such_values_is_refused(tmp_path: Path) -> None:
    card = {"backbone": to_tree(TINY.backbone), "pixels": to_tree(IMAGENET), "data": {"name": "mine"}, "top1": None}
    save_pretrained(tmp_path / "b.safetensors", {"backbone.conv.weight": torch.tensor([1.0, float("nan")])}, card)
    with pytest.raises(InputError, match=r"b\.safetensors: values that are NaN or infinite in backbone\.conv\.weight;"):
        load_pretrained(tmp_path / "b.safetensors")


HUGE = 10**12
LARGER = "do not fit its recipe, which describes a far larger network"
HEADERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no table": (lambda h: [1], r"its header: must be a table, not \[1\]"),
    "no JSON": (lambda h: "{", "its header: not valid JSON"),
    "deep": (lambda h: "[" * 100_000, "its header: not valid JSON: too many tables or lists"),
    "digits": (lambda h: h["meta"].update(step=10**1000), "its header: meta.step: a whole number of more than 64 bits"),
    "no format": (lambda h: h.pop("format"), "its header: lacks format"),
    "format": (lambda h: h.update(format="1"), "its header: format = '1': must be a whole number"),
    "format bool": (lambda h: h.update(format=True), "its header: format = True: must be a whole number"),
    "later": (lambda h: h.update(format=99), "written by a later Boxwright"),
    "recipe": (lambda h: h.update(recipe=None), "its header: recipe = None: must be a table"),
    "classes": (lambda h: h.update(classes=["a"]), "its header: classes = .*: must be a table"),
    "names": (lambda h: h["classes"].update(names="ab"), "its header: classes: names = 'ab': must be a list"),
    "name": (lambda h: h["classes"].update(names=["a", 2]), "classes: 2: must be names as text"),
    "no names": (lambda h: h.update(classes={"names": [], "ids": []}), r"classes: \[\]: must be names"),
    "ids": (lambda h: h["classes"].update(ids=[1, None]), "classes: None: must be names as text and ids"),
    "one id": (lambda h: h["classes"].update(ids=[1]), "2 class names but 1 category ids"),
    "twice": (lambda h: h["classes"].update(names=["a", "a"]), "class name a appears more than once"),
    "meta": (lambda h: h.update(meta=3), "its header: meta = 3: must be a table"),
    "versions": (lambda h: h["meta"].update(versions="1"), "its header: meta: versions = '1': must be a table"),
    "imported": (lambda h: h["meta"].update(imported={}), "its header: meta.imported: lacks source"),
    "classes of a million": (
        lambda h: h.update(classes={"names": [str(i) for i in range(90_000)], "ids": list(range(90_000))}),
        "its tensors do not fit its recipe",
    ),
    "channels": (lambda h: h["recipe"]["detector"]["neck"].update(channels=HUGE), LARGER),
    "hidden": (lambda h: h["recipe"]["detector"]["head"].update(hidden=[10**6, 10**6]), LARGER),
    "depths": (lambda h: h["recipe"]["detector"]["backbone"].update(depths=[1, 1, HUGE, 1, 1]), LARGER),
    "width": (lambda h: h["recipe"]["detector"]["backbone"].update(width=2**40), LARGER),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_an_edited_header_is_refused_by_its_entry(case: str, saved: Path, tmp_path: Path) -> None:
    change, said = HEADERS[case]

    def changing(header: Any) -> Any:
        new = change(header)
        return new if case in ("no table", "no JSON", "deep") else None

    path = edited(saved, tmp_path / "edited.safetensors", changing)
    with pytest.raises(InputError, match=rf"edited\.safetensors: .*{said}") as caught:
        opened(path)
    assert len(str(caught.value)) < 1000


def test_a_network_that_no_memory_holds_is_not_built() -> None:
    for config in (
        replace(TINY, neck=replace(TINY.neck, channels=2**40)),
        replace(TINY, head=replace(TINY.head, hidden=(10**7, 10**7))),
        replace(TINY, backbone=replace(TINY.backbone, depths=(1, 1, 10**12, 1, 1))),
    ):
        with pytest.raises(InputError, match=r"the detector that is described has .*; make its channels, layers"):
            build_detector(config, CLASSES)
    with pytest.raises(InputError, match="the detector that is described has "):
        build_detector(
            replace(TINY, head=replace(TINY.head, hidden=(2**18,))), Classes.from_names(list(map(str, range(30_000))))
        )


def raw(header: bytes, data: bytes = b"\x00" * 64, length: int | None = None) -> bytes:
    """Return a safetensors file with any header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape: Any = (2,), dtype: Any = "F32", offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


FILES = {
    "empty": b"",
    "short": b"\x01\x02",
    "no header": raw(b""),
    "a long header": raw(b"{}", length=2**63),
    "a header past the end": raw(b"{}", length=1000),
    "a list": raw(b"[]"),
    "a text": raw(b'"a"'),
    "deep": raw(b"[" * 100_000),
    "not UTF-8": raw(b'{"a\xff": 1}'),
    "metadata of numbers": raw(json.dumps({"__metadata__": {KEY: 1}}).encode()),
    "metadata as a list": raw(json.dumps({"__metadata__": [KEY]}).encode()),
    "unknown dtype": raw(json.dumps({"a": entry(dtype="Q7")}).encode()),
    "dtype of another type": raw(json.dumps({"a": entry(dtype=4)}).encode()),
    "overlap": raw(json.dumps({"a": entry(), "b": entry(offsets=(4, 12))}).encode()),
    "a gap": raw(json.dumps({"a": entry(), "b": entry(offsets=(16, 24))}).encode()),
    "a huge shape": raw(json.dumps({"a": entry(shape=(2**40, 2**40))}).encode()),
    "a negative shape": raw(json.dumps({"a": entry(shape=(-2,))}).encode()),
    "a shape without end": raw(json.dumps({"a": entry(shape=[1] * 100_000)}).encode()),
    "a backward range": raw(json.dumps({"a": entry(offsets=(8, 0))}).encode()),
    "past the end": raw(json.dumps({"a": entry(shape=(100,), offsets=(0, 400))}).encode()),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_with_an_odd_header_is_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(FILES[case])
    with pytest.raises(InputError, match=r"odd\.safetensors: "):
        opened(path)
    with pytest.raises(InputError, match=r"odd\.safetensors: "):
        load_pretrained(path)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_weights_that_are_no_fractions_are_refused(kind: torch.dtype, saved: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved)
    state: dict[str, Tensor] = {name: tensor.to(kind) for name, tensor in checkpoint.state.items()}
    save_checkpoint(tmp_path / "a.safetensors", state, checkpoint.recipe, CLASSES, {})
    with pytest.raises(InputError, match=r"a\.safetensors: .* are no floating-point numbers, the first "):
        load_detector(tmp_path / "a.safetensors")


@pytest.mark.slow
def test_damaged_checkpoints_are_read_or_refused(saved: Path, tmp_path: Path) -> None:
    path, whole = tmp_path / "best.safetensors", saved.read_bytes()
    length = 8 + struct.unpack("<Q", whole[:8])[0]
    with safetensors.safe_open(saved, framework="pt") as file:
        header = file.metadata()[KEY].encode()
    tensors = safetensors.torch.load_file(saved)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        opened(path)

    def with_header(text: bytes) -> bytes:
        return safetensors.torch.save(tensors, {KEY: text.decode(errors="replace")})

    inputs = [
        *mutations(whole, 300, 1),
        *(raw(head[8:], whole[length:]) for head in mutations(whole[:length], 300, 2)),
        *map(with_header, json_mutations(header, 700, 3)),
        *map(with_header, mutations(header, 200, 4)),
    ]
    assert assert_read_or_refused(read, inputs, tmp_path).read > 50


@pytest.mark.slow
def test_damaged_folders_of_the_hub_are_read_or_refused(saved: Path, tmp_path: Path) -> None:
    folder = save_folder(load_checkpoint(saved), tmp_path / "hub", "a")
    whole = (folder / "config.json").read_bytes()

    def read(data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        rebuild(*load_folder(folder))

    assert assert_read_or_refused(read, [*json_mutations(whole, 300, 1), *mutations(whole, 100, 2)], tmp_path).read > 20


@pytest.mark.slow
def test_damaged_cards_of_backbones_are_read_or_refused(tmp_path: Path) -> None:
    detector = build_detector(TINY, CLASSES)
    state = {f"backbone.{name}": value for name, value in detector.backbone.state_dict().items()}  # type: ignore[union-attr]
    card = {
        "format": 1,
        "backbone": to_tree(TINY.backbone),
        "pixels": to_tree(TINY.pixels),
        "data": {"name": "mine"},
        "top1": 0.5,
    }
    path = tmp_path / "backbone.safetensors"

    def read(data: bytes) -> None:
        path.write_bytes(safetensors.torch.save(state, {"boxwright_backbone": data.decode(errors="replace")}))
        start_backbone(detector, path)

    text = json.dumps(card).encode()
    assert assert_read_or_refused(read, [*json_mutations(text, 400, 1), *mutations(text, 100, 2)], tmp_path).read > 20
