"""Detection of the publisher of a file, and messages for files without an importer."""

import json
import struct
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn, ssdlite320_mobilenet_v3_large

from boxwright.checkpoints.opening import load_detector
from boxwright.data.transforms.resizing import WarpConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.imported import build_imported
from boxwright.weights.import_detector import IMPORTERS, import_checkpoint, publishers, read_names
from tests.support import caffe_reference
from tests.support.caffe_reference import Random
from tests.support.published_layouts import mmdet_yolov3_shapes, one_number, refinedet_shapes, ssd300_shapes


@pytest.fixture(scope="module")
def ssdlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the smallest of torchvision's detectors with random weights for the number of classes of VOC."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    path = tmp_path_factory.mktemp("importing") / "ssdlite.pth"
    torch.save(model.state_dict(), path)
    return path


def saved(path: Path, names: dict[str, tuple[int, ...]]) -> Path:
    torch.save({name: torch.zeros(shape) for name, shape in names.items()}, path)
    return path


RESNET = {"conv1.weight": (4, 3, 7, 7), "bn1.weight": (4,), "layer1.0.conv1.weight": (4, 4, 1, 1)}


def test_the_publisher_is_found_out_or_confirmed(ssdlite: Path):
    found, named = import_checkpoint(ssdlite), import_checkpoint(ssdlite, publisher="torchvision")
    assert found.source == named.source == "torchvision ssdlite320_mobilenet_v3_large"
    assert (len(found.classes), found.classes.names[0]) == (20, "aeroplane")
    detector = build_imported(found, str(ssdlite))
    assert detector.preparation.transforms == found.transforms


def test_classes_of_ones_own(ssdlite: Path):
    names = Classes.from_names([f"thing {k}" for k in range(20)])
    assert import_checkpoint(ssdlite, names).classes == names
    for count in (3, 19, 21):
        with pytest.raises(InputError, match=rf"ssdlite\.pth: .* for 20 classes, but {count} names .* give 20 names"):
            import_checkpoint(ssdlite, Classes.from_names([f"thing {k}" for k in range(count)]))


def test_the_wrong_publisher(ssdlite: Path):
    with pytest.raises(
        InputError, match=r"not of mmdet: its tensors are named as those of torchvision .*leave the publ"
    ):
        import_checkpoint(ssdlite, publisher="mmdet")
    for publisher, suffix in (("darknet", "weights"), ("caffe", "caffemodel")):
        with pytest.raises(InputError, match=rf"not of {publisher}, whose files end in \.{suffix}"):
            import_checkpoint(ssdlite, publisher=publisher)
    with pytest.raises(InputError, match="publisher 'tensorflow': none of torchvision, "):
        import_checkpoint(ssdlite, publisher="tensorflow")


def test_a_size_is_only_for_those_that_do_not_tell_it(ssdlite: Path):
    with pytest.raises(InputError, match=r"ssdlite\.pth: size 512: the file tells it"):
        import_checkpoint(ssdlite, size=512)


def test_files_that_fit_several_sizes_ask(tmp_path: Path):
    mobile = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=4).state_dict()
    cases = {
        "refinedet": (one_number(refinedet_shapes(5)), (320, 512)),
        "mobile": (mobile, (320, 800)),
        "yolov3": (one_number(mmdet_yolov3_shapes(3)), (320, 416, 608)),
    }
    for name, (state, sizes) in cases.items():
        path = tmp_path / f"{name}.pth"
        torch.save({"state_dict": {key: value.contiguous() for key, value in state.items()}}, path)
        options = " or ".join(f"--size {size}" for size in sizes[-2:])
        with pytest.raises(InputError, match=rf"{name}\.pth: fits models of .*, whose tensors .*{options}") as caught:
            import_checkpoint(path)
        assert "weights convert" in str(caught.value)
        for size in sizes:
            view = import_checkpoint(path, size=size).transforms[0]
            side = view.size[0] if isinstance(view, WarpConfig) else view.short[0]  # type: ignore[union-attr]
            assert side == size
        assert import_checkpoint(path, any_size=True).state
        with pytest.raises(InputError, match=rf"{name}\.pth: size"):
            import_checkpoint(path, size=333)


def test_a_configuration_in_the_file_tells_the_size(tmp_path: Path):
    state = {key: value.contiguous() for key, value in one_number(mmdet_yolov3_shapes(3)).items()}
    text = "dict(type='Resize', scale=(320, 320))\ntest_pipeline = [dict(type='Resize', scale=(416, 416))]"
    torch.save({"meta": {"cfg": text}, "state_dict": state}, tmp_path / "a.pth")
    assert import_checkpoint(tmp_path / "a.pth").transforms[0].short == (416,)  # type: ignore[union-attr]


def test_values_that_are_no_numbers_are_named(ssdlite: Path, tmp_path: Path):
    whole = torch.load(ssdlite, weights_only=True)
    names = [name for name in whole if name.endswith("bias")][:5]
    for name, value in zip(names, (torch.nan, torch.inf, -torch.inf, torch.nan, 3e38), strict=True):
        whole[name] = torch.full_like(whole[name], value)
    path = tmp_path / "nan.pth"
    torch.save(whole, path)
    for build in (lambda: build_imported(import_checkpoint(path), str(path)), lambda: load_detector(path)):
        with pytest.raises(
            InputError, match=r"nan\.pth: values that are NaN or infinite in (\S+, ){2}\S+ and 1 more; "
        ):
            build()


def test_darknets_and_caffes_files_are_known_without_their_suffix(tmp_path: Path):
    (tmp_path / "mine.backup").write_bytes(struct.pack("<3iq", 0, 2, 5, 100) + bytes(40))
    with pytest.raises(InputError, match=r"mine\.backup: needs the cfg .*put it there as mine\.cfg"):
        import_checkpoint(tmp_path / "mine.backup")
    with pytest.raises(InputError, match="a file of darknet by its first bytes, not one of mmdet"):
        import_checkpoint(tmp_path / "mine.backup", publisher="mmdet")
    random = Random()
    random.conv("conv9", 8, 3)
    caffe_reference.write(tmp_path / "iter_80000", random.blobs)
    with pytest.raises(InputError, match=r"iter_80000: none of the detectors that can be read, .*layers conv9"):
        import_checkpoint(tmp_path / "iter_80000")


def test_tensors_of_other_shapes_and_kinds_are_refused(tmp_path: Path):
    for name, value in (("loc.0.weight", torch.zeros(())), ("conf.1.bias", torch.zeros(7)), ("L2Norm.weight", None)):
        state = {key: tensor.contiguous() for key, tensor in one_number(ssd300_shapes(1)).items()} | {name: value}
        torch.save(state, tmp_path / "a.pth")
        with pytest.raises(InputError, match=r"a\.pth: .*(other shapes or types|no importer knows|another shape)"):
            build_imported(import_checkpoint(tmp_path / "a.pth"), str(tmp_path / "a.pth"))


def test_half_the_tensors(ssdlite: Path, tmp_path: Path):
    whole = torch.load(ssdlite, weights_only=True)
    half = {name: value for name, value in whole.items() if "backbone.features.1." not in name}
    torch.save(half, tmp_path / "half.pth")
    with pytest.raises(InputError, match=r"half\.pth: .*(missing|whole)"):
        build_imported(import_checkpoint(tmp_path / "half.pth"), str(tmp_path / "half.pth"))


@pytest.mark.parametrize("last", ["fc", "classifier.6"])
def test_a_classifier(tmp_path: Path, last: str):
    path = saved(tmp_path / "a.pth", {**RESNET, f"{last}.weight": (1000, 4), f"{last}.bias": (1000,)})
    with pytest.raises(InputError, match=r"an image classifier of 1000 classes \(5 tensors, .* detector was expected"):
        import_checkpoint(path)


@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.body."])
def test_a_bare_backbone(tmp_path: Path, prefix: str):
    path = saved(tmp_path / "a.pth", {prefix + name: shape for name, shape in RESNET.items()})
    with pytest.raises(InputError, match=r"a bare backbone \(3 tensors, .* it has no heads"):
        import_checkpoint(path)


def test_an_unknown_layout(tmp_path: Path):
    path = saved(tmp_path / "a.pth", {"encoder.0.w": (1,), "encoder.1.w": (1,), "decoder.w": (2,)})
    expected = r"no importer knows its layout: 3 tensors, by the first part of their names encoder \(2\), decoder \(1\)"
    with pytest.raises(InputError, match=expected):
        import_checkpoint(path)
    with pytest.raises(InputError, match=rf"not of detectron2: {expected}"):
        import_checkpoint(path, publisher="detectron2")


def test_no_tensors_at_all(tmp_path: Path):
    torch.save({"epoch": 3, "note": "x"}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"no tensors in it; its entries are 'epoch', 'note'"):
        import_checkpoint(tmp_path / "a.pth")


def test_darknet_needs_its_cfg(tmp_path: Path):
    path = tmp_path / "mine.weights"
    path.write_bytes(b"\0" * 20)
    with pytest.raises(InputError, match=r"needs the cfg that it was trained with.* put it there as mine\.cfg"):
        import_checkpoint(path)
    with pytest.raises(InputError, match="a file of darknet by its name, not one of mmdet"):
        import_checkpoint(path, publisher="mmdet")


def test_nobody_takes_what_another_wrote(ssdlite: Path):
    from boxwright.weights.common.foreign_files import read_foreign

    state = read_foreign(ssdlite)
    assert [importer.publisher for importer in IMPORTERS if importer.recognise(state)] == ["torchvision"]
    assert len(set(publishers())) == len(publishers()) == len(IMPORTERS) + 2


LAYOUTS = {
    "d2_faster_rcnn_r50_c4": "detectron2",
    "d2_faster_rcnn_r50_fpn": "detectron2",
    "d2_mask_rcnn_r50_fpn": "detectron2",
    "d2_retinanet_r50_fpn": "detectron2",
    "detnet59_fpn_voc": "detnet_pytorch",
    "mmdet_retinanet_r50_fpn": "mmdet",
    "mmdet_ssd300_vgg16": "mmdet",
    "refinedet320_vgg16_voc": "refinedet_pytorch",
    "ssd300_vgg16_voc": "ssd_pytorch",
}


@pytest.mark.parametrize(("case", "publisher"), LAYOUTS.items(), ids=LAYOUTS)
def test_each_published_layout_has_one_taker(case: str, publisher: str, shared_golden: Path):
    keys = json.loads((shared_golden / case / "keys.json").read_text())
    state = {name: torch.zeros(()).expand(shape) for name, shape in keys}
    for content in (state, {"model": state}, {"state_dict": state}):
        takers = [importer.publisher for importer in IMPORTERS if importer.recognise(content)]
        assert takers in ([publisher], []), takers
    assert any(importer.recognise(state) for importer in IMPORTERS)


def test_a_published_classifier_is_no_detector(shared_golden: Path, tmp_path: Path):
    keys = json.loads((shared_golden / "detnet59_cls" / "keys.json").read_text())
    path = saved(tmp_path / "a.pth", {name: tuple(shape[:1]) for name, shape in keys})
    with pytest.raises(InputError, match="an image classifier of 1000 classes"):
        import_checkpoint(path)


def test_names_from_a_file(tmp_path: Path):
    path = tmp_path / "mine.names"
    path.write_text("cat\n\n hot dog \n", encoding="utf-8-sig")
    assert read_names(path).names == ("cat", "hot dog")
    path.write_text("cat\ncat\n")
    with pytest.raises(InputError, match=r"mine\.names: "):
        read_names(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="no names in it"):
        read_names(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_names(tmp_path / "absent.names")
