"""Find the label file of an image, and label files without an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from boxwright.data.formats.lists import composed
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.images import is_hidden, is_image_name, unreadable_reason, walk_files
from boxwright.structures import InputError

_IMAGE_FOLDERS = ("images", "jpegimages", "image", "imgs", "img")  # in any case
_NOT_LABELS = ("classes", "labels", "names", "predefined_classes")


def label_file(image: Path) -> Path:
    """Return where the label file of an image is expected: the last folder ``images`` becomes ``labels``."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() in _IMAGE_FOLDERS:
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


class LabelFinder:
    """Finds label files in the listings of the folders where they may be, each read once.

    In this order: where ``labels`` replaces a folder such as ``images`` of the image's path, the last of them first;
    beside the image; in a folder ``labels`` in or beside its folder. For a link, then the same of its target. Names
    match in any Unicode form, and if no other fits, in any case.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.owners: dict[Path, Path] = {}  # image by label file
        self._listings: dict[str, dict[str, str]] = {}
        self._folded: dict[str, dict[tuple[int, str], str]] = {}
        self._folders: dict[str, list[str]] = {}

    def find(self, image: Path, log: ProblemLog) -> Path | None:
        """Return the label file of an image, or None. Refuses one that belongs to another image too."""
        found = self._found(image)
        if not found:
            return None
        label = found[0]
        others = [other for other in found[1:] if not _same(label, other)]
        if others:
            log.correct(
                "two-labels",
                "warning",
                image,
                "",
                f"has two different label files; {label} is read, {others[0]} is not",
            )
        owner = self.owners.setdefault(label, image)
        if owner != image and not os.path.samefile(owner, image):
            log.refuse(
                "shared-label", label, "",
                f"belongs to two images, {owner} and {image.name}; rename one image and its label file",
            )  # fmt: skip
        return label

    def folders(self, folder: Path) -> list[str]:
        """Return the existing folders where the label files of a folder of images may be."""
        key = str(folder)
        if key not in self._folders:
            real = os.path.realpath(key)
            places = [*self._places(folder), *(self._places(Path(real)) if real != key else ())]
            self._folders[key] = list(dict.fromkeys(place for place in places if os.path.isdir(place)))
        return self._folders[key]

    def listing(self, folder: str) -> dict[str, str]:
        """Return the names of the label files in a folder, by composed stem."""
        if folder not in self._listings:
            names = (name for name in sorted(os.listdir(folder)) if not is_hidden(name))
            self._listings[folder] = {
                composed(os.path.splitext(name)[0]): name for name in names if name.lower().endswith(".txt")
            }
        return self._listings[folder]

    def _found(self, image: Path) -> list[Path]:
        stem = composed(image.stem)
        folders = self.folders(image.parent)
        found = [Path(folder, names[stem]) for folder in folders if stem in (names := self.listing(folder))]
        if found:
            return found
        for folder in folders:
            if (name := self._any_case(folder).get((len(stem), stem.casefold()))) is not None:
                return [Path(folder, name)]
        return []

    def _any_case(self, folder: str) -> dict[tuple[int, str], str]:
        """Return the names of the label files in a folder, by length and letters of the stem; the first of several."""
        if folder not in self._folded:
            folded: dict[tuple[int, str], str] = {}
            for stem, name in self.listing(folder).items():
                folded.setdefault((len(stem), stem.casefold()), name)
            self._folded[folder] = folded
        return self._folded[folder]

    def _places(self, folder: Path) -> list[str]:
        parts = folder.parts
        inside = len(self.root.parts) if folder.is_relative_to(self.root) else 0
        replaced = [i for i in range(len(parts) - 1, 0, -1) if parts[i].lower() in _IMAGE_FOLDERS]
        replaced = [i for n, i in enumerate(replaced) if n == 0 or i >= inside]
        places: list[str] = []
        for i in replaced:
            base = os.path.join(*parts[:i])
            names = sorted(name for name in _names(base) if name.lower() == "labels")
            places += [os.path.join(base, name, *parts[i + 1 :]) for name in names]
        places.append(str(folder))
        return [*places, os.path.join(folder, "labels"), os.path.join(folder.parent, "labels", folder.name)]


def stray_labels(
    finder: LabelFinder,
    folders: Iterable[Path],
    images: Iterable[Path],
    others: Callable[[], Iterable[Path]],
    log: ProblemLog,
) -> None:
    """Note label files without an image, whose objects would be lost silently.

    ``folders``: those that a split names; ``images``: its images; ``others``: gives those of the other splits.
    """
    searched: dict[str, str] = {}
    for place in dict.fromkeys(place for folder in folders for place in finder.folders(folder)):
        for home in dict.fromkeys(file.parent for file in walk_files(place) if file.suffix.lower() == ".txt"):
            searched.setdefault(os.path.realpath(home), str(home))
    found = _without_image(finder, searched, images)
    if found:
        found = _without_image(finder, {real: searched[real] for real in found}, (*images, *others()))
    for real, names in found.items():
        log.correct(
            "missing-image", "warning", searched[real], "",
            f"{len(names)} label files have no image and are not read (the first: {names[0]}); "
            "restore the images, or remove the files",
        )  # fmt: skip


def _without_image(finder: LabelFinder, searched: dict[str, str], images: Iterable[Path]) -> dict[str, list[str]]:
    """Return the label files without an image on disk by the real path of their folder."""
    known: dict[str, set[str]] = {}
    for home in {image.parent for image in images}:
        try:
            on_disk = os.listdir(home)
        except OSError:
            continue
        stems = {
            composed(os.path.splitext(name)[0]).casefold()
            for name in on_disk
            if is_image_name(name) or unreadable_reason(name) is not None
        }
        for place in finder.folders(home):
            known.setdefault(os.path.realpath(place), set()).update(stems)
    found: dict[str, list[str]] = {}
    for real, place in sorted(searched.items()):
        names = [
            name
            for stem, name in finder.listing(place).items()
            if stem.casefold() not in known.get(real, ())
            and stem.lower() not in _NOT_LABELS
            and _is_label(Path(place, name))
        ]
        if names:
            found[real] = names
    return found


def _is_label(file: Path) -> bool:
    """Return True if a text file is empty or its first line begins with numbers, as that of a label file."""
    try:
        with file.open("rb") as stream:
            words = stream.read(400).lstrip(b"\xef\xbb\xbf").split()[:5]
    except OSError:
        return True
    try:
        return all(float(word) == float(word) for word in words)
    except ValueError:
        return False


def _same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second) or first.read_bytes().split() == second.read_bytes().split()
    except OSError as error:
        raise InputError(f"{second}: cannot be read ({error.strerror}); correct its permissions") from None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
