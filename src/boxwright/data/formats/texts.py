"""Read text files of any Unicode encoding, with an error that names file, line and remedy for other encodings."""

from __future__ import annotations

import codecs
import json
import os
import re
from pathlib import Path

from boxwright.structures import InputError

_DECLARED = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?\bencoding\s*=\s*["']([^"'>]{1,60})["']""")
# Programs that declare the smaller of two encodings often write the larger one, which Windows calls by the same name.
_LARGER = {
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "shift_jis": ("cp932",),
    "big5": ("cp950", "big5hkscs"),
    "euc_kr": ("cp949",),
    "euc_jp": ("euc_jis_2004",),
}
_WIDE = ("utf-16", "utf-32", "utf_16", "utf_32", "ucs-2", "ucs2", "ucs-4")


def read_bytes(path: Path) -> bytes:
    """Return the content of a file. Raises ``InputError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: {dead_link(path) or 'there is no such file; correct the path'}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not a file; correct the path") from None
    except PermissionError:
        raise InputError(f"{path}: there is no permission to read the file; grant it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the disk and the path") from error


def dead_link(path: Path) -> str | None:
    """Describe a link whose target does not exist, with the remedy; None for anything else."""
    if not path.is_symlink() or os.path.exists(path):
        return None
    return f"this is a link to {os.path.realpath(path)}, which does not exist; restore that, or remove the link"


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises ``InputError`` naming the file and the line for any other encoding.
    """
    return decode_text(read_bytes(path), path)


def decode_text(content: bytes, path: Path) -> str:
    """Return the text of ``content``, the bytes of ``path``; as `read_text`."""
    encoding = unicode_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        name = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8"}.get(encoding, encoding.upper())
        raise InputError(f"{path}, line {line}: byte {error.start} is not {name} text; save it as UTF-8") from None


def unicode_encoding(content: bytes) -> str:
    """Return the Unicode encoding that the first bytes show: a byte order mark, or the zeros of wide characters."""
    return json.detect_encoding(content[:4]) if content else "utf-8"


def decode_xml(content: bytes, path: Path) -> str:
    """Return the text of an XML file in the encoding that it declares.

    A byte order mark counts more than the declaration. Raises ``InputError`` for an encoding that is unknown, and for
    content in another encoding than the declared one.
    """
    encoding = unicode_encoding(content)
    match = _DECLARED.match(content) if encoding == "utf-8" else None
    declared = match.group(1).decode("latin-1").strip() if match else "utf-8"
    if encoding != "utf-8" or declared.lower().replace("_", "-") in ("utf-8", "utf8", "us-ascii", "ascii"):
        return decode_text(content, path)
    if declared.lower().startswith(_WIDE):
        return decode_text(content, path)  # its declaration could not be read otherwise; .NET writes it into UTF-8
    try:
        codec = codecs.lookup(declared).name
        text = _declared_text(content, codec)
    except (LookupError, ValueError):
        raise InputError(
            f"{path}, line 1: declares the encoding {declared!r}, which is not known; save it as UTF-8"
        ) from None
    if _is_utf8(content, at_least=2 if _single_byte(codec) else 3):
        raise InputError(
            f"{path}, line 1: declares the encoding {declared} but holds UTF-8; correct the declaration to UTF-8"
        )
    if text is None:
        raise InputError(f"{path}, line 1: declares the encoding {declared} but holds another one; save it as UTF-8")
    return text


def _declared_text(content: bytes, codec: str) -> str | None:
    """Decode with a codec or a larger relative of it; None if the content is in neither."""
    for name in (codec, *_LARGER.get(codec.replace("-", "_"), ())):
        try:
            return content.decode(name)
        except UnicodeError:
            continue
    return None


def _single_byte(codec: str) -> bool:
    """Return True if the codec decodes each byte on its own, so that it accepts nearly any content."""
    return codec.startswith(("iso8859", "cp12", "latin", "koi8", "mac", "cp437", "cp85", "cp86"))


def _is_utf8(content: bytes, at_least: int) -> bool:
    """Return True if the content is UTF-8 with a character of ``at_least`` bytes, which by chance is rare."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return any(ord(c) > (0x7F if at_least == 2 else 0x7FF) for c in text)
