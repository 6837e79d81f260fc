"""Import a published detector: find the publisher by the names of the tensors and run its importer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from boxwright.structures import Classes, InputError
from boxwright.weights.caffe.models import caffe_sizes, import_caffe
from boxwright.weights.caffe.protobuf import begins_as_caffemodel, read_caffemodel
from boxwright.weights.common.foreign_files import read_foreign, tensors_in
from boxwright.weights.common.imported import Imported
from boxwright.weights.darknet.files import begins_as_darknet
from boxwright.weights.darknet.models import import_darknet
from boxwright.weights.detectron.caffe2 import import_detectron, recognise_detectron
from boxwright.weights.detectron.detectron2 import import_detectron2, recognise_detectron2
from boxwright.weights.mmdet.two_stage import import_mmdet, mmdet_sizes, recognise_mmdet
from boxwright.weights.ports.detnet_pytorch import import_detnet_pytorch, recognise_detnet_pytorch
from boxwright.weights.ports.refinedet_pytorch import SIZES as REFINEDET_SIZES
from boxwright.weights.ports.refinedet_pytorch import import_refinedet_pytorch, recognise_refinedet_pytorch
from boxwright.weights.ports.ssd_pytorch import import_ssd_pytorch, recognise_ssd_pytorch
from boxwright.weights.torchvision.importer import import_torchvision, recognise_torchvision, torchvision_sizes

State = Mapping[str, Any]


class Importer(NamedTuple):
    """The importer of one publisher's detectors."""

    publisher: str
    """Name of the publisher, as the user writes it."""
    models: str
    """The models that it reads, in words."""
    recognise: Callable[[Mapping[str, Tensor]], bool]
    """Return True for a file of this publisher, by the names of its tensors alone."""
    read: Callable[[State, Classes | None], Imported]
    """Convert the file. Raises InputError for anything unknown or missing in it."""
    read_sized: Callable[[State, Classes | None, int], Imported] | None = None
    """Convert the file for a given input size; None where the weights always tell the size."""
    sizes: Callable[[State], tuple[int, ...]] = lambda state: ()
    """Return the input sizes of several models of the publisher that the file fits; empty where it tells the size."""


def _torchvision_sized(state: State, classes: Classes | None, size: int) -> Imported:
    sizes = torchvision_sizes(tensors_in(state))
    if size not in sizes:
        raise InputError(
            f"size {size}: " + (f"its models have {_either(sizes)}" if sizes else "the file tells it; leave it out")
        )
    return import_torchvision(state, classes, small=size == 320)


def _detnet_sized(state: State, classes: Classes | None, size: int) -> Imported:
    if size not in (600, 800):
        raise InputError(f"size {size}: the port tests with a short side of 600, or of 800 in its large-scale settings")
    return import_detnet_pytorch(state, classes, large_scale=size == 800)


IMPORTERS: tuple[Importer, ...] = (
    Importer(
        "torchvision",
        "Faster R-CNN, Mask R-CNN and RetinaNet on FPN, SSD300, SSDlite320",
        recognise_torchvision,
        import_torchvision,
        _torchvision_sized,
        lambda state: torchvision_sizes(tensors_in(state)),
    ),
    Importer(
        "detectron2",
        "Faster R-CNN on C4, DC5 or FPN, RetinaNet and Mask R-CNN on FPN",
        recognise_detectron2,
        import_detectron2,
    ),
    Importer(
        "detectron",
        "Faster R-CNN on C4 or FPN, RetinaNet and Mask R-CNN on FPN",
        recognise_detectron,
        import_detectron,
    ),
    Importer(
        "mmdet",
        "Faster R-CNN, Mask R-CNN and RetinaNet on FPN, SSD300, SSD512, YOLOv3",
        recognise_mmdet,
        import_mmdet,
        import_mmdet,
        mmdet_sizes,
    ),
    Importer("ssd_pytorch", "amdegroot's SSD300", recognise_ssd_pytorch, import_ssd_pytorch),
    Importer(
        "refinedet_pytorch",
        "luuuyi's RefineDet",
        recognise_refinedet_pytorch,
        import_refinedet_pytorch,
        import_refinedet_pytorch,
        lambda state: REFINEDET_SIZES,
    ),
    Importer(
        "detnet_pytorch",
        "guoruoqian's DetNet-59 on FPN",
        recognise_detnet_pytorch,
        import_detnet_pytorch,
        _detnet_sized,
    ),
)
"""All importers in the order in which they are asked. Files of Caffe and Darknet are known by their suffix instead, or
by their first bytes."""
_BY_SUFFIX = {".caffemodel": "caffe", ".weights": "darknet"}
_TORCH = {".pth", ".pt", ".th", ".pkl", ".safetensors", ".tar", ".bin", ".ckpt"}

_CLASSIFIER = re.compile(r"(?:fc|classifier(?:\.\d+)?|head(?:\.fc)?|heads\.head)\.(?:weight|bias)")
_BACKBONE = re.compile(
    r"(?:backbone\.)?(?:body\.|bottom_up\.)?"
    r"(?:conv1|bn1|layer\d|features|stem|res\d|stages?|downsample_layers|blocks|patch_embed|norm)\b.*"
)


def publishers() -> tuple[str, ...]:
    """Return the names that ``publisher`` may have."""
    return (*(importer.publisher for importer in IMPORTERS), *_BY_SUFFIX.values())


def import_checkpoint(
    path: Path | str,
    classes: Classes | None = None,
    publisher: str | None = None,
    size: int | None = None,
    *,
    any_size: bool = False,
) -> Imported:
    """Import the detector in the file at ``path``.

    ``classes``: the names, in the order of the training, where the publisher's own (80 of COCO, 20 of VOC) do not
    apply. ``publisher``: the expected publisher; None detects it. ``size``: input size in pixels, for networks whose
    weights do not tell it: RefineDet (320 or 512), torchvision's Faster R-CNN on MobileNetV3 (320 or 800), and
    MMDetection's YOLOv3 in a file without its configuration (320, 416 or 608). DetNet_pytorch's detectors have 600, or
    800 with its large-scale settings. ``any_size``: take one of several sizes unasked, for a caller that needs the
    weights alone.

    Darknet's ``.weights`` need their ``.cfg`` beside them. Class names are read from a ``.names`` file there. Raises
    InputError with what was expected and found, for a file that no importer recognises, that comes from another
    publisher, that holds a classifier or a backbone, that is incomplete, or that fits several sizes of which none is
    given.
    """
    path = Path(path)
    if publisher is not None and publisher not in publishers():
        raise InputError(f"publisher {publisher!r}: none of {', '.join(publishers())}")
    theirs = _BY_SUFFIX.get(path.suffix) or _by_content(path)
    if theirs is not None and publisher not in (None, theirs):
        how = "name" if path.suffix in _BY_SUFFIX else "first bytes"
        raise InputError(f"{path}: a file of {theirs} by its {how}, not one of {publisher}; leave the publisher out")
    if theirs == "darknet":
        if size is not None:
            raise InputError(f"{path}: size {size}: the cfg says it; change width and height there")
        return _named(path, lambda: _import_darknet(path, classes))
    if theirs == "caffe":
        return _named(path, lambda: _import_caffe(path, classes, size, any_size))
    if publisher in _BY_SUFFIX.values():
        ending = next(suffix for suffix, name in _BY_SUFFIX.items() if name == publisher)
        raise InputError(f"{path}: not of {publisher}, whose files end in {ending}; leave the publisher out")
    return import_content(read_foreign(path), path, classes, publisher, size, any_size=any_size)


def import_content(
    content: State,
    path: Path,
    classes: Classes | None = None,
    publisher: str | None = None,
    size: int | None = None,
    *,
    any_size: bool = False,
) -> Imported:
    """Import the detector in the ``content`` of a file, as :func:`read_foreign` returns it.

    ``path`` names the file in errors. All else is as in :func:`import_checkpoint`.
    """
    importer = _importer_of(content, path, publisher)
    return _named(path, lambda: _import_state(importer, content, path, classes, size, any_size))


def _import_state(
    importer: Importer, state: State, path: Path, classes: Classes | None, size: int | None, any_size: bool
) -> Imported:
    if size is None:
        if not any_size and (sizes := importer.sizes(state)):
            raise _ask_size(path, importer.publisher, sizes)
        return _with_names(lambda names: importer.read(state, names), classes)
    sized = importer.read_sized
    if sized is None:
        raise InputError(f"{path}: size {size}: the files of {importer.publisher} tell it themselves; leave it out")
    return _with_names(lambda names: sized(state, names, size), classes)


def _by_content(path: Path) -> str | None:
    """Return the publisher whose files begin as ``path`` does, such as Darknet's ``.backup``; None for all others."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(512)
    if begins_as_darknet(start):
        return "darknet"
    return "caffe" if path.suffix not in _TORCH and begins_as_caffemodel(start) else None


def _import_caffe(path: Path, classes: Classes | None, size: int | None, any_size: bool) -> Imported:
    model = read_caffemodel(path)
    if size is None and not any_size and (sizes := caffe_sizes(model)):
        raise _ask_size(path, "caffe", sizes)
    return _with_names(lambda names: import_caffe(model, names, size), classes)


def _ask_size(path: Path, publisher: str, sizes: tuple[int, ...]) -> InputError:
    options = _either([f"--size {size}" for size in sizes])
    return InputError(
        f"{path}: fits models of {publisher} for an input of {_either(sizes)} pixels, whose tensors have the same "
        f"shapes; say which of them it is by {options}, or in Python by size={sizes[0]}. `boxwright weights convert` "
        "with it writes a file that tells the size"
    )


def _either(values: Sequence[object]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last


def _with_names(read: Callable[[Classes | None], Imported], classes: Classes | None) -> Imported:
    """Run ``read`` and rename its classes to ``classes``. Raises InputError where the counts differ."""
    imported = read(None)
    count = len(imported.classes)
    if classes is None:
        return imported
    if len(classes) == count:
        return imported._replace(classes=classes)
    if len(classes) == count - 1 and imported.source.startswith("torchvision retinanet"):
        return read(classes)  # the first column of RetinaNet may be a class or unused
    raise InputError(
        f"{imported.source} for {count} classes, but {len(classes)} names are given ({', '.join(classes.names[:3])}"
        f"{', ...' if len(classes) > 3 else ''}); give {count} names, in the order of its training, or none to call "
        f"them {', '.join(imported.classes.names[:3])}{', ...' if count > 3 else ''}"
    )


def _named(path: Path, read: Callable[[], Imported]) -> Imported:
    """Run ``read`` and add the path to errors that lack it."""
    try:
        return read()
    except InputError as error:
        message = str(error)
        files = (path, path.with_suffix(".cfg"), path.with_suffix(".names"))
        raise InputError(message if any(str(f) in message for f in files) else f"{path}: {message}") from None
    except KeyError as error:
        raise InputError(
            f"{path}: there is no tensor {error} in it, which the model needs; is the file whole?"
        ) from error
    except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        # The importers take the shapes for those of the publisher's models.
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: its tensors are named as those of a model that is read, but have other shapes or types "
            f"({first[:200]}); is the file whole, and unchanged?"
        ) from error


def _importer_of(state: State, path: Path, publisher: str | None) -> Importer:
    tensors = tensors_in(state)
    knows = [importer for importer in IMPORTERS if importer.recognise(tensors)]
    if publisher is None:
        if knows:
            return knows[0]
        raise InputError(f"{path}: {_unrecognised(state, tensors)}")
    for importer in knows:
        if importer.publisher == publisher:
            return importer
    if knows:
        raise InputError(
            f"{path}: not of {publisher}: its tensors are named as those of {knows[0].publisher} "
            f"({knows[0].models}); leave the publisher out, or name that one"
        )
    raise InputError(f"{path}: not of {publisher}: {_unrecognised(state, tensors)}")


def _unrecognised(state: State, tensors: Mapping[str, Tensor]) -> str:
    """Describe a file that no importer takes, as far as its names tell."""
    if not tensors:
        return f"no tensors in it; its entries are {_listing(list(state))}"
    last = [name for name in tensors if _CLASSIFIER.fullmatch(name)]
    rest = [name for name in tensors if name not in last]
    if last and all(_BACKBONE.fullmatch(name) for name in rest):
        count = tensors[last[-1]].shape[0]
        return (
            f"an image classifier of {count} classes ({len(tensors)} tensors, the last {last[-1]}), where a detector "
            "was expected; `boxwright train RECIPE --backbone-weights` may start from it"
        )
    if all(_BACKBONE.fullmatch(name) for name in tensors):
        return (
            f"a bare backbone ({len(tensors)} tensors, from {next(iter(tensors))} to {list(tensors)[-1]}), where a "
            "detector was expected: it has no heads; `boxwright train RECIPE --backbone-weights` may start from it"
        )
    groups = Counter(name.split(".")[0] for name in tensors)
    return (
        f"no importer knows its layout: {len(tensors)} tensors, by the first part of their names "
        f"{_listing([f'{name} ({count})' for name, count in groups.most_common()], quote=False)}. Detectors of "
        f"{', '.join(publishers())} are known"
    )


def _listing(names: list[str], most: int = 6, quote: bool = True) -> str:
    shown = ", ".join(repr(name) if quote else name for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def darknet_cfg(weights: Path) -> Path:
    """Return the cfg beside ``weights``. Raises InputError where there is none."""
    cfg = weights.with_suffix(".cfg")
    if not cfg.is_file():
        raise InputError(
            f"{weights}: needs the cfg that it was trained with, which describes its layers; put it there as {cfg.name}"
        )
    return cfg


def _import_darknet(weights: Path, classes: Classes | None) -> Imported:
    if not weights.is_file():
        raise InputError(f"{weights}: no such file")
    cfg, names = darknet_cfg(weights), weights.with_suffix(".names")
    if classes is None and names.is_file():
        classes = read_names(names)
    return _with_names(lambda given: import_darknet(cfg, weights, given), classes)


def read_names(path: Path) -> Classes:
    """Read the classes from a text file with one name per line, such as Darknet's ``coco.names``."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; give a text file with one class per line"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text in UTF-8; save it as UTF-8, with one class per line") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: no names in it; give a file with one class per line")
    try:
        return Classes.from_names(names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
