"""Train torchvision's ssdlite320_mobilenet_v3_large from random weights by torchvision's reference recipe.

The recipe is that of ``references/detection``: SGD with momentum 0.9 and weight decay 0.00004; learning rate 0.15 for
8 x 24 images, here in proportion to the batch of 24; a cosine over all epochs after a linear rise in the first; random
crops by IoU and flips; crowds left out. It has 660 epochs there, and as many here as fit into the minutes. The
reference validates after each epoch, this program only after the last, so that the minutes go into training.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchvision import tv_tensors
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.transforms import v2

from boxwright.app.evaluate import save_detections
from boxwright.data.formats.opening import open_dataset
from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.evaluation.columns import DetectionLog

RATE, BATCH, MOMENTUM, DECAY = 0.15 / (8 * 24), 24, 0.9, 4e-5
WARMUP, WARMUP_FACTOR = 1000, 1e-3


class Images(Dataset):  # type: ignore[type-arg]
    """Images with targets in torchvision's form, augmented for training; those without objects are left out then."""

    def __init__(self, index: DetectionIndex, train: bool) -> None:
        self.index = index
        crops = [v2.RandomIoUCrop(), v2.RandomHorizontalFlip(0.5), v2.SanitizeBoundingBoxes()] if train else []
        self.transform = v2.Compose([*crops, v2.ToDtype(torch.float32, scale=True)])
        kept = (i for i in range(len(index)) if not train or (~index.annotations(i).crowd).any())
        self.chosen = list(kept)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        i = self.chosen[item]
        pixels = tv_tensors.Image(torch.from_numpy(read_image(self.index.path(i))).permute(2, 0, 1))
        found = self.index.annotations(i)
        boxes = torch.from_numpy(found.boxes[~found.crowd]).float()
        height, width = pixels.shape[-2:]
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),  # type: ignore[call-overload]
            "labels": torch.from_numpy(found.labels[~found.crowd]).long() + 1,  # 0 is background
        }
        return self.transform(pixels, target)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    data = Path(plan["data"])
    torch.manual_seed(plan["seed"])
    torch.set_num_threads(1)
    train = open_dataset(data, "train")
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(train.classes) + 1)
    seconds, steps = fit(model, Images(train, train=True), plan["epochs"])
    validated = 0.0
    result: dict[str, Any] = {"batch": BATCH, "steps": steps, "train_seconds": seconds}
    for split, target in plan["detections"].items():
        begun = time.monotonic()
        index = open_dataset(data, split)
        save_detections(Path(target), index, detect(model, index))
        if not validated:  # the first split is validated within the minutes
            validated = time.monotonic() - begun
            result |= {"seconds": time.time() - plan["started"], "val_seconds": validated, "validations": 1}
    (folder / "result.json").write_text(json.dumps(result))


def fit(model: torch.nn.Module, images: Images, epochs: int) -> tuple[float, int]:
    """Train by the reference recipe. Returns seconds and the number of steps."""
    begun = time.monotonic()
    batch = min(BATCH, len(images))
    sampler = BatchSampler(RandomSampler(images), batch, drop_last=True)
    loader = DataLoader(images, batch_sampler=sampler, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE * batch, momentum=MOMENTUM, weight_decay=DECAY)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    rise = torch.optim.lr_scheduler.LinearLR(optimiser, WARMUP_FACTOR, total_iters=max(1, min(WARMUP, len(loader) - 1)))
    loss = torch.zeros(())
    model.train()
    for epoch in range(epochs):
        for pixels, targets in loader:
            losses = model(list(pixels), list(targets))
            loss = torch.stack(list(losses.values())).sum()
            if not math.isfinite(loss.item()):
                raise SystemExit(f"epoch {epoch + 1}: the loss is {loss.item()}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if epoch == 0:
                rise.step()
        cosine.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return time.monotonic() - begun, epochs * len(loader)


@torch.inference_mode()
def detect(model: torch.nn.Module, index: DetectionIndex) -> Any:
    """Return the detections of a split in pixels of the original images."""
    model.eval()
    images = Images(index, train=False)
    log = DetectionLog({index.image_id(i): index.size(i) for i in range(len(index))}, len(index.classes))
    for item in range(len(images)):
        pixels, _ = images[item]
        found: Sequence[dict[str, torch.Tensor]] = model([pixels])
        log.add(index.image_id(item), found[0]["boxes"], found[0]["scores"], found[0]["labels"] - 1)
    return log.columns()


if __name__ == "__main__":
    main()
