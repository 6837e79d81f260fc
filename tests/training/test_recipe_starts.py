"""Every recipe starts from a file of `boxwright pretrain` by ``--backbone-weights`` alone, and takes its tensors.

Networks are narrow, and what does not take the file's tensors has no memory at all.
"""

import re
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boxwright.backbones import NAMED_BACKBONES, BackboneConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.checkpoints import backbone_files as pretrained
from boxwright.checkpoints.backbone_files import load_pretrained, start_backbone
from boxwright.config.overlay import apply_overlays, parse_set
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import EFFICIENTNET_LITE, IMAGENET
from boxwright.recipes import RECIPES, get_recipe
from boxwright.recipes.pretrain import pretrain_recipe
from boxwright.structures import Classes, InputError
from boxwright.training.distributed import Processes
from boxwright.training.tasks.detection import DetectionTask
from tests.support.backbone_files import classifier_of, narrow, write_pretrained
from tests.support.toys import toy_index

CLASSES = Classes.from_names(["a", "b"])

STARTS: dict[str, str | None] = {
    "*-lite0-detnet-fpn": "efficientnet-lite0-detnet",
    "*-lite0*": "efficientnet-lite0",
    "*-detnet-small*": "detnet-small",
    "*-detnet59*": "detnet59",
    # The name of none: VGG-11 with batch norm, Darknet-53 and Fast YOLO's network at another width or norm.
    "rcnn-small*": None,
    "fast-rcnn-small*": None,
    "faster-rcnn-vgg-small*": None,
    "ssd-small*": None,
    "refinedet-small*": None,
    "yolov3-small*": None,
    "yolov1-small*": None,
    "faster-rcnn-resnet-small-fpn": "resnet-small",
    "faster-rcnn-fpn-small*": "resnet-small",
    "faster-rcnn-c4-small*": "resnet-small",
    "mask-rcnn-small*": "resnet-small",
    "retinanet-small*": "resnet-small",
    "rfcn-resnet-small*": "resnet-small",
    "rcnn-r50*": "resnet50",
    "*-r50*": "resnet50-v1",
    "*-r101*": "resnet101-v1",
    "*cnn-zf*": "zf",
    "fast-rcnn-vgg16-modern": "vgg16-bn",
    "faster-rcnn-vgg16-modern": "vgg16-bn",
    "*cnn-vgg16*": "vgg16",
    "refinedet*-vgg16*": "vgg16",
    "ssd300-voc-modern": "vgg16-bn",
    "ssd*-voc": "vgg16",
    "ssd*-coco": "vgg16",
    "ssd300-mobilenet": "mobilenet-v1",
    "ssdlite320-mobilenet-v2": "mobilenet-v2",
    "yolov1": "darknet-yolov1",
    "yolov1-fast": "darknet-yolov1-fast",
    "yolov1-modern": "darknet-extraction",
    "yolov2-small*": "darknet-small",
    "yolov2-tiny": "darknet-tiny",
    "yolov2*": "darknet19",
    "yolov3-tiny*": "darknet-tiny",
    "yolov3*": "darknet53",
}
"""Recipes by pattern, of which the first that fits counts, and the backbone whose file starts them."""

OTHER_STARTS = [
    # The reduced VGG, dilated and plain ResNets, and the trunk and the whole of YOLOv1 stand in for one another.
    ("ssd300-voc", "vgg16-reduced"),
    ("ssd300-voc", "vgg16-refinedet"),
    ("refinedet320-vgg16", "vgg16-reduced"),
    ("faster-rcnn-vgg16", "vgg16-reduced"),
    ("rfcn-r50-voc", "resnet50-dilated"),
    ("faster-rcnn-r50-fpn", "resnet50-dilated"),
    ("faster-rcnn-lite0-detnet-fpn", "efficientnet-lite0"),
]


def start_of(recipe: str) -> str | None:
    return next(name for pattern, name in STARTS.items() if fnmatch(recipe, pattern))


def tensors_for_a_detector(backbone: BackboneConfig) -> dict[str, Tensor]:
    """Return the tensors of a file of ``backbone`` that a detector takes, by the detector's names."""
    given = classifier_of(backbone)
    found = {key.removeprefix("backbone."): value for key, value in given.items() if key.startswith("backbone.")}
    if "fc.3.weight" in given and isinstance(backbone, VGGConfig):
        fc6 = given["fc.0.weight"].reshape(512, 64, 7, 7)
        found["fc6.weight"] = fc6[0::4][:, :, [0, 3, 6]][..., [0, 3, 6]]
        found["fc7.weight"] = given["fc.3.weight"][0::4, 0::4].reshape(128, 128, 1, 1)
        found |= {"fc6.bias": given["fc.0.bias"][0::4], "fc7.bias": given["fc.3.bias"][0::4]}
    return found | {f"features.18{key[7:]}": value for key, value in given.items() if key.startswith("fc.last.")}


def check_start(recipe: str, backbone: BackboneConfig, folder: Path) -> None:
    config = get_recipe(recipe).detector
    config = replace(config, backbone=narrow(config.backbone))  # type: ignore[call-arg,union-attr]
    with torch.device("meta"):
        detector = build_detector(config, CLASSES)
    for part in detector.pretrained_parts():
        part.to_empty(device="cpu")
    own = {key: value for part in detector.pretrained_parts() for key, value in part.state_dict().items()}
    for value in own.values():
        value.fill_(7)
    pixels = config.pixels
    if pixels != IMAGENET:
        with pytest.raises(InputError, match="trained on pixels prepared as") as refusal:
            start_backbone(detector, write_pretrained(folder, backbone, IMAGENET))
        sets = [word for word in str(refusal.value).replace("'", "").split() if word.startswith("detector.pixels.")]
        named = apply_overlays(replace(get_recipe(recipe), detector=config), [parse_set(word) for word in sets])
        assert named.detector.pixels == IMAGENET, "the settings that the refusal names are enough"
    line = start_backbone(detector, write_pretrained(folder, backbone, pixels))
    wanted = tensors_for_a_detector(backbone)
    fresh = {key for key in own if key not in wanted}
    assert all(key.startswith(("fc6_norm", "fc7_norm", "stages.5.5", "stages.6")) for key in fresh), fresh
    assert f": {len(own) - len(fresh)} tensors" in line
    assert len(own) - len(fresh) > 9
    for key in own.keys() - fresh:
        assert torch.equal(own[key], wanted[key].to(own[key].dtype)), key


def distinct() -> list[str]:
    """One recipe of each detector, backbone and pixels: nothing else of it matters here."""
    first: dict[str, str] = {}
    for name, recipe in RECIPES.items():
        detector = recipe.detector
        first.setdefault(f"{type(detector)} {detector.backbone} {detector.pixels}", name)  # type: ignore[union-attr]
    return list(first.values())


@pytest.mark.parametrize("recipe", [name for name in distinct() if start_of(name) is not None])
def test_one_option_starts_a_recipe(recipe: str, tmp_path: Path) -> None:
    name = start_of(recipe)
    assert name is not None
    check_start(recipe, NAMED_BACKBONES[name], tmp_path)


@pytest.mark.parametrize("recipe", distinct())
def test_the_name_of_a_recipe_pretrains_what_starts_it(recipe: str, tmp_path: Path) -> None:
    """Of those on networks without a name too, and in its own pixels."""
    start = pretrain_recipe(recipe, "small")
    assert start.pixels == RECIPES[recipe].detector.pixels
    assert start.name == f"{recipe}-small"
    check_start(recipe, start.backbone, tmp_path)


def test_a_name_of_nothing_is_refused_with_what_is_near() -> None:
    with pytest.raises(InputError, match=r"no backbone and no recipe 'detnet58'; did you mean 'detnet59'\?"):
        pretrain_recipe("detnet58")
    with pytest.raises(InputError, match=r"no recipe 'faster-rcnn-vgg-smal'; did you mean 'faster-rcnn-vgg-small'\?"):
        pretrain_recipe("faster-rcnn-vgg-smal")


@pytest.mark.parametrize(("recipe", "name"), OTHER_STARTS)
def test_networks_of_the_same_tensors_stand_in_for_one_another(recipe: str, name: str, tmp_path: Path) -> None:
    check_start(recipe, NAMED_BACKBONES[name], tmp_path)


def test_the_pixels_that_the_guide_names_are_all_there_are() -> None:
    """Each recipe has those of `boxwright pretrain` itself, or with one row of settings in docs/training.md."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    rows = re.findall(r"`((?:--set pixels\.\S+ ?)+)`", page)
    assert len(rows) == 3
    plain = pretrain_recipe("vgg16")
    known = [apply_overlays(plain, [parse_set(word) for word in row.split() if word != "--set"]).pixels for row in rows]
    for name, recipe in RECIPES.items():
        mine = recipe.detector.pixels
        assert mine == IMAGENET or any(pretrained._same_pixels(pixels, mine) for pixels in known), name


def test_recipes_without_a_start_are_on_networks_without_a_name() -> None:
    """Else the table could leave out what is refused."""
    taken_on = {"freeze_at", "out_levels", "zero_init_residual", "output_stride", "stem_pool", "ceil_mode"}
    taken_on |= {"fc", "fc6_dilation", "pool5", "tap"}

    def trunk(config: BackboneConfig) -> dict[str, Any]:
        values = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in taken_on}
        return {key: "bn" if value == "frozen_bn" else value for key, value in values.items()}

    named = {name: trunk(config) for name, config in NAMED_BACKBONES.items()}
    without = [name for name in RECIPES if start_of(name) is None]
    assert without
    for name in without:
        assert trunk(RECIPES[name].detector.backbone) not in named.values(), name  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("weights", "backbone_weights", "started"),
    [
        (None, None, "efficientnet-lite0"),
        (None, "none", None),
        (None, "FILE", "FILE"),
        ("checkpoint", None, None),
        ("checkpoint", "efficientnet-lite0", "efficientnet-lite0"),
    ],
)
def test_a_recipe_names_the_weights_of_its_backbone(
    weights: str | None, backbone_weights: str | None, started: str | None, tmp_path: Path
) -> None:
    """An option takes their place, and so does a checkpoint to fine-tune from."""
    recipe = replace(get_recipe("retinanet-lite0"), channels_last=False)
    file = write_pretrained(tmp_path, NAMED_BACKBONES["efficientnet-lite0"], EFFICIENTNET_LITE)
    index = toy_index(tmp_path / "data", 3)
    checkpoint = dict(build_detector(recipe.detector, index.classes).state_dict())
    task = DetectionTask(
        recipe,
        index,
        None,
        Processes(0, 1, torch.device("cpu")),
        build_detector,
        weights=checkpoint if weights else None,
        backbone_weights=str(file) if backbone_weights == "FILE" else backbone_weights,
    )
    detector = task.build(resumed=False)
    stem = detector.get_parameter("backbone.stem.0.weight")
    lines = [note for note in task.notes if note.startswith("backbone from ")]
    if started is None:
        assert lines == []
        assert weights is None or torch.equal(stem, checkpoint["backbone.stem.0.weight"])
    else:
        source = file if started == "FILE" else started
        assert [line.split(":")[0] for line in lines] == [f"backbone from {source}"]
        assert torch.equal(stem, load_pretrained(source).state["stem.0.weight"])


@pytest.mark.parametrize(
    ("recipe", "name", "told"),
    [
        ("faster-rcnn-r50-fpn", "resnet50", "stride_in_1x1 = False there and True here"),
        ("rcnn-vgg16", "vgg16-bn", "norm = 'bn' there and 'none' here"),
        ("faster-rcnn-detnet59-fpn", "detnet59-nodilation", "dilation = 1 there and 2 here"),
    ],
)
def test_other_networks_are_refused(recipe: str, name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        check_start(recipe, NAMED_BACKBONES[name], tmp_path)
