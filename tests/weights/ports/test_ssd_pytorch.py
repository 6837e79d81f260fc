"""SSD300 against amdegroot/ssd.pytorch: every stored tensor, the priors and the detections."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boxwright.anchors.priors import default_boxes
from boxwright.data.transforms.resizing import WarpConfig
from boxwright.detectors.ssd import SSD, SSDConfig
from boxwright.geometry.boxes import xyxy_to_cxcywh
from boxwright.structures import Classes, Images, InputError
from boxwright.weights.common.class_names import VOC
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.imported import build_imported
from boxwright.weights.ports.ssd_pytorch import import_ssd_pytorch, recognise_ssd_pytorch, ssd_config, ssd_state
from tests.support.golden import GoldenCase, compare_share
from tests.support.published_layouts import one_number, ssd300_shapes
from tests.support.resizing import opencv_resize

SIDE = 300


@pytest.fixture(scope="module")
def case(shared_golden: Path) -> GoldenCase:
    return GoldenCase(shared_golden / "ssd300_vgg16_voc")


def built_from(case: GoldenCase) -> SSD:
    built = SSD(ssd_config(), Classes.from_names([f"class {i}" for i in range(20)])).eval()
    built.load_state_dict(ssd_state(case.weights))
    return built


@pytest.fixture(scope="module")
def detector(case: GoldenCase) -> SSD:
    return built_from(case)


@pytest.mark.parametrize("number", [0, 1])
def test_every_tensor_and_detection_equals_the_ports(case: GoldenCase, detector: SSD, number: int) -> None:
    pixels = torch.from_numpy(opencv_resize(case.picture(number), SIDE, SIDE)).permute(2, 0, 1).unsqueeze(0)
    images = Images(pixels, torch.tensor([[SIDE, SIDE]]))
    found: dict[str, Tensor] = {"input": detector.normalise(images)}
    conv5_3 = detector.backbone.features[28]  # type: ignore[index, union-attr]
    assert isinstance(conv5_3, nn.Conv2d)
    hook = conv5_3.register_forward_hook(lambda module, args, out: found.update(vgg29=out.relu()))
    with torch.inference_mode():
        found["vgg22"], found["vgg34"] = (fmap.clone() for fmap in detector.backbone(found["input"]))
        maps = detector.maps(found["input"])
        found["loc"], logits = detector.predict(maps)
        detections = detector(images)
    hook.remove()
    found["conf"] = logits[..., [20, *range(20)]]
    found |= {f"source{i}": fmap for i, fmap in enumerate(maps)}
    assert set(found) == case.names(number) - {"dets"}
    for name, value in found.items():
        case.check(f"img{number}/{name}", value)
    compare_share(f"img{number}/dets", case.share_found(f"img{number}/dets", detections, (SIDE, SIDE)), 0.99)
    # The port keeps what is left of each class, with no limit over all of them.
    total = case.spec["outputs"][f"img{number}/dets"]["total"]
    assert detections.valid.sum().item() == pytest.approx(total, rel=0.005)


def test_priors_equal_the_ports(case: GoldenCase, detector: SSD) -> None:
    maps = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    priors = default_boxes(detector.config.priors, maps, (SIDE, SIDE), torch.device("cpu"))
    case.check("priors", xyxy_to_cxcywh(priors) / SIDE)


def test_keys_may_carry_the_prefix_of_data_parallel(case: GoldenCase) -> None:
    prefixed = ssd_state({f"module.{key}": value for key, value in case.weights.items()})
    assert prefixed.keys() == ssd_state(case.weights).keys()


def test_the_port_is_recognised_and_imported_whole(case: GoldenCase, detector: SSD) -> None:
    state = {f"module.{key}": value for key, value in case.weights.items()}
    assert recognise_ssd_pytorch(tensors_in(state))
    imported = import_ssd_pytorch(state)
    assert imported.classes is VOC
    assert imported.transforms == (WarpConfig(size=(300, 300), interpolations=("opencv",)),)
    built = build_imported(imported, "ssd300_mAP_77.43_v2.pth")
    assert built.config == detector.config
    assert all(torch.equal(value, detector.state_dict()[name]) for name, value in built.state_dict().items())
    with pytest.raises(InputError, match="is for 20 classes and background, but 1 names were given; give 20"):
        import_ssd_pytorch(state, Classes.from_names(["one"]))
    half = dict(list(case.weights.items())[:40]) | {
        key: value for key, value in case.weights.items() if key.startswith(("loc", "conf", "L2"))
    }
    with pytest.raises(
        InputError, match=r"half.pth: no whole checkpoint of ssd.pytorch ssd300_vgg16: \d+ of 59 tensors"
    ):
        build_imported(import_ssd_pytorch(half), "half.pth")
    assert not recognise_ssd_pytorch({"arm_loc.0.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"among 1 keys there is no L2Norm.weight"):
        import_ssd_pytorch({"arm_loc.0.weight": torch.zeros(1)})


def test_foreign_and_partial_files_are_named() -> None:
    one = torch.zeros(16, 8, 3, 3)
    with pytest.raises(InputError, match=r"1 keys are not of ssd.pytorch, the first is 'arm_loc.0.weight'"):
        ssd_state({"arm_loc.0.weight": one})
    for key, other in (("loc.0.weight", "conf.0.weight"), ("conf.0.weight", "loc.0.weight")):
        with pytest.raises(InputError, match=f"has '{key}' but not '{other}'"):
            ssd_state({key: one})


@pytest.mark.parametrize("classes", [1, 3, 19, 20, 21, 80, 200])
def test_default_boxes_of_other_numbers_of_classes(classes: int) -> None:
    # The port takes its table "voc" where it has 21 columns and its table "coco" everywhere else.
    imported = import_ssd_pytorch(one_number(ssd300_shapes(classes)))
    assert isinstance(imported.config, SSDConfig)
    first, last = ((30, 60), (264, 315)) if classes == 20 else ((21, 45), (261, 315))
    assert (imported.config.priors.sizes[:2], imported.config.priors.sizes[-2:]) == (first, last)
    assert imported.config.priors.clip == "all"
    assert imported.config.post.detections == 200 * classes, "all that NMS leaves of the best 200 of each"
    assert imported.config.priors.steps == (8, 16, 32, 64, 100, 300)
    detector = build_imported(imported, "mine.pth")
    assert isinstance(detector, SSD)
    priors = default_boxes(detector.config.priors, [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)],
                           (SIDE, SIDE), torch.device("cpu"))  # fmt: skip
    side = 30 if classes == 20 else 21
    assert priors[0].tolist() == pytest.approx([4 - side / 2, 4 - side / 2, 4 + side / 2, 4 + side / 2])
    assert len(imported.classes) == classes
    first_name = {20: "aeroplane", 80: "person", 200: "person"}.get(classes, "class_0")
    assert imported.classes.names[0] == first_name
    assert imported.classes.names[-1] == {20: "tvmonitor", 80: "toothbrush"}.get(classes, f"class_{classes - 1}")
