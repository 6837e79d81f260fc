"""RefineDet against luuuyi/RefineDet.PyTorch: every stored tensor, the anchors and the detections."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from boxwright.anchors.generator import with_sides_within
from boxwright.data.transforms.resizing import WarpConfig
from boxwright.detectors.refinedet import RefineDet, RefineDetConfig
from boxwright.geometry.boxes import xyxy_to_cxcywh
from boxwright.structures import Classes, Images, InputError
from boxwright.weights.common.class_names import VOC as CLASSES_OF_VOC
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.imported import build_imported
from boxwright.weights.ports.refinedet_pytorch import (
    import_refinedet_pytorch,
    recognise_refinedet_pytorch,
    refinedet_config,
    refinedet_state,
)
from tests.support.golden import GoldenCase, compare_share
from tests.support.resizing import opencv_resize

VOC = Classes.from_names([f"class {i}" for i in range(20)])
SIDE = 320


class Reference(GoldenCase):
    """The case, and our detector with its weights."""

    def __init__(self, golden: Path) -> None:
        super().__init__(golden / "refinedet320_vgg16_voc")
        self.detector = RefineDet(refinedet_config(), VOC).eval()
        self.detector.load_state_dict(refinedet_state(self.weights))

    def images(self, number: int) -> Images:
        """Return image ``number`` as the port resizes it."""
        pixels = torch.from_numpy(opencv_resize(self.picture(number), SIDE, SIDE)).permute(2, 0, 1).unsqueeze(0)
        return Images(pixels, torch.tensor([[SIDE, SIDE]]))


@pytest.fixture(scope="module")
def reference(shared_golden: Path) -> Reference:
    return Reference(shared_golden)


@pytest.mark.parametrize("number", [0, 1])
def test_every_tensor_equals_the_ports(reference: Reference, number: int) -> None:
    detector, images = reference.detector, reference.images(number)
    with torch.inference_mode():
        pixels = detector.normalise(images)
        maps, sources = detector.backbone(pixels), detector.sources(pixels)
        assert detector.tcb is not None
        pyramid, out = detector.tcb(sources), detector.heads(sources)
    background_first = [20, *range(20)]
    found = {
        "input": pixels,
        "vgg22": maps[0],
        "vgg29": maps[1],
        "vgg34": maps[2],
        "l2_conv4_3": sources[0],
        "l2_conv5_3": sources[1],
        "arm_loc": out.arm_deltas,
        "arm_conf": out.arm_logits.flip(-1),
        "odm_loc": out.odm_deltas,
        "odm_conf": out.odm_logits[..., background_first],
    } | {f"tcb{i}": fmap for i, fmap in enumerate(pyramid)}
    assert set(found) == reference.names(number) - {"dets"}
    for name, value in found.items():
        reference.check(f"img{number}/{name}", value)


def test_anchors_equal_the_ports(reference: Reference) -> None:
    shapes = [(SIDE // stride, SIDE // stride) for stride in (8, 16, 32, 64)]
    anchors = reference.detector.anchors(shapes, torch.device("cpu"))
    reference.check("priors", xyxy_to_cxcywh(with_sides_within(anchors, SIDE, SIDE)) / SIDE)
    unlike = (xyxy_to_cxcywh(anchors) / SIDE - torch.from_numpy(reference.stored["priors"])).abs().amax(1) > 1e-6
    assert unlike.sum() == 50, "the coarsest level's wide and high anchors, which the port caps"


@pytest.mark.parametrize("number", [0, 1])
def test_detections_equal_the_ports(reference: Reference, number: int) -> None:
    with torch.inference_mode():
        found = reference.detector(reference.images(number))
    name = f"img{number}/dets"
    least = reference.spec["outputs"][name]["suggested"]["min_share"]
    compare_share(name, reference.share_found(name, found, (SIDE, SIDE)), least)
    # The port keeps what is left of each class, with no limit over all of them.
    assert found.valid.sum().item() == pytest.approx(reference.spec["outputs"][name]["total"], rel=0.005)


def test_the_ports_conventions_are_options() -> None:
    ours, theirs = RefineDetConfig(), refinedet_config()
    unlike = {f.name for f in fields(ours) if getattr(ours, f.name) != getattr(theirs, f.name)}
    assert unlike == {"l2_eps", "head", "clip_sides", "filtered", "assign", "pixels", "post"}
    assert replace(ours.head, start="glorot") == theirs.head
    assert replace(ours.assign, forced="parallel", difficult=False) == theirs.assign
    assert (theirs.post.per_class, theirs.post.clip, theirs.pixels.bgr) == (1000, False, False)
    assert [refinedet_config(classes).post.detections for classes in (3, 20, 80)] == [3000, 20_000, 80_000]


def test_keys_may_carry_the_prefix_of_data_parallel(reference: Reference) -> None:
    prefixed = refinedet_state({f"module.{key}": value for key, value in reference.weights.items()})
    assert prefixed.keys() == refinedet_state(reference.weights).keys()


def test_the_port_is_recognised_and_imported_whole(reference: Reference) -> None:
    state = {f"module.{key}": value for key, value in reference.weights.items()}
    assert recognise_refinedet_pytorch(tensors_in(state))
    imported = import_refinedet_pytorch(state, size=512)
    assert imported.classes is CLASSES_OF_VOC
    assert imported.transforms == (WarpConfig(size=(512, 512), interpolations=("opencv",)),)
    built = build_imported(imported, "RefineDet512.pth")
    assert built.config == reference.detector.config
    ours = reference.detector.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in built.state_dict().items())
    with pytest.raises(InputError, match="is for 20 classes and background, but 1 names were given; give 20"):
        import_refinedet_pytorch(state, Classes.from_names(["one"]))
    with pytest.raises(InputError, match="size = 300: RefineDet's input is a multiple of 64"):
        import_refinedet_pytorch(state, size=300)
    half = {key: value for key, value in reference.weights.items() if not key.startswith("vgg")}
    with pytest.raises(InputError, match=r"half.pth: no whole checkpoint of .*: 30 of \d+ tensors are missing"):
        build_imported(import_refinedet_pytorch(half), "half.pth")
    assert not recognise_refinedet_pytorch({"loc.0.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"among 1 keys there is no conv4_3_L2Norm.weight"):
        import_refinedet_pytorch({"loc.0.weight": torch.zeros(1)})


def test_foreign_and_partial_files_are_named() -> None:
    one = torch.zeros(12, 8, 3, 3)
    with pytest.raises(InputError, match=r"1 keys are not of RefineDet.PyTorch, the first is 'loc.0.weight'"):
        refinedet_state({"loc.0.weight": one})
    with pytest.raises(InputError, match=r"has 'arm_loc.0.weight' but not 'arm_conf.0.weight'"):
        refinedet_state({"arm_loc.0.weight": one})
