"""Find and read image files.

A name's suffix decides which files of a folder are images (`is_image_name`), and which are images that cannot be read
here (`unreadable_reason`). The content of a file decides how it is read, as `boxwright.data.pixels` describes.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, features
from PIL import __version__ as pillow

from boxwright.data.addresses import address_reason
from boxwright.data.pixels import image_to_array, orientation, raw_orientation
from boxwright.io.images import HEIF_REMEDY, HEIF_SUFFIXES, heif_installed, open_image
from boxwright.structures import InputError

MAX_PIXELS = 250_000_000
"""Largest image read, in pixels (0.75 GB), unless the caller or ``BOXWRIGHT_MAX_PIXELS`` sets another limit."""

_ALWAYS_READ = frozenset(
    {".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pcx", ".png", ".qoi", ".tga", ".webp"}
    | {".pbm", ".pgm", ".ppm", ".pnm", ".tif", ".tiff"}
)
# Lower-case suffixes of formats that Pillow reads if it was built with their library, and their names.
_PILLOW_FEATURES = {"avif": frozenset({".avif", ".avifs"}), "jpg_2000": frozenset({".jp2", ".j2k", ".jpx", ".jpf"})}
_FEATURE_NAMES = {"avif": "AVIF", "jpg_2000": "JPEG 2000"}
_CAMERA_RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos"}
    | {".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
_NEVER_READ = {
    **dict.fromkeys(_CAMERA_RAW, "camera raw files"),
    ".bpg": "BPG images",
    **dict.fromkeys((".dcm", ".dicom"), "DICOM files"),
    ".exr": "OpenEXR images",
    **dict.fromkeys((".fit", ".fits"), "FITS files"),
    ".flif": "FLIF images",
    ".hdr": "Radiance HDR images",
    ".jxl": "JPEG XL images",
    **dict.fromkeys((".hdp", ".jxr", ".wdp"), "JPEG XR images"),
    **dict.fromkeys((".psb", ".psd"), "Photoshop files"),
    **dict.fromkeys((".svg", ".svgz"), "SVG drawings"),
    ".xcf": "GIMP files",
}
"""Lower-case suffixes of image files that are not read, with the name of what they hold."""

VIDEO_SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".flv", ".h264", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov"}
    | {".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""Lower-case suffixes of videos, which `boxwright detect` reads."""

_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")

# Formats of Pillow that are read also under the suffix of another format. Camera raw files are not among them: Pillow
# takes most of them for TIFF files and reads a small preview.
_COMMON_FORMATS = frozenset({"BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP"})
# Pillow hands these to other programs, such as Ghostscript, which executes what is in the file.
_EXECUTED = frozenset({"EPS", "WMF"})
# Formats whose further frames are shown one after the other, or are further pages.
_ANIMATED = frozenset({"AVIF", "GIF", "PNG", "TIFF", "WEBP"})

# Errors that Pillow raises for damaged content, besides OSError: those of the parsers of its plugins.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError)


def read_image(path: str | os.PathLike[str], max_pixels: int | None = None) -> np.ndarray:
    """Read the image in ``path`` as uint8 RGB ``[H, W, 3]``, turned upright by its EXIF orientation.

    Raises ``InputError`` naming the file and a remedy if it is missing, not an image, damaged, or has more than
    ``max_pixels`` pixels (default: `pixel_limit`).
    """
    with _opened(path, max_pixels) as image:
        return _decoded(path, image)


def read_reduced(path: str | os.PathLike[str], side: int) -> np.ndarray:
    """Read an image as `read_image` does, a JPEG at the smallest size with sides of at least ``side``.

    JPEG files can be decoded at a half, a quarter or an eighth of their size in a fraction of the time; images of other
    formats are returned in full.
    """
    with _opened(path, None) as image:
        image.draft(None, (side, side))
        return _decoded(path, image)


def _decoded(path: str | os.PathLike[str], image: Image.Image) -> np.ndarray:
    """Decode an open image. Raises ``InputError`` if it is damaged or does not fit into memory."""
    try:
        return image_to_array(image)
    except MemoryError:
        height, width = image.height, image.width
        raise InputError(
            f"{path}: {width}x{height} pixels do not fit into memory; cut the image into tiles or scale it down"
        ) from None
    except _DAMAGE as error:
        raise InputError(
            f"{path}: the image is damaged ({_reason(error)}); fetch it again or remove it from the data set"
        ) from error


def image_size(path: str | os.PathLike[str], max_pixels: int | None = None) -> tuple[int, int]:
    """Return height and width of the upright image from the file's header; raises as `read_image`."""
    with _opened(path, max_pixels) as image:
        width, height = image.size
        # Pillow returns the size of a TIFF after its orientation.
        turned = image.format != "TIFF" and (orientation(image) or 1) >= 5
        return (width, height) if turned else (height, width)


def frame_count(path: str | os.PathLike[str]) -> int:
    """Return the number of frames of an animation or of pages, of which `read_image` reads the first; 1 for others."""
    with _opened(path, None) as image:
        try:
            return getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
        except _DAMAGE:
            return 1


def image_header(path: str | os.PathLike[str]) -> tuple[str, int | None]:
    """Return Pillow's name of the format and the raw EXIF orientation from the file's header."""
    with _opened(path, None) as image:
        return image.format or "", raw_orientation(image)


def pixel_limit() -> int:
    """Return the largest number of pixels that an image may have: ``BOXWRIGHT_MAX_PIXELS``, else `MAX_PIXELS`."""
    value = os.environ.get("BOXWRIGHT_MAX_PIXELS")
    if value is None:
        return MAX_PIXELS
    try:
        limit = int(value)
    except ValueError:
        limit = 0
    if limit <= 0:
        raise InputError(f"BOXWRIGHT_MAX_PIXELS={value}: give the largest number of pixels as a positive whole number")
    return limit


def is_image_name(path: str | os.PathLike[str]) -> bool:
    """Return True if the name has the suffix of an image format that is read on this machine."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in _ALWAYS_READ or (suffix in HEIF_SUFFIXES and heif_installed()) or suffix in _features_read()


def unreadable_reason(path: str | os.PathLike[str]) -> str | None:
    """Return why the file is not read, with the remedy, if it is an image by its name but of no format read here.

    None for all other names. HEIC is such a format where pillow-heif is not installed.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in HEIF_SUFFIXES:
        return None if heif_installed() else HEIF_REMEDY
    if suffix in _NEVER_READ:
        return f"{_NEVER_READ[suffix]} are not read; convert it to PNG or JPEG"
    for feature, suffixes in _PILLOW_FEATURES.items():
        if suffix in suffixes and suffix not in _features_read():
            return f"this Pillow reads no {_FEATURE_NAMES[feature]}; install a newer one with: pip install -U pillow"
    return None


def is_hidden(name: str) -> bool:
    """Return True for names that are no data: those that begin with a dot, and folders that systems make."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def walk_files(folder: str | os.PathLike[str], recursive: bool = True) -> list[Path]:
    """Return the files of a folder, with ``recursive`` those of its subfolders too, sorted by path.

    Names that begin with a dot, and folders that systems make for themselves, are passed over with what they hold.
    Links to folders are followed, except to a folder that holds the link, so that a loop ends; a folder that can be
    reached by several paths is entered once, if possible without a link. Links to files are given as they are, also
    those that point nowhere. Pipes, sockets and devices are left out. Raises ``InputError`` for a folder that cannot
    be read.
    """
    found: list[Path] = []
    top = os.fspath(folder)
    entered: set[str] = set()
    inner, links = [top], list[str]()  # links wait until all that needs no link has been entered
    while inner or links:
        here = inner.pop() if inner else links.pop(0)
        real = os.path.realpath(here)
        if real in entered:
            continue
        entered.add(real)
        linked: list[str] = []
        for entry in _entries(here):
            if is_hidden(entry.name):
                continue
            # The kind of a file is known without asking the disk for each.
            if entry.is_file(follow_symlinks=False) or (
                entry.is_symlink() and (os.path.isfile(entry.path) or not os.path.exists(entry.path))
            ):
                found.append(Path(entry.path))
            elif recursive and os.path.isdir(entry.path):
                if not entry.is_symlink():
                    inner.append(entry.path)
                elif not _holds(os.path.realpath(entry.path), real):
                    linked.append(entry.path)
        links += sorted(linked)
    return sorted(found)


def walk_images(folder: str | os.PathLike[str], recursive: bool = True) -> list[Path]:
    """Return the files of `walk_files` that are images by their names, those that cannot be read left out."""
    return [path for path in walk_files(folder, recursive) if is_image_name(path)]


def _holds(outer: str, inner: str) -> bool:
    """Return True if the folder ``outer`` is ``inner`` or holds it; both without links."""
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)  # the order of the disk is none
    except OSError as error:
        raise InputError(
            f"{folder}: the folder cannot be read ({error.strerror}); correct the path or its permissions"
        ) from error


@lru_cache(maxsize=1)
def _features_read() -> frozenset[str]:
    """Return the suffixes of those optional formats that the installed Pillow reads."""
    return frozenset().union(*(names for feature, names in _PILLOW_FEATURES.items() if features.check(feature)))


@contextmanager
def _opened(path: str | os.PathLike[str], max_pixels: int | None) -> Iterator[Image.Image]:
    """Open an image, read its header, and check its size against the limit."""
    limit = pixel_limit() if max_pixels is None else max_pixels
    # Opened as a stream: given a name, Pillow maps uncompressed TIFFs into memory, and then garbles those whose
    # orientation swaps the sides.
    with _open_file(path) as stream, _PILLOW_LIMIT:
        image = _read_header(path, stream)
        reason = unreadable_reason(path)
        if reason is not None and image.format not in _COMMON_FORMATS:
            raise InputError(f"{path}: {reason}")
        if image.format in _EXECUTED:
            raise InputError(f"{path}: drawings in {image.format} are not read; convert it to PNG or JPEG")
        width, height = image.size
        if width * height > limit:
            raise InputError(
                f"{path}: {width}x{height} is {width * height:,} pixels, more than the limit of {limit:,}; "
                "cut it into tiles, scale it down, or set BOXWRIGHT_MAX_PIXELS if there is enough memory"
            )
        yield image


def _open_file(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):  # a pipe would wait for ever
            return open(path, "rb")
    except FileNotFoundError:
        if (reason := address_reason(os.fspath(path))) is not None:
            raise InputError(reason) from None
        if os.path.islink(path):
            target = os.path.realpath(path)
            raise InputError(f"{path}: this is a link to {target}, which does not exist; restore that file") from None
        raise InputError(f"{path}: there is no such image; correct the path or restore the file") from None
    except (ValueError, NotADirectoryError):  # a null character in the name; a file in place of a folder
        raise InputError(f"{os.fspath(path)!r}: there cannot be such a file; correct the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not an image; name a file in it") from None
    except PermissionError:
        raise InputError(f"{path}: there is no permission to read the image; grant it") from None
    except OSError as error:
        raise InputError(
            f"{path}: the image cannot be opened ({error.strerror}); check the disk and the path"
        ) from error
    raise InputError(f"{path}: this is a pipe or device, not an image file; save the image and name the file")


def _read_header(path: str | os.PathLike[str], stream: BinaryIO) -> Image.Image:
    try:
        return open_image(stream)
    except UnidentifiedImageError as error:
        size = Path(path).stat().st_size
        reason = unreadable_reason(path)
        if size and reason is not None:
            raise InputError(f"{path}: {reason}") from None
        if size and os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES:
            raise InputError(f"{path}: this is a video, not an image; `boxwright detect` reads videos") from None
        what = "the file is empty" if size == 0 else _content(stream)
        raise InputError(
            f"{path}: {what}; fetch it again, convert it to PNG or JPEG, or remove it from the data set"
        ) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise InputError(
            f"{path}: the image's header is damaged ({_reason(error)}); fetch it again or remove it from the data set"
        ) from error


def _content(stream: BinaryIO) -> str:
    """Say what a file that is no image holds instead, if it is something that often takes the place of images."""
    stream.seek(0)
    head = stream.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS in place of the image, which `git lfs pull` fetches"
    if head.startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not an image"
    return f"this is none of the image formats that Pillow {pillow} reads"


class _LiftedLimit:
    """Context that lifts Pillow's global pixel limit while any thread reads, so that only `pixel_limit` applies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._saved: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                Image.MAX_IMAGE_PIXELS = self._saved


_PILLOW_LIMIT = _LiftedLimit()


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
