"""Trees and overlays on a small configuration: what goes in comes out, and every slip is named."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from boxwright.backbones import BackboneConfig, ResNetConfig, TimmConfig, VGGConfig
from boxwright.config.config_tree import from_tree, to_tree
from boxwright.config.overlay import apply_overlays, parse_set, read_overlay
from boxwright.fields import config
from boxwright.structures import InputError


@config
class Circle:
    kind: Literal["circle"] = "circle"
    radius: Annotated[float, Field(gt=0)] = 1.0


@config
class Square:
    kind: Literal["square"] = "square"
    side: float = 2.0

    def __post_init__(self) -> None:
        if self.side == 13:
            raise InputError("side = 13 brings bad luck")


@config
class Limits:
    low: int = 0
    high: int = 9


@config
class Sheet:
    name: str
    shapes: tuple[Circle | Square, ...] = ()
    main: Circle | Square = Circle()
    limits: Limits | None = None
    sizes: tuple[int, int] | None = None
    mode: Literal["plain", "fancy"] = "plain"
    exact: bool = False


TIMM = TimmConfig(name="resnet18.a1_in1k", out_levels=(3, 4))
BASE = Sheet(name="base", shapes=(Circle(radius=3.0), Square()))


def changed(*sets: str) -> Sheet:
    return apply_overlays(BASE, [parse_set(s) for s in sets])


def test_tree_round_trip() -> None:
    full = Sheet(name="a", shapes=(Square(side=1.5),), main=Square(), limits=Limits(low=-1), sizes=(3, 4))
    assert from_tree(Sheet, to_tree(full)) == full


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (("shapes.0.radius=5",), Sheet(name="base", shapes=(Circle(radius=5), Square()))),
        # Another kind starts from its own defaults: the old kind's keys mean nothing to it.
        (("main.kind=square", "main.side=4"), Sheet(name="base", shapes=BASE.shapes, main=Square(side=4))),
        (("main={kind='square', side=1.0}",), Sheet(name="base", shapes=BASE.shapes, main=Square(side=1.0))),
        (("limits.high=3",), Sheet(name="base", shapes=BASE.shapes, limits=Limits(high=3))),
        (("sizes=[1,2]", "sizes=none"), BASE),
        (("sizes=[1,2]", "sizes.1=7"), Sheet(name="base", shapes=BASE.shapes, sizes=(1, 7))),
        (("shapes=[]",), Sheet(name="base")),
        (("shapes.+=circle",), Sheet(name="base", shapes=(*BASE.shapes, Circle()))),
        (
            ("shapes.+1={kind='square', side=2}",),
            Sheet(name="base", shapes=(Circle(radius=3.0), Square(side=2), Square())),
        ),
        (("shapes.+0=square", "shapes.0.side=4"), Sheet(name="base", shapes=(Square(side=4), *BASE.shapes))),
        (("shapes.+=['square', {kind='circle'}]",), Sheet(name="base", shapes=(*BASE.shapes, Square(), Circle()))),
        (("shapes=[]", "shapes.+={kind='square'}"), Sheet(name="base", shapes=(Square(),))),
        (("name=new-name",), Sheet(name="new-name", shapes=BASE.shapes)),
        (("exact = true", "mode='fancy'"), Sheet(name="base", shapes=BASE.shapes, exact=True, mode="fancy")),
    ],
)
def test_set(sets: tuple[str, ...], expected: Sheet) -> None:
    assert changed(*sets) == expected


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("shapes.0.raduis=5",), ["--set shapes.0.raduis=5", "shapes.0", "'raduis'", "did you mean 'radius'"]),
        (("side=5",), ["--set side=5", "did you mean 'shapes.1.side'"]),
        (("zzz=5",), ["'zzz'", "the keys are name, shapes, main"]),
        (("shapes.0.radius=0",), ["--set shapes.0.radius=0", "shapes.0.radius = 0", "greater than 0"]),
        (("shapes.0.radius='big'",), ["shapes.0.radius = 'big'", "valid number"]),
        (("exact=1",), ["exact = 1", "boolean"]),
        (("limits.low=1.5",), ["limits.low = 1.5", "integer"]),
        (("limits.low=true",), ["limits.low = True", "integer"]),
        (("main.kind=sqare",), ["main.kind = 'sqare'", "'circle', 'square'", "did you mean 'square'"]),
        (("main=3",), ["main = 3", "must be a table"]),
        (("shapes.2.radius=1",), ["--set shapes.2.radius=1", "0 to 1", "'2'"]),
        (("shapes.first.radius=1",), ["0 to 1", "'first'"]),
        (("shapes.+3=circle",), ["--set shapes.+3=circle", "0 to 1", "'+3'", "+ adds one at the end"]),
        (("shapes.+=circel",), ["--set shapes.+=circel", "shapes.2.kind = 'circel'", "did you mean 'circle'"]),
        (("shapes.+={kind='circle', raduis=5}",), ["shapes.2 has no key 'raduis'", "did you mean 'radius'"]),
        (("shapes=3",), ["shapes = 3", "must be a list"]),
        (("shapes=[{radius=1.0}]",), ["shapes.0 lacks its kind", "'circle', 'square'"]),
        (("shapes.1.side=13",), ["--set shapes.1.side=13", "bad luck"]),
        (("shapes.1.side=13",), ["shapes.1.side = 13 brings bad luck"]),
        (("sizes=[1,2,3]",), ["sizes = [1, 2, 3]"]),
        (("sizes=[1]",), ["--set sizes=[1]: sizes = [1]: must have 2 entries"]),
        (("sizes=[1,'2']",), ["--set sizes=[1,'2']: sizes.1 = '2': should be a valid integer"]),
        (("limits=3",), ["limits = 3: must be a table with the keys low, high"]),
        (("main.kind=3",), ["main.kind = 3: must be one of"]),
        (("mode=fance",), ["mode = 'fance'", "'plain' or 'fancy'"]),
        (("name=1979-05-27",), ["name = 1979-05-27", "date"]),
        (("limits.low=2", "limits.hihg=2"), ["--set limits.hihg=2:", "did you mean 'high'"]),
    ],
)
def test_bad_set_names_key_origin_and_remedy(sets: tuple[str, ...], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        changed(*sets)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["name", "=3", "a..b=3", "name=two words", "sizes=[1,"])
def test_set_that_cannot_be_parsed(text: str) -> None:
    with pytest.raises(InputError, match=r"^--set "):
        parse_set(text)


def test_overlay_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "file"\n[shapes.1]\nside = 8\n[limits]\nlow = 2\n')
    sheet = apply_overlays(BASE, [read_overlay(file), parse_set("limits.high=4")])
    assert sheet == Sheet(name="file", shapes=(Circle(radius=3.0), Square(side=8)), limits=Limits(low=2, high=4))


def test_overlay_file_errors_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[limits]\nlwo = 2\n")
    with pytest.raises(InputError, match=r"mine.toml: limits has no key 'lwo'; did you mean 'low'"):
        apply_overlays(BASE, [parse_set("limits.low=1"), read_overlay(file)])
    file.write_text("[limits\n")
    with pytest.raises(InputError, match=r"mine.toml: not valid TOML: .*line 1"):
        read_overlay(file)
    with pytest.raises(InputError, match=r"absent.toml: no such file"):
        read_overlay(tmp_path / "absent.toml")


@config
class Net:
    backbone: BackboneConfig = field(default_factory=lambda: ResNetConfig(depth=18, freeze_at=1))
    word: str = "plain"


@pytest.mark.parametrize(
    ("sets", "backbone"),
    [
        (["backbone=vgg16-bn"], VGGConfig(norm="bn")),
        (["backbone=vgg16-bn", "backbone.freeze_at=2"], VGGConfig(norm="bn", freeze_at=2)),
        (["backbone.depth=34", "backbone=resnet50"], ResNetConfig()),
        (["backbone=timm:resnet18.a1_in1k", "backbone.out_levels=[3, 4]"], TIMM),
    ],
)
def test_a_name_stands_for_a_backbones_whole_table(sets: list[str], backbone: BackboneConfig) -> None:
    assert apply_overlays(Net(), [parse_set(s) for s in sets]) == Net(backbone=backbone)


def test_an_unknown_backbone_is_named_with_its_origin_and_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"--set backbone=vgg-16: backbone: there is no backbone 'vgg-16'; did you mean"
    ):
        apply_overlays(Net(), [parse_set("backbone=vgg-16")])
    assert apply_overlays(Net(), [parse_set("word=vgg-16")]).word == "vgg-16"
