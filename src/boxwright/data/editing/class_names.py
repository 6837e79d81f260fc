"""Rename, drop and keep classes by name, and find class names that seem to mean the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boxwright.data.formats.opening import DatasetFormat
from boxwright.fields import nearest
from boxwright.structures import Classes, InputError, plain_name

_MOST_LISTED = 12


@dataclass(frozen=True)
class ClassChange:
    """New classes of a data set, and the new label of each old one, -1 for a class that is dropped."""

    classes: Classes
    labels: tuple[int, ...]


def change_classes(
    before: Classes,
    renames: Sequence[str],
    drop: Sequence[str],
    keep: Sequence[str],
    format: DatasetFormat,
) -> ClassChange:
    """Rename classes by ``renames``, "old=new" each, then leave out those in ``drop`` and those not in ``keep``.

    All renames apply at once. Classes that get one name become one. ``drop`` and ``keep`` name classes after renaming;
    an empty ``keep`` keeps all. A class has the place and category id of the class of that name, else of the first that
    became it. ``format`` is that of the data set's files: outside COCO, category ids are numbered from 1.

    Raises ``InputError`` for a class that is not there, with the nearest, a rename of one class to two names, a class
    that is both kept and dropped, and if no class is left.
    """
    mapping = _mapping(before, renames)
    renamed = [mapping.get(name, name) for name in before.names]
    owner: dict[str, int] = {}
    for label, (old, new) in enumerate(zip(before.names, renamed, strict=True)):
        if new not in owner or (old == new and before.names[owner[new]] != new):
            owner[new] = label
    dropped = {_known(name, "--drop", owner, mapping) for name in drop}
    kept = {_known(name, "--keep", owner, mapping) for name in keep} or set(owner)
    if both := sorted(dropped & kept & {plain_name(name) for name in keep}):
        raise InputError(f"class {both[0]!r}: is named by --drop and by --keep; give it once")
    left = sorted((name for name in owner if name in kept - dropped), key=lambda name: owner[name])
    if not left:
        raise InputError("no class is left: every class is dropped; drop fewer, or name some with --keep")
    ids = tuple(before.ids[owner[name]] for name in left)
    classes = Classes(tuple(left), ids if format == "coco" else tuple(range(1, len(left) + 1)))
    return ClassChange(classes, tuple(left.index(name) if name in left else -1 for name in renamed))


def merged_classes(before: Classes, change: ClassChange) -> list[str]:
    """Return a sentence for each new class that several old ones become."""
    said = []
    for label, name in enumerate(change.classes.names):
        olds = [old for old, new in zip(before.names, change.labels, strict=True) if new == label]
        if len(olds) > 1:
            said.append(f"classes {', '.join(olds)} are merged into one class, {name}")
    return said


def alike(name: str) -> str:
    """Return what names have in common that differ in case, separators or a plural ending only."""
    words = re.sub(r"[\W_]+", "", name.casefold())
    if len(words) > 4 and words.endswith("ies"):
        return words[:-3] + "y"
    if len(words) > 4 and words.endswith(("ches", "shes", "sses", "xes")):
        return words[:-2]
    return words[:-1] if len(words) > 3 and words.endswith("s") and not words.endswith(("ss", "us", "is")) else words


def _mapping(before: Classes, renames: Sequence[str]) -> dict[str, str]:
    """Return the new name of each class that is renamed."""
    mapping: dict[str, str] = {}
    for text in renames:
        old, new = _parted(text, before)
        if mapping.setdefault(old, new) != new:
            raise InputError(f"--rename {text}: {old!r} is already renamed to {mapping[old]!r}; give it one name")
    return mapping


def _parted(text: str, before: Classes) -> tuple[str, str]:
    """Return old and new name of a rename; a name may hold an equals sign itself."""
    places = [m.start() for m in re.finditer("=", text)]
    if not places:
        raise InputError(f"--rename {text}: has no equals sign; write the old and the new name, such as cars=car")
    pairs = [(plain_name(text[:place]), plain_name(text[place + 1 :])) for place in places]
    fitting = [pair for pair in pairs if pair[0] in before.names]
    if not fitting:
        raise InputError(f"--rename {text}: {_unknown(pairs[0][0], before.names)}")
    if not fitting[0][1]:
        raise InputError(f"--rename {text}: the new name is empty; to leave the class out use --drop")
    return fitting[0]


def _known(name: str, option: str, names: Iterable[str], mapping: dict[str, str]) -> str:
    plain = plain_name(name)
    if plain not in names:
        if plain in mapping:
            raise InputError(f"{option} {name}: --rename makes this class {mapping[plain]!r}; name it so")
        raise InputError(f"{option} {name}: {_unknown(plain, names)}")
    return plain


def _unknown(name: str, names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    there = f"; there are {', '.join(listed[:_MOST_LISTED])}{more}"
    return f"there is no class {name!r}{nearest(name, listed) or there}"
