"""Recognise addresses and cameras where a file is expected. Nothing is read from them."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters at least: C:/ is a drive; one slash: as Path leaves it
_CAMERA = re.compile(r"\d{1,3}|/dev/video\d*")
_PASSWORD = re.compile(r"(?<=/)([^/:@]*):[^/]*@")
_LONGEST = 200


def address_reason(text: str) -> str | None:
    """Return why ``text`` is not read and the remedy, if it is the address of a stream or page, or names a camera.

    None for everything else. The address is given as it is, without the password in it.
    """
    if text.lower().startswith("file:/"):
        path = re.sub(r"^file:(//(localhost)?(?=/))?", "", text, flags=re.IGNORECASE)
        return f"{text}: addresses are not read; give the path itself: {path}"
    if not (_SCHEME.match(text) or text.lower().startswith("data:") or _CAMERA.fullmatch(text)):
        return None
    shown = _PASSWORD.sub(r"\1:***@", text, count=1)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
    return f"{shown}: addresses (streams, web pages, cameras) are not read; download or record it and name the file"
