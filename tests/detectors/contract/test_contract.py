"""Laws that hold for every detector."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from boxwright.data.transforms.configs import ResizeConfig, WarpConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.capabilities import TakesProposals
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.structures import Classes, Images, InputError, Targets
from boxwright.testing import forbid_host_sync
from tests.support.batches import example_images as plain_images
from tests.support.batches import example_targets as example_boxes
from tests.support.batches import with_masks
from tests.support.detector_cases import CASES, Case
from tests.support.two_stage_cases import example_proposals, small_faster_rcnn

CLASSES = Classes.from_names(["disc", "bar", "ring"])


VARIANTS = ("_average", "_detnet", "_focal", "_modern", "_vgg", "_zf")
"""Ends of the names of cases that differ from another one in a loss or in the backbone: their graphs are slow tests."""
compiles = pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=pytest.mark.slow if name.endswith(VARIANTS) else ()) for name in CASES],
    indirect=True,
)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def detector(case: Case) -> Detector:
    torch.manual_seed(0)
    built = build_detector(case.config, CLASSES)
    for name, parameter in built.named_parameters():
        if name.endswith(case.spread):
            nn.init.normal_(parameter, std=0.3)  # spread scores: detections to compare
    return built.eval()


def images_with_proposals(batch: int, height: int, width: int) -> Images:
    """With proposals: who finds its own must ignore them."""
    proposals = example_proposals(2, height, width)  # the same for the first two of any batch
    return plain_images(batch, height, width)._replace(proposals=proposals[torch.arange(batch) % 2])


def example_targets() -> Targets:
    """With masks: who has no use for them must ignore them."""
    return with_masks(example_boxes())


def without_objects(rows: int) -> Targets:
    no = torch.zeros(2, rows, dtype=torch.bool)
    labels = torch.zeros(2, rows, dtype=torch.int64)
    return Targets(torch.zeros(2, rows, 4), labels, no, no, no, torch.zeros(2, rows, 128, 160, dtype=torch.bool))


@pytest.mark.parametrize("rows", [0, 8])
def test_images_without_objects_have_background_loss_only(detector: Detector, case: Case, rows: int) -> None:
    losses = detector.train()(images_with_proposals(2, *case.size), without_objects(rows))
    torch.stack(list(losses.values())).sum().backward()
    for name, loss in losses.items():
        assert loss.isfinite()
        assert loss == 0 or not ("box" in name or name == "mask"), name
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())


def test_the_argument_decides_and_not_the_mode(detector: Detector, case: Case) -> None:
    images = images_with_proposals(2, *case.size)
    for mode in (True, False):
        detector.train(mode)
        assert isinstance(detector(images, example_targets()), dict)
        assert detector(images).boxes.shape[0] == 2


def test_a_batch_equals_its_singles(detector: Detector, case: Case) -> None:
    images = images_with_proposals(2, *case.size)
    with torch.inference_mode():
        together = detector(images)
        assert together.valid.sum() > 10
        for b in range(2):
            alone = detector(Images(*(t if t is None else t[b : b + 1] for t in images._replace(seeds=None))))
            torch.testing.assert_close(together.scores[b], alone.scores[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(together.boxes[b], alone.boxes[0], atol=1e-2, rtol=1e-3)


def taken(images: Images, targets: Targets, *index: int) -> tuple[Images, Targets]:
    """These images of a batch, with their targets."""
    chosen = list(index)
    return (
        Images(*(t if t is None else t[chosen] for t in images)),
        Targets(*(t if t is None else t[chosen] for t in targets)),
    )


def test_the_losses_of_a_batch_follow_from_its_images(detector: Detector, case: Case) -> None:
    """Two processes, or accumulated steps, equal one large batch where a loss is the mean of its images' losses.

    A loss that is divided by a count over the batch is a weighted mean instead: it lies between the losses of the
    images, and an image beside itself has the loss that it has alone. One that is divided by a moving average is their
    sum, as the average is a constant outside of training.
    """
    batch = images_with_proposals(2, *case.size), example_targets()
    together, first, second = (detector(*taken(*batch, *index)) for index in ((0, 1), (0,), (1,)))
    twice = detector(*taken(*batch, 0, 0))
    for name, loss in together.items():
        low, high = torch.stack([first[name], second[name]]).sort().values
        slack = 1e-6 + 1e-4 * high.abs()
        match case.normaliser:
            case "image":
                torch.testing.assert_close(loss, (low + high) / 2, atol=1e-6, rtol=1e-4)
            case "batch":
                assert low - slack <= loss <= high + slack, name
                torch.testing.assert_close(twice[name], first[name], atol=1e-6, rtol=1e-4)
            case "average":
                torch.testing.assert_close(loss, low + high, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("case", [name for name in CASES if not CASES[name].any_size], indirect=True)
def test_a_detector_of_one_size_refuses_others(detector: Detector, case: Case) -> None:
    height, width = case.size
    with pytest.raises(InputError, match=rf"{height + 32}.*{width}"):
        detector(images_with_proposals(2, height + 32, width))


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name].any_size], indirect=True)
def test_what_stands_in_the_padding_changes_nothing(detector: Detector, case: Case) -> None:
    images = images_with_proposals(2, *case.size)._replace(sizes=torch.tensor([[100, 130], [128, 160]]))
    noisy = images.pixels.clone()
    noisy[0, :, 100:] = 77
    noisy[0, :, :, 130:] = 200
    with torch.inference_mode():
        a, b = detector(images), detector(images._replace(pixels=noisy))
    assert torch.equal(a.boxes, b.boxes)
    assert (a.boxes[0][..., 2] <= 130).all(), "boxes stay within the true image"
    assert (a.boxes[0][..., 3] <= 100).all()


def test_padding_rows_of_the_truth_change_nothing(detector: Detector, case: Case) -> None:
    images, targets = images_with_proposals(2, *case.size), example_targets()
    wide = Targets(*(t if t is None else torch.cat([t, torch.zeros_like(t[:, :2])], 1) for t in targets))
    plain, padded = detector(images, targets), detector(images, wide)
    for name, loss in plain.items():
        if name in ("classification", "box", "mask") and "rpn_box" in plain:
            continue  # the sampled regions include the truth, whose padding rows shift the draw
        torch.testing.assert_close(padded[name], loss)


def test_state_dict_round_trip(detector: Detector, case: Case) -> None:
    twin = build_detector(detector.config, CLASSES).eval()
    twin.load_state_dict(copy.deepcopy(detector.state_dict()))
    images = images_with_proposals(2, *case.size)
    with torch.inference_mode():
        assert torch.equal(detector(images).boxes, twin(images).boxes)


@compiles
def test_one_graph_for_training_and_inference(detector: Detector, case: Case) -> None:
    images, targets = images_with_proposals(2, *case.size), example_targets()
    torch.compiler.reset()  # the graphs of the detectors before count against a limit
    compiled = torch.compile(detector, fullgraph=True, backend="aot_eager")
    eager, graph = detector(images, targets), compiled(images, targets)
    for name, loss in eager.items():
        torch.testing.assert_close(graph[name], loss, atol=1e-5, rtol=1e-4)
    torch.stack(list(graph.values())).sum().backward()
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images).scores, detector(images).scores, atol=1e-5, rtol=1e-4)


def test_exports_whole_with_a_dynamic_batch(detector: Detector, case: Case) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        detector, (images_with_proposals(2, *case.size)._replace(seeds=None),),
        dynamic_shapes=(Images({0: batch}, {0: batch}, None, {0: batch}),),
    )  # fmt: skip
    images = images_with_proposals(3, *case.size)._replace(seeds=None)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images).boxes, detector(images).boxes, atol=1e-2, rtol=1e-3)


def test_no_host_synchronisation_in_a_training_step(detector: Detector, case: Case) -> None:
    detector.train()
    images, targets = images_with_proposals(2, *case.size), example_targets()
    with forbid_host_sync():
        torch.stack(list(detector(images, targets).values())).sum().backward()


@pytest.mark.gpu
def test_no_host_synchronisation_on_a_gpu(detector: Detector, case: Case) -> None:
    detector.train().cuda()
    images, targets = images_with_proposals(2, *case.size).to("cuda"), example_targets().to("cuda")
    detector(images, targets)  # compiles kernels
    with forbid_host_sync():
        torch.stack(list(detector(images, targets).values())).sum().backward()


@pytest.mark.gpu
def test_gpu_and_cpu_agree(detector: Detector, case: Case) -> None:
    images, targets = images_with_proposals(2, *case.size), example_targets()
    on_gpu = copy.deepcopy(detector).cuda()
    losses, gpu_losses = detector(images, targets), on_gpu(images.to("cuda"), targets.to("cuda"))
    for name, loss in losses.items():
        torch.testing.assert_close(gpu_losses[name].cpu(), loss, atol=1e-3, rtol=1e-2)


def test_optimised_copy_gives_the_same_detections(detector: Detector, case: Case) -> None:
    images = images_with_proposals(2, *case.size)
    with torch.inference_mode():
        plain, fast = detector(images), detector.optimised()(images)
    torch.testing.assert_close(plain.scores, fast.scores, atol=1e-4, rtol=1e-3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in detector.optimised().modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in detector.modules()), "the original keeps its norms"
    with torch.inference_mode():
        half = detector.optimised(torch.bfloat16)(images)
    assert half.boxes.dtype == half.scores.dtype == torch.float32
    torch.testing.assert_close(plain.scores[:, :5], half.scores[:, :5], atol=0.1, rtol=0.1)


def test_detect_takes_what_people_have(detector: Detector, case: Case, tmp_path) -> None:
    if isinstance(detector, TakesProposals):
        pytest.importorskip("cv2", reason="images alone have no proposals; selective search needs OpenCV")
    detector.preparation = replace(detector.preparation, transforms=(ResizeConfig(short=(96,), long=160),))
    if not case.any_size:
        detector.preparation = Preparation(transforms=(WarpConfig(size=case.size),), pad_multiple=1)
    array = images_with_proposals(1, 128, 176).pixels[0].permute(1, 2, 0).numpy().copy()
    path = tmp_path / "image.png"
    Image.fromarray(array).save(path)
    sources = [str(path), path, Image.fromarray(array), array, torch.from_numpy(array).permute(2, 0, 1)]
    found = detector.detect(sources, threshold=0.1, batch_size=2)
    assert len(found) == 5
    assert len(found[0]) > 0
    for other in found[1:]:
        np.testing.assert_allclose(found[0].boxes, other.boxes, atol=0.05)
    assert found[0].path == path
    assert found[2].path is None
    assert (found[0].boxes[:, 2] <= 176).all()
    assert found[0].boxes[:, 2].max() > 120, "pixels of the original, not of the resized image"
    assert len(detector.detect(array[..., 0])) == 1, "gray arrays are welcome"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "give uint8 values"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"\[3, H, W\]"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        ("no such file.jpg", "no such file.jpg"),
    ],
)
def test_detect_refuses_what_it_cannot_read(detector: Detector, case: Case, source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        detector.detect(source)  # type: ignore[arg-type]


def test_bgr_swaps_channels_after_normalising() -> None:
    config = replace(small_faster_rcnn(), pixels=PixelConfig(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0), bgr=True))
    detector = build_detector(config, CLASSES)
    pixels = torch.tensor([11, 22, 33], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert detector.normalise(Images(pixels, torch.tensor([[32, 32]])))[0, :, 0, 0].tolist() == [30, 20, 10]


def test_no_classes_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one class"):
        build_detector(small_faster_rcnn(), Classes((), ()))
