"""The catalogue of published checkpoints, compared with torchvision's own tables and checked by its own rules."""

import re

import pytest
from torchvision.models import get_model_weights

from boxwright.structures import InputError
from boxwright.weights.published.catalogue import BACKBONES, CATALOGUE, PUBLISHERS, find_published, is_name

ALL = (*CATALOGUE, *BACKBONES)


def test_names_are_unique_and_say_who_published_it():
    names = [entry.name for entry in ALL]
    assert len(set(names)) == len(names)
    assert {entry.publisher for entry in CATALOGUE} == set(PUBLISHERS)
    assert all(is_name(name) for name in names)
    assert not is_name("run/best.safetensors")
    assert not is_name("C:\\run")


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.name)
def test_every_row_is_whole(entry):
    assert entry.data
    assert entry.licence
    assert all(0 < figure < 1 for figure in entry.figures.values())
    assert not entry.figures or entry.measured_on
    for file in entry.files:
        assert file.url.startswith("https://")
        assert re.fullmatch(r"[\w.%-]+\.(pth|pkl|weights|cfg|conv\.\d+)", file.name)
        for digits in (file.sha256, file.md5):
            assert digits is None or re.fullmatch(r"[0-9a-f]{6,64}", digits)
        # A checksum comes from a file's name, nowhere else.
        assert all(digits is None or digits in file.name for digits in (file.sha256, file.md5))


@pytest.mark.parametrize("entry", [e for e in CATALOGUE if e.publisher == "torchvision"], ids=lambda entry: entry.name)
def test_torchvision_says_the_same(entry):
    theirs = get_model_weights(entry.name.split(":")[1]).COCO_V1  # type: ignore[attr-defined]
    (file,) = entry.files
    assert file.url == theirs.url
    assert file.sha256 == re.search(r"-([0-9a-f]+)\.pth", theirs.url)[1]  # type: ignore[index]
    assert file.about == pytest.approx(theirs.meta["_file_size"] * 2**20, abs=2**20 / 1000)
    metrics = theirs.meta["_metrics"]["COCO-val2017"]
    assert entry.figures["AP"] == pytest.approx(metrics["box_map"] / 100)
    assert entry.figures.get("mask AP", 0) == pytest.approx(metrics.get("mask_map", 0) / 100)


@pytest.mark.parametrize("entry", [e for e in BACKBONES if e.publisher == "torchvision"], ids=lambda entry: entry.name)
def test_torchvision_says_the_same_of_its_classifiers(entry):
    name = entry.name.split(":")[1]
    weights = get_model_weights(name.removesuffix("_features"))
    theirs = weights.IMAGENET1K_FEATURES if name.endswith("_features") else weights.IMAGENET1K_V1  # type: ignore[attr-defined]
    (file,) = entry.files
    assert file.url == theirs.url
    assert file.about == pytest.approx(theirs.meta["_file_size"] * 2**20, abs=2**20 / 1000)
    metrics = theirs.meta["_metrics"]["ImageNet-1K"]
    told = {"top-1": metrics["acc@1"] / 100, "top-5": metrics["acc@5"] / 100}
    assert entry.figures == ({} if name.endswith("_features") else pytest.approx(told))


def test_what_a_download_is_verified_by_is_said():
    known = {name: find_published(name).files[0].known for name in ("torchvision:ssd300_vgg16", "darknet:yolov3")}
    assert known == {"torchvision:ssd300_vgg16": "8 digits of SHA-256", "darknet:yolov3": "size"}
    assert find_published("detectron:e2e_faster_rcnn_R-50-FPN_1x").files[0].known == "unknown"


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'torchvision:ssd300_vgg16'\? `boxwright weights list`"):
        find_published("torchvision:ssd300_vgg")
    with pytest.raises(InputError, match="no published checkpoint of that name is known; `boxwright weights list`"):
        find_published("x:$")
