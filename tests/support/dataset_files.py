"""Small data sets on disk for the tests of readers, checks and converters."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_image(path: Path, height: int = 40, width: int = 60, seed: int = 0, **options: Any) -> Path:
    """Write a noise image. Two seeds never give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def coco_content(count: int = 2) -> dict[str, Any]:
    """Return a valid COCO file of ``count`` images of 60x40 with a box each, categories 3 and 7."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in range(1, count + 1)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7 if i % 2 else 3, "bbox": [1.1, 2.2, 10.3, 20.7], "area": 200.25}
            for i in range(1, count + 1)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write_coco_files(folder: Path, content: dict[str, Any] | None = None, split: str = "train") -> Path:
    """Write the content as instances_SPLIT.json with its images in ``images/``. Returns the path of the JSON."""
    content = coco_content() if content is None else content
    for number, entry in enumerate(content["images"]):
        path = folder / "images" / str(entry.get("file_name", "none.png"))
        if not path.exists():
            write_image(path, 40, 60, seed=number + len(split))
    file = folder / f"instances_{split}.json"
    file.write_text(json.dumps(content))
    return file


def voc_xml(
    name: str, boxes: list[tuple[str, float, float, float, float]], size: str = "60 40", extra: str = ""
) -> str:
    """Return a VOC annotation. ``size`` is "width height", or empty for none."""
    width, height = size.split() if size else ("", "")
    sized = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>" if size else ""
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult>{extra}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for label, x1, y1, x2, y2 in boxes
    )
    return f"<annotation>\n<filename>{name}</filename>\n{sized}\n{objects}</annotation>\n"


def write_voc_files(root: Path, stems: dict[str, list[str]]) -> Path:
    """Write a VOC root with one box per image; ``stems`` by split."""
    for split, names in stems.items():
        for number, stem in enumerate(names):
            write_image(root / "JPEGImages" / f"{stem}.jpg", seed=number + len(stem))
            (root / "Annotations").mkdir(exist_ok=True)
            (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(f"{stem}.jpg", [("cat", 2, 3, 30, 20)]))
        lists = root / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{s}\n" for s in names))
    return root


def write_yolo_files(root: Path, lines: dict[str, str], yaml: str | None = None) -> Path:
    """Write a YOLO root: ``lines`` by "split/stem" are the texts of the label files. Returns the path of data.yaml."""
    for number, (place, text) in enumerate(lines.items()):
        write_image(root / "images" / f"{place}.png", seed=number)
        label = root / "labels" / f"{place}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text)
    file = root / "data.yaml"
    file.write_text(yaml or "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return file


def class_folders(root: Path, per_class: int = 4, splits: tuple[str, ...] = ("train", "val"), side: int = 20) -> Path:
    """Write class folders of reddish and bluish noise, which a small network can tell apart."""
    rng = np.random.default_rng(0)
    for split in splits:
        for channel, name in ((0, "red"), (2, "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                pixels = rng.integers(0, 120, (side, side + 4, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


RED = (220, 30, 30)


def write_drawn(path: Path, box: tuple[int, int, int, int] = (10, 8, 40, 32), size: tuple[int, int] = (60, 40)) -> Path:
    """Write a grey image, width and height ``size``, with a red rectangle: ``box`` x1 y1 x2 y2, the end exclusive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = zlib.crc32(path.name.encode())  # no two files are equal
    image = Image.new("RGB", size, tuple(60 + (shade >> bits) % 60 for bits in (0, 8, 16)))
    image.paste(RED, box)
    image.save(path, **({"quality": 95, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}))
    return path


def drawn_box(path: Path) -> list[int]:
    """Return the corners of the red rectangle in an image."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    ys, xs = np.nonzero((pixels[..., 0] > 150) & (pixels[..., 1] < 100))
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def yolo_line(
    box: tuple[int, int, int, int] = (10, 8, 40, 32), size: tuple[int, int] = (60, 40), label: int = 0
) -> str:
    """Return the line of a YOLO label file for a box in pixels."""
    (x1, y1, x2, y2), (width, height) = box, size
    values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return f"{label} " + " ".join(f"{value:.6f}" for value in values) + "\n"


def write_drawn_coco(file: Path, images: list[Path], box: tuple[int, int, int, int] = (10, 8, 40, 32)) -> Path:
    """Write a COCO file of images by `write_drawn`, which are written too, their names relative to the file."""
    x1, y1, x2, y2 = box
    for image in images:
        write_drawn(image, box)
    content = {
        "images": [
            {"id": i, "file_name": image.name, "width": 60, "height": 40} for i, image in enumerate(images, start=1)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": 1, "iscrowd": 0}
            for i in range(1, len(images) + 1)
        ],
        "categories": [{"id": 1, "name": "red"}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file
