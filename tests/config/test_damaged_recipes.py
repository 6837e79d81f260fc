"""Recipes in TOML files, in options and in JSON: whatever they hold is read or refused, in bounded time and memory."""

from pathlib import Path

import pytest

from boxwright.config.bounds import DEEPEST
from boxwright.config.overlay import apply_overlays, parse_set, read_overlay
from boxwright.config.pretrain_recipe import dump_pretrain, pretrain_from_tree
from boxwright.config.reading import dump_recipe, load_recipe, parse_json
from boxwright.recipes import get_recipe, resolve_recipe
from boxwright.recipes.pretrain import pretrain_recipe
from boxwright.structures import InputError
from tests.support.hostile import assert_read_or_refused
from tests.support.mutations import json_mutations, mutations, toml_mutations

NAMES = ("faster-rcnn-r50-fpn", "ssd300-voc", "yolov3-detnet59")
OVERLAY = b"""\
base = "faster-rcnn-r50-fpn"
seed = 3
precision = "bf16"
[detector]
backbone = {kind = "resnet", depth = 101}
rpn = {post_nms = [1000, 300], anchors = {sizes = [[16], [32], [64], [128], [256]]}}
[data]
batch_size = 4
train = [{kind = "resize", short = [400, 500], long = 800}, {kind = "flip", p = 0.5}]
[stages.0]
length = 12
unit = "epochs"
optimiser = {kind = "adamw", lr = 1e-4, groups = [{prefix = "backbone", lr = 0.1}]}
schedule = {kind = "multistep", milestones = [8, 11], warmup = {steps = 100}}
"""
SETS = (
    "data.batch_size=8",
    "stages.0.optimiser.lr=0.01",
    "detector.rpn.anchors.sizes=[[16],[32],[64],[128],[256]]",
    'data.train=[{kind="flip",p=0.5}]',
    "detector.backbone=vgg16-bn",
    'stages.0.schedule={kind="cosine",final=0.1}',
    "ema=none",
)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("9" * 1000, "a whole number of more than 64 bits"),
        (str(-(2**63)), "a whole number of more than 64 bits"),
        ("9" * 5000, "a number with too many digits"),
        ("[" * 50 + "]" * 50, f"more than {DEEPEST} tables or lists in one another"),
        ("[" * 50_000, "too many tables or lists in one another"),
        ("{a=" * 50_000 + "1" + "}" * 50_000, "too many tables or lists in one another"),
        (f'"{"x" * 200_000}"', "a text of 200000 characters"),
        ("[" + "0," * 300_000 + "]", "more than 200000 values"),
        ("1\nseed = 7", "more than one value"),
    ],
)
def test_numbers_texts_and_depths_have_limits(value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"(?s)^--set data\.batch_size=.{{1,200}}: .*{said}") as caught:
        parse_set(f"data.batch_size={value}")
    assert len(str(caught.value)) < 800
    if "\n" in value:
        return
    path = tmp_path / "mine.toml"
    path.write_text(f"[data]\nbatch_size = {value}")
    with pytest.raises(InputError, match=rf"mine\.toml: .*{said}") as caught:
        read_overlay(path)
    assert len(str(caught.value)) < 800


def test_a_path_of_keys_has_limits() -> None:
    with pytest.raises(InputError, match=r"^--set a\.a\.a.*: too long; put it into a TOML file"):
        parse_set("a." * 100_000 + "a=1")
    with pytest.raises(InputError, match="--set") as caught:
        apply_overlays(get_recipe(NAMES[0]), [parse_set("x" * 90_000 + "=1")])
    assert len(str(caught.value)) < 3000


def test_a_large_file_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(InputError, match=r"a\.toml: more than 1000 kB; give the path of a recipe's TOML file"):
        read_overlay(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("9" * 1000, "seed: a whole number of more than 64 bits"),
        ("9" * 5000, "not valid JSON: .*digits"),
        ('"' + "x" * 200_000 + '"', "seed: a text of 200000 characters"),
        ('"\\ud800"', "seed: a text with half a character"),
        ("[" * 60 + "]" * 60, r"seed\.0\.0.*: more than 40 tables or lists"),
        ("[" * 100_000, "not valid JSON: .*tables or lists"),
    ],
)
def test_a_stored_recipe_has_the_same_limits(change: str, said: str) -> None:
    text = dump_recipe(get_recipe(NAMES[0])).replace('"seed": 0', f'"seed": {change}')
    with pytest.raises(InputError, match=f"^run/last.train: {said}") as caught:
        load_recipe(text, "run/last.train")
    assert len(str(caught.value)) < 800


@pytest.mark.slow
def test_damaged_toml_is_read_or_refused(tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        path = tmp_path / "mine.toml"
        path.write_bytes(data)
        resolve_recipe(str(path))

    inputs = [*mutations(OVERLAY, 400, 1), *toml_mutations(OVERLAY, 600, 2)]
    outcome = assert_read_or_refused(read, inputs, tmp_path)
    assert outcome.read > 20


@pytest.mark.slow
def test_damaged_options_are_read_or_refused(tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        resolve_recipe(NAMES[0], None, [data.decode(errors="surrogateescape")])

    inputs = [changed for i, text in enumerate(SETS) for changed in mutations(text.encode(), 100, i)]
    assert assert_read_or_refused(read, inputs, tmp_path).read > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damaged_stored_recipes_are_read_or_refused(name: str, tmp_path: Path) -> None:
    text = dump_recipe(get_recipe(name)).encode()
    inputs = [*mutations(text, 150, 1), *json_mutations(text, 350, 2)]
    assert assert_read_or_refused(lambda data: load_recipe(data.decode(errors="replace")), inputs, tmp_path).read > 5


@pytest.mark.slow
def test_damaged_recipes_of_pretraining_are_read_or_refused(tmp_path: Path) -> None:
    text = dump_pretrain(pretrain_recipe("resnet18", "small")).encode()
    inputs = [*json_mutations(text, 300, 3)]
    assert assert_read_or_refused(lambda data: pretrain_from_tree(parse_json(data, "a")), inputs, tmp_path).read > 5
