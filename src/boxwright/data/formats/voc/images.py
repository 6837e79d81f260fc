"""Find the image of a VOC annotation, which two names may give: that of the XML file and that in its ``filename``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from boxwright.data.formats.lists import composed
from boxwright.data.formats.places import images_by_stem
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.voc.layout import ANNOTATION_FOLDERS

_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")  # in any case


class VocImages:
    """Images of a VOC data set. Those outside its folder are taken only where it holds none."""

    def __init__(self, root: Path, log: ProblemLog) -> None:
        self.root = root
        self.log = log
        self._stems: dict[Path, dict[str, list[str]]] = {}
        self._homes: dict[Path, list[Path]] = {}
        self._searched: dict[Path, tuple[list[Path], list[Path]]] = {}  # all, and those in the data set

    def find(self, xml: Path, file_name: str) -> Path:
        """Return the image of an XML file, or the path where it is expected if there is none.

        Refuses an image that cannot be told: the names of the XML file and in it are of two images.
        """
        name = re.split(r"[/\\]", file_name)[-1]
        if xml.parent not in self._searched:
            bound = self.root.parent if self.root.name.lower() in ANNOTATION_FOLDERS else self.root
            every = self._folders(xml)
            self._searched[xml.parent] = every, [folder for folder in every if folder.is_relative_to(bound)]
        folders, inside = self._searched[xml.parent]
        found = self._among(inside, xml, name)
        if found is None and not any(self._listing(f) for f in inside):
            found = self._among([f for f in folders if f not in inside], xml, name)
            if found is not None:
                message = "{count} images were found outside the folder of the data set, the first: {first}"
                self.log.gather("image-outside", "warning", xml, str(found), message, announced=True)
        if found is not None:
            return found
        home = next((f for f in folders if self._stems.get(f)), folders[0])
        return home / (name or f"{xml.stem}.jpg")

    def _folders(self, xml: Path) -> list[Path]:
        """Return the folders that may hold the image of an XML file, the nearest first."""
        bases = (self.root, xml.parent, xml.parent.parent, self.root.parent, self.root.parent.parent)
        folders = [*(folder for base in bases for folder in self._image_folders(base)), xml.parent, self.root]
        annotations = next((p for p in xml.parents if p.name.lower() in ANNOTATION_FOLDERS), None)
        if annotations is not None and xml.parent != annotations:  # Annotations/a/1.xml is of JPEGImages/a/1.jpg
            inner = xml.parent.relative_to(annotations)
            mirrored = [folder / inner for folder in self._image_folders(annotations.parent)]
            mirrored = [folder for folder in mirrored if folder.is_dir()]
            if mirrored:
                return mirrored
        return list(dict.fromkeys(folders))

    def _image_folders(self, base: Path) -> list[Path]:
        """Return the folders of images in a folder, in the order of their usual names."""
        if base not in self._homes:
            try:
                names = sorted(os.listdir(base))
            except OSError:
                names = []
            self._homes[base] = [base / name for kind in _FOLDERS for name in names if name.lower() == kind]
        return self._homes[base]

    def _among(self, folders: list[Path], xml: Path, name: str) -> Path | None:
        """Return the image in the given folders; None without one."""
        stem = os.path.splitext(name)[0]
        own = self._lookup(folders, xml, xml.stem, name)
        named = own if not name or stem == xml.stem else self._lookup(folders, xml, stem, name)
        if named is None and name not in ("", stem):
            named = self._lookup(folders, xml, name, name)  # a suffix that belongs to the stem
        if own is None or named is None or own == named:
            if own is not None and named is None and name:
                message = "{count} XML files name another image than that of their own name, which is taken: {items}"
                self.log.gather("file-name", "info", xml, f"{xml.name} ({name})", message)
            return own or named
        self.log.refuse(
            "two-images", xml, "filename",
            f"names {name}, but {own.name} has the name of the XML file, and both exist; rename one of them",
        )  # fmt: skip
        return own

    def _lookup(self, folders: list[Path], xml: Path, stem: str, name: str) -> Path | None:
        for folder in folders:
            if names := self._listing(folder).get(composed(stem)):
                same = [other for other in names if os.path.basename(other) == name]
                if len(names) > 1 and len(same) != 1:
                    self.log.refuse(
                        "two-images", xml, "filename",
                        f"does not tell which image it is of: {folder} holds {' and '.join(names)}; name one there",
                    )  # fmt: skip
                return folder / (same or names)[0]
        return None

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """Return the image names of a folder by stem, in composed Unicode."""
        if folder not in self._stems:
            listing: dict[str, list[str]] = {}
            inner = folder.name.lower() in _FOLDERS  # a root has masks in other folders, of the same names
            for stem, names in images_by_stem(folder, recursive=inner).items():
                listing.setdefault(composed(stem), []).extend(names)
            self._stems[folder] = listing
        return self._stems[folder]
