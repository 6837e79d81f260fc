"""Write a data set as COCO detection files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxwright.data.formats.writing.names import check_splits, unique_names
from boxwright.data.formats.writing.output import ImageTransfer, Written, lost_views, place_image, write_text_file
from boxwright.data.index import DetectionIndex


def write_coco(
    folder: Path | str,
    splits: Mapping[str, DetectionIndex],
    images: ImageTransfer = "copy",
    *,
    names: Mapping[Path, str] | None = None,
    keys: Mapping[Path, Mapping[str, Any]] | None = None,
) -> Written:
    """Write ``annotations/instances_SPLIT.json`` and the images in ``SPLIT/``.

    Returns one sentence for each kind of content that did not fit the format. With ``images="none"`` the images stay
    where they are: the JSON names them relative to ``folder`` if they are below it, else by the full path. ``names``:
    file names to write instead of the images' own, by path. ``keys``: further keys of image entries, by path. Category
    ids, annotation ids, crowds, masks and the values of the boxes are written unchanged. Difficult boxes get the key
    ``difficult``. Existing JSON files are replaced atomically. Raises InputError for a split that cannot name a folder.
    """
    root = Path(folder).absolute()
    check_splits(splits, taken=("annotations",))
    file_names, renamed = unique_names(splits, one_folder=False, own=names)
    written = Written(announcements=renamed if images != "none" else [])
    for split, index in splits.items():
        content = index.to_coco()
        for i, entry in enumerate(content["images"]):
            entry.update((keys or {}).get(index.path(i), {}))
            if images == "none":
                path = index.path(i).absolute()
                entry["file_name"] = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            else:
                entry["file_name"] = file_names[split][i]
                place_image(index.path(i), image_folder(root, split) / file_names[split][i], images)
        if (difficult := sum("difficult" in row for row in content["annotations"])) > 0:
            written.announcements.append(
                f"{split}: {difficult} difficult boxes have the key `difficult`, which COCO tools ignore"
            )
        written.announcements += [f"{split}: {said}" for said in lost_views(index)]
        if [row["id"] for row in content["annotations"]] != index.annotation_ids.tolist():
            written.announcements.append(f"{split}: annotation ids were zero, negative or repeated; renumbered from 1")
        write_text_file(root / "annotations" / f"instances_{split}.json", json.dumps(content, separators=(",", ":")))
        written.boxes[split] = index.num_boxes
    return written


def image_folder(folder: Path | str, split: str) -> Path:
    """Return the folder in which `write_coco` puts the images of a split."""
    return Path(folder) / split
