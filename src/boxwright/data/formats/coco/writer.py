"""Write a data set as COCO detection files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from boxwright.data.formats.writing.output import (
    ImageTransfer,
    place_image,
    unique_names,
    write_text_file,
)
from boxwright.data.index import DetectionIndex


def write_coco(folder: Path | str, splits: Mapping[str, DetectionIndex], images: ImageTransfer = "copy") -> list[str]:
    """Write ``annotations/instances_SPLIT.json`` and the images in ``SPLIT/``.

    Returns one sentence for each kind of content that did not fit the format. With ``images="none"`` the images stay
    where they are: the JSON names them relative to ``folder`` if they are below it, else by the full path. Category
    ids, annotation ids, crowds, masks and the values of the boxes are written unchanged. Difficult boxes get the key
    ``difficult``. Existing JSON files are replaced atomically.
    """
    root = Path(folder).absolute()
    names, renamed = unique_names(splits, one_folder=False)
    announcements = (
        [f"{renamed} images were renamed, because two had the same name"] if renamed and images != "none" else []
    )
    for split, index in splits.items():
        content = index.to_coco()
        for i, entry in enumerate(content["images"]):
            if images == "none":
                path = index.path(i).absolute()
                entry["file_name"] = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            else:
                entry["file_name"] = names[split][i]
                place_image(index.path(i), image_folder(root, split) / names[split][i], images)
        if (difficult := sum("difficult" in row for row in content["annotations"])) > 0:
            announcements.append(
                f"{split}: {difficult} difficult boxes have the key `difficult`, which COCO tools ignore"
            )
        if [row["id"] for row in content["annotations"]] != index.annotation_ids.tolist():
            announcements.append(f"{split}: annotation ids were zero, negative or repeated; renumbered from 1")
        write_text_file(root / "annotations" / f"instances_{split}.json", json.dumps(content, separators=(",", ":")))
    return announcements


def image_folder(folder: Path | str, split: str) -> Path:
    """Return the folder in which `write_coco` puts the images of a split."""
    return Path(folder) / split
