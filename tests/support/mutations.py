"""Damaged copies of valid inputs, made from a seed, for tests of what a reader does with them.

`mutations` changes the bytes of any file. `json_mutations`, `yaml_mutations` and `toml_mutations` change the tree that
a text holds and write it again, so that most results get past the parser; `tree_mutations` gives such trees themselves.
The same seed gives the same inputs. `tests.support.hostile` runs a reader on them.
"""

import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

DEEP, LONG = 20_000, 100_000

_BIG = [str(value) for value in (2**31, 2**63, 2**64, -(2**63) - 1, 10**1000)]
NUMBERS = ("0", "1", "-1", "-0.0", "0.5", "1e309", "-1e309", "1e-400", *_BIG, "9" * 5000, "9" * 400 + ".0", "NaN")
TEXTS = (
    *('""', '" "', '"0"', '"NaN"', '"1e309"', '"\\u0000"', '"a\\nb"', '"\\u001b[2J"', '"../../etc/passwd"', '"/"'),
    f'"{"x" * LONG}"',
)
_COMMON = (*NUMBERS[:-1], *TEXTS, "true", "false", "[]", "{}", "[[]]", "[0, 0]", "[" * DEEP + "]" * DEEP, "[" * DEEP)
JSON = (*_COMMON, "null", "NaN", "-Infinity", '"\\ud800"', '{"a":' * DEEP + "1" + "}" * DEEP)
TOML = (*_COMMON, "nan", "-inf", "1979-05-27T07:32:00Z", "07:32:00", "'none'", "{a=" * DEEP + "1" + "}" * DEEP)
_ALIASES = ", ".join(
    f"&{name} [{','.join(['x' if before is None else '*' + before] * 9)}]"
    for before, name in zip((None, *"abcdefg"), "abcdefgh", strict=True)
)
YAML = (
    *(*_COMMON, "~", ".nan", "-.inf", "yes", "off", "010", "0x1f", "12:30:45", "2.10", "2026-01-01"),
    *("!!binary aGVsbG8=", "!!python/object/apply:os.getcwd []", "&a [*a]", "*nowhere", "{? [a, b] : c}"),
    *("!!set {a, b}", "{<<: [1]}", f"[{_ALIASES}]"),
)


class Raw(str):
    """Text that is written into a file as it is."""


class Table(list[list[Any]]):
    """A table as pairs of key and value, so that a key can stand in it twice."""


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` damaged copies of ``data``, each with one to three changes.

    A change flips bits, sets a byte, cuts a part out, cuts the end off, doubles or moves a part, or puts a special
    value in place of a number or word, or anywhere.
    """
    rng = random.Random(seed)
    for _ in range(count):
        changed = data
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            changed = rng.choice(_BYTE_CHANGES)(changed, rng)
        yield changed


def json_mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` JSON texts: the tree of ``data`` with one to three keys or values changed."""
    for tree in _changed(_tables(json.loads(data)), count, seed, [Raw(text) for text in JSON]):
        yield _flow(tree, ": ", "null").encode(errors="surrogatepass")


def yaml_mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` YAML texts: the tree of ``data`` with one to three keys or values changed."""
    for tree in _changed(_tables(yaml.safe_load(data)), count, seed, [Raw(text) for text in YAML]):
        yield _lines(tree, ": ", "~").encode(errors="surrogatepass")


def toml_mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` TOML texts: the tree of ``data`` with one to three keys or values changed."""
    for tree in _changed(_tables(tomllib.loads(data.decode())), count, seed, [Raw(text) for text in TOML]):
        yield _lines(tree, " = ", "'none'").encode(errors="surrogatepass")


def tree_mutations(tree: Any, count: int, seed: int, special: Sequence[Any]) -> Iterator[Any]:
    """Yield ``count`` copies of nested dicts and lists with one to three keys or values changed.

    The values in ``special`` take the place of others. Leaves are not copied.
    """
    for changed in _changed(_tables(tree), count, seed, special):
        yield _plain(changed)


def _changed(tree: Any, count: int, seed: int, special: Sequence[Any]) -> Iterator[Any]:
    rng = random.Random(seed)
    for _ in range(count):
        holder = [_copied(tree)]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            places = [place for place in _places(holder) if place[0] is not holder or rng.random() < 0.2]
            if places:
                _change(*rng.choice(places), rng, special)
        yield holder[0]


def _change(parent: list[Any], i: int, rng: random.Random, special: Sequence[Any]) -> None:
    """Change entry ``i`` of a table or list."""
    table = isinstance(parent, Table)
    value = parent[i][1] if table else parent[i]
    others = [place for place in range(len(parent)) if place != i]
    match rng.randrange(12):
        case 0 if len(parent) > 1 or table:
            del parent[i]
            return
        case 1:  # a second value under one key, or an entry that stands twice
            parent.insert(
                rng.randrange(len(parent) + 1),
                [parent[i][0], rng.choice((value, rng.choice(special)))] if table else value,
            )
            return
        case 2 if table:
            parent[i][0] = rng.choice(
                (str(parent[i][0])[:-1], str(parent[i][0]).upper(), "", "x" * 1000, "a\nb", "kind")
            )
            return
        case 3 if others and table:
            j = rng.choice(others)
            parent[i][1], parent[j][1] = parent[j][1], value
            return
        case 4 if not table and len(parent) < 1000:
            parent.extend([value] * 1000)
            return
        case 5:
            new = [value]
        case 6:
            new = Table([[rng.choice(("a", "kind", "0")), value]])
        case 7 if isinstance(value, str | int | float) and not isinstance(value, Raw):
            new = str(value)
        case 8 if isinstance(value, int | float) and not isinstance(value, bool):
            new = rng.choice((-value, value + 1, value * 10**9, value / 7))
        case 9 if isinstance(value, str) and not isinstance(value, Raw):
            new = rng.choice((value[:-1], value.upper(), value + "\n", value * 100, "\u202e" + value))
        case _:
            new = rng.choice(special)
    if table:
        parent[i][1] = new
    else:
        parent[i] = new


def _places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield every entry of every table and list as its parent and position."""
    if isinstance(tree, list):
        for i, entry in enumerate(tree):
            yield tree, i
            yield from _places(entry[1] if isinstance(tree, Table) else entry)


def _tables(tree: Any) -> Any:
    if isinstance(tree, dict):
        return Table([[key, _tables(value)] for key, value in tree.items()])
    return [_tables(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _copied(tree: Any) -> Any:
    if isinstance(tree, Table):
        return Table([[key, _copied(value)] for key, value in tree])
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def _plain(tree: Any) -> Any:
    if isinstance(tree, Table):
        return {key: _plain(value) for key, value in tree}
    return [_plain(value) for value in tree] if isinstance(tree, list) else tree


def _flow(tree: Any, equals: str, nothing: str) -> str:
    """Write a tree in braces and brackets, as JSON does."""
    match tree:
        case Raw():
            return str(tree)
        case Table():
            return "{" + ", ".join(_key(key) + equals + _flow(value, equals, nothing) for key, value in tree) + "}"
        case list():
            return "[" + ", ".join(_flow(value, equals, nothing) for value in tree) + "]"
        case None:
            return nothing
        case bool() | int() | float():
            return json.dumps(tree)
        case _:
            return json.dumps(str(tree), ensure_ascii=False).replace("\x7f", "\\u007f")


def _lines(tree: Any, equals: str, nothing: str) -> str:
    """Write the keys of the outermost table on lines of their own."""
    if not isinstance(tree, Table):
        return _flow(tree, equals, nothing)
    return "".join(f"{_key(key)}{equals}{_flow(value, equals, nothing)}\n" for key, value in tree)


def _key(key: Any) -> str:
    """Write a key; numbers stay numbers in YAML, and in the others every key is text."""
    return str(key) if isinstance(key, int) else json.dumps(str(key), ensure_ascii=False)


def _part(data: bytes, rng: random.Random) -> tuple[int, int]:
    first = rng.randrange(len(data) + 1)
    return first, min(len(data), first + rng.choice((1, 2, 8, 50, 1000, len(data))))


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 64)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_bytes(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    end = min(end, first + 8)
    filler = rng.choice(
        (b"\x00", b"\xff", b"\x7f", b"\x80", b" ", b"\n", b'"', b"{", b"[", b"-", b"9", bytes([rng.randrange(256)]))
    )
    return data[:first] + filler * (end - first) + data[end:]


def _cut(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    return data[:first] + data[end:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, 1, len(data) - 1, rng.randrange(len(data) + 1)))] if data else data


def _double(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    return data[:end] + data[first:end] * rng.choice((1, 1, 2, 100)) + data[end:]


def _move(data: bytes, rng: random.Random) -> bytes:
    first, end = _part(data, rng)
    rest = data[:first] + data[end:]
    there = rng.randrange(len(rest) + 1)
    return rest[:there] + data[first:end] + rest[there:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    there = rng.randrange(len(data) + 1)
    return data[:there] + _special(rng) + data[there:]


def _replace(data: bytes, rng: random.Random) -> bytes:
    """Put a special value in place of a number, a word or a quoted text."""
    found = list(re.finditer(rb'"[^"\n]{0,200}"|-?[\d.]+|[A-Za-z_]+', data[:1_000_000]))
    if not found:
        return _insert(data, rng)
    chosen = rng.choice(found)
    return data[: chosen.start()] + _special(rng) + data[chosen.end() :]


def _special(rng: random.Random) -> bytes:
    value = rng.choice((rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice((*JSON, *YAML)), "\x00", "\ufeff", "\r\n"))
    return value.encode(errors="surrogatepass")


_BYTE_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _set_bytes, _cut, _truncate, _double, _move, _insert, _replace, _replace,
)  # fmt: skip
