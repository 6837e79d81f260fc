"""The stored outputs of the DetNet-59 classifier."""

import numpy as np
import torch
from torch import Tensor

from boxwright.backbones import Classifier
from tests.support.golden import GoldenCase

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@torch.inference_mode()
def check_classifier(case: GoldenCase, model: Classifier) -> None:
    """Compare every stage and the logits of both images with the stored outputs."""
    found: dict[str, Tensor] = {}
    hook = model.backbone.get_submodule("layer1").register_forward_pre_hook(lambda _, x: found.update(maxpool=x[0]))
    for number in range(len(case.spec["images"])):
        pixels = torch.from_numpy(((case.picture(number) / 255 - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)[None]
        found["logits"] = model(pixels)
        found |= {f"layer{i}": fmap for i, fmap in enumerate(model.backbone(pixels), start=1)}
        assert case.names(number) == set(found)
        for name, value in found.items():
            case.check(f"img{number}/{name}", value)
    hook.remove()
