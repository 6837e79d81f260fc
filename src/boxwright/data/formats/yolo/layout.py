"""Read a YOLO data.yaml, or what stands for one, and find the images of each split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.data.formats.entries.links import note_dead_links
from boxwright.data.formats.entries.values import whole
from boxwright.data.formats.problems import Problem, ProblemLog
from boxwright.data.formats.splits import KNOWN_SPLITS, is_copy, several, split_name, split_rank
from boxwright.data.formats.texts import read_bytes
from boxwright.data.formats.yolo.class_names import read_classes
from boxwright.data.formats.yolo.entries import Entry, find_entry, listed_images
from boxwright.data.formats.yolo.labels import LabelFinder, stray_labels
from boxwright.data.formats.yolo.yaml_file import Entries, Items, Text, Value, parse_yaml
from boxwright.data.images import is_image_name, unreadable_reason, walk_files
from boxwright.structures import Classes, InputError

OTHER_KEYS = ("path", "names", "nc", "download", "roboflow", "yaml_file", "kpt_shape", "flip_idx", "channels")
"""Keys of a data.yaml that are no split."""


@dataclass(frozen=True)
class YoloLayout:
    """Content of a ``data.yaml``; ``splits`` holds the folders, lists and images that each split names.

    ``absent`` holds the defect of each split that names what does not exist; ``keypoints`` is ``kpt_shape``, the number
    of keypoints of an object and of the values of each, which are 2 or 3.
    """

    file: Path
    root: Path
    classes: Classes
    splits: dict[str, list[Entry]]
    absent: dict[str, Problem] = field(default_factory=dict)
    labels: LabelFinder = field(default_factory=lambda: LabelFinder(Path()))
    keypoints: tuple[int, int] | None = None
    _images: dict[str, list[Path]] = field(default_factory=dict)

    def images(self, split: str, log: ProblemLog) -> list[Path]:
        """Return the images of a split, each once. Notes or refuses lines of lists without an image."""
        if split not in self._images:
            self._images[split] = _split_images(self, self.splits[split], log)
        return self._images[split]

    def note_stray_labels(self, split: str, log: ProblemLog) -> None:
        """Note label files of a split without an image."""
        own = self.images(split, log)
        folders = [e.place for e in self.splits[split] if e.place.is_dir()] or sorted({path.parent for path in own})

        def others() -> Iterator[Path]:
            for name in self.splits:
                if name != split:
                    with suppress(InputError):  # reported when that split is read
                        yield from _split_images(self, self.splits[name], ProblemLog(lenient=True))

        stray_labels(self.labels, folders, own, others, log)


def find_yolo(folder: Path, files: Iterable[Path], log: ProblemLog) -> Path | None:
    """Return the data.yaml among ``files``, the YAML files of a folder, or None.

    Raises ``InputError`` if several describe a data set and none is called data.yaml or dataset.yaml.
    """
    found = [file for file in files if names_classes(file)]
    preferred = [file for file in found if file.stem.lower() in ("data", "dataset")]
    copies = [file for file in found if is_copy(file.stem)]
    if len(found) > 1 and (len(preferred) != 1 or copies):
        raise InputError(f"{folder}: {several(folder, found)}; name the one you mean")
    chosen = (preferred or found or [None])[0]
    if chosen is not None and len(found) > 1:
        rest = ", ".join(file.name for file in found if file != chosen)
        log.correct("unused-file", "info", folder, "", f"{chosen.name} is read, {rest} is not; name the one you mean")
    return chosen


def load_yolo(file: Path, log: ProblemLog | None = None) -> YoloLayout:
    """Read a data.yaml and find what its splits name. Raises ``InputError`` naming the line and a remedy.

    With a lenient ``log``, a split whose images are not found is noted.
    """
    content = parse_yaml(file)
    if not isinstance(content, Entries):
        raise InputError(f"{file}: a data.yaml holds `names`, `train` and `val`; this one holds none of them")
    return yolo_layout(file, content, log or ProblemLog())


def yolo_layout(file: Path, content: Entries, log: ProblemLog) -> YoloLayout:
    """Return the layout that the content of a data.yaml describes."""
    classes = read_classes(file, content, log)
    root = _root(file, content)
    splits: dict[str, list[Entry]] = {}
    absent: dict[str, Problem] = {}
    keys: dict[str, Text] = {}
    for key, value in content.items():
        name = split_name(key)
        if key in OTHER_KEYS or _is_nothing(value):
            continue
        if name not in KNOWN_SPLITS and not (isinstance(value, Text) and os.path.isdir(root / value)):
            continue  # a setting of another tool: a key with another name is a split only if its folder exists
        if name in keys:
            raise InputError(
                f"{file}, line {key.line}: `{keys[name]}` and `{key}` are both the split {name}; name the one you mean"
            )
        keys[name] = key
        found = [find_entry(file, root, key, text, log) for text in _texts(file, key, value)]
        missing = [entry for entry in found if isinstance(entry, Problem)]
        if missing:
            absent[name] = missing[0]
        else:
            splits[name] = [entry for entry in found if isinstance(entry, Entry)]
    for name, problem in absent.items():
        severity = "error" if name in ("train", "val", "trainval") else "warning"
        log.correct(problem.kind, severity, problem.file, problem.place, problem.message)
    if not splits:
        if absent:
            raise InputError(str(next(iter(absent.values()))))
        raise InputError(f"{file}: none of the keys `train`, `val`, `test` names images; add at least one")
    ordered = dict(sorted(splits.items(), key=lambda item: split_rank(item[0])))
    return YoloLayout(file, root, classes, ordered, absent, LabelFinder(root), _keypoints(file, content))


def _keypoints(file: Path, content: Entries) -> tuple[int, int] | None:
    """Return ``kpt_shape``; None without it. Raises ``InputError`` for a value that is no such shape."""
    value = content.get(Text("kpt_shape"))
    if value is None or _is_nothing(value):
        return None
    shape = [whole(v) for v in value if isinstance(v, Text)] if isinstance(value, Items) else []
    points, size = shape if len(shape) == 2 else (None, None)
    if points is None or points < 1 or size not in (2, 3):
        raise InputError(
            f"{file}, line {value.line}, key `kpt_shape`: give the number of keypoints and of the values of each, "
            "2 or 3, such as [17, 3]"
        )
    return points, size


def _is_nothing(value: Value) -> bool:
    return value.empty if isinstance(value, Text) else not value


def _texts(file: Path, key: Text, value: Value) -> list[Text]:
    """Return the one or several texts of a key. Raises ``InputError`` for anything else."""
    texts = list(value) if isinstance(value, Items) else [value]
    for text in texts:
        if not isinstance(text, Text) or text.empty:
            raise InputError(
                f"{file}, line {key.line}, key `{key}`: give a folder, a .txt list of images, or a list of those"
            )
    return [text for text in texts if isinstance(text, Text)]


def names_classes(file: Path) -> bool:
    """Return True if a YAML file looks like a data.yaml; one that does not parse counts if its text has the keys."""
    try:
        content = parse_yaml(file)
    except InputError:
        text = read_bytes(file).replace(b"\0", b"")
        return b"names" in text and b"train" in text
    if not isinstance(content, Entries):
        return False
    if not {"names", "nc"} & set(content):
        return file.stem.lower() in ("data", "dataset") and bool({"train", "val", "test"} & set(content))
    folders = (value for value in content.values() if isinstance(value, Text) and value)
    return any(key in content for key in ("train", "val", "test")) or any(
        os.path.isdir(file.parent / f) for f in folders
    )


def _root(file: Path, content: Entries) -> Path:
    """Return the folder that split entries are relative to: ``path`` if it exists, else the folder of the file.

    A relative ``path`` is often relative to the data folder of another tool. Then the data is in the file's own folder.
    """
    folder = file.absolute().parent
    value = content.get(Text("path"))
    if isinstance(value, Text) and not value.empty:
        for text in (value, value.replace("\\", "/")):
            root = Path(os.path.normpath(folder / os.path.expanduser(text)))
            if os.path.isdir(root):
                return root
    return folder


def _split_images(layout: YoloLayout, entries: list[Entry], log: ProblemLog) -> list[Path]:
    """Return the images of all entries, each once by its real path; those that cannot be read are noted."""
    found: list[Path] = []
    for entry in entries:
        if entry.place.is_dir():
            found += walk_files(entry.place)
        elif is_image_name(entry.place) or unreadable_reason(entry.place) is not None:
            found.append(entry.place)
        else:
            found += listed_images(entry.place, layout.root, layout.file.absolute().parent, log)
    images = [path for path in found if is_image_name(path)]
    taken = {str(path.with_suffix("")) for path in images}
    for path in found:
        reason = unreadable_reason(path)
        if reason is not None and str(path.with_suffix("")) not in taken:  # a raw file beside its JPEG is no loss
            log.correct("unread-image", "error", path, "", f"{reason}; left out")
    known = {problem.file for problem in log.problems if problem.kind == "dead-link"}
    note_dead_links((path for path in found if str(path) not in known), layout.root, log)
    for path in found:
        if path.suffix == "" and (link := _link_as_text(path)):
            log.correct(
                "link-as-text",
                "warning",
                path,
                "",
                f"holds the path {link}: a link that was saved as text? make it anew",
            )
    unique: dict[str, Path] = {}
    linked: set[str] = set()
    parents: dict[Path, str] = {}
    for path in images:
        if path.is_symlink():
            real = os.path.realpath(path)
            if real not in unique:
                linked.add(real)
        else:
            folder = parents.get(path.parent) or parents.setdefault(path.parent, os.path.realpath(path.parent))
            real = os.path.join(folder, path.name)
            if real in linked:  # the file itself is named rather than a link to it
                linked.discard(real)
                unique[real] = path
        unique.setdefault(real, path)
    return sorted(unique.values()) if len(entries) == 1 and entries[0].place.is_dir() else list(unique.values())


def _link_as_text(path: Path) -> str | None:
    """Return the content of a small file that is a relative path, as Git writes a link on some systems."""
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size < 300 else ""
    except (OSError, ValueError):
        return None
    return text if text.startswith("../") and "\n" not in text else None
