"""The commands ``boxwright weights``: checkpoints that others published, by name."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from boxwright.cli.data import OUTPUT, Json, examples, print_json, say

weights_app = App(
    name="weights",
    help="List, fetch, look at and convert checkpoints, also those that others published.",
    default_parameter=Parameter(negative=()),
)

Source = Annotated[
    str,
    Parameter(
        help="A name that `boxwright weights list` shows, hf:owner/name, or a path: our file or run, or another "
        "program's .pth, .pkl, .caffemodel, or .weights with its .cfg beside it."
    ),
]
ClassNames = Annotated[
    Path | None,
    Parameter(
        help="A text file with a class on each line, in the order of the training; where the usual ones are wrong."
    ),
]
InputSize = Annotated[
    int | None,
    Parameter(
        help="Of the input, for RefineDet of 512 and torchvision's MobileNetV3 of 320: their weights do not tell."
    ),
]
Whose = Annotated[str | None, Parameter(help="Whose file it must be. Default: found out by the names in it.")]


@weights_app.command(
    name="list",
    help_epilogue=examples("boxwright weights list", "boxwright weights list --publisher torchvision --json"),
)
def list_weights(
    *,
    publisher: Annotated[
        str | None, Parameter(help="Only those of torchvision, detectron2, detectron, mmdet, darknet or ssd_pytorch.")
    ] = None,
    json: Json = False,
) -> int:
    """List the published checkpoints that can be fetched by name.

    The figures are the publishers' own, on the data that they name. Nothing is downloaded by this.
    """
    from boxwright.app.weights import published_rows

    rows = published_rows(publisher)
    if json:
        return print_json(rows)
    # Plain lines, because names must stand whole on a terminal of 80 columns: they are there to be copied.
    for heading, group in groupby(rows, lambda row: (row["publisher"], row["measured_on"])):
        members = list(group)
        width = max(len(row["name"]) for row in members)
        say(f"{heading[0]}, figures on {heading[1]}")
        for row in members:
            size = "" if row["bytes"] is None else f"  {row['bytes'] / 1e6:.0f} MB"
            here = "  (here)" if row["path"] else ""
            say(f"  {row['name']:{width}}  {_figures(row['figures'], row['kind'])}{size}{here}")
    return say("fetch one:  boxwright weights fetch NAME")


@weights_app.command(
    help_epilogue=examples(
        "boxwright weights fetch torchvision:fasterrcnn_resnet50_fpn",
        "boxwright weights fetch darknet:yolov3 --to weights/",
        "boxwright weights fetch hf:owner/name",
    )
)
def fetch(
    name: Annotated[str, Parameter(help="A name that `boxwright weights list` shows, or hf:owner/name.")],
    /,
    *,
    to: Annotated[
        Path | None, Parameter(help="A folder. Default: the cache, where all commands find it by name.", group=OUTPUT)
    ] = None,
    json: Json = False,
) -> int:
    """Download a published checkpoint, once; a download that broke off goes on where it was.

    It is checked by the checksum and the size that its publisher gives, as far as there are any. The cache is
    BOXWRIGHT_CACHE, else boxwright in XDG_CACHE_HOME or ~/.cache; proxies come from HTTPS_PROXY and NO_PROXY.
    """
    from boxwright.app.weights import fetch_named, is_backbone

    path = fetch_named(name, to)
    if json:
        return print_json({"name": name, "path": str(path)})
    use = str(path) if to is not None else name
    say(f"{name} is at {path}")
    if is_backbone(name):
        return say(f"  start a detector from it:\n    boxwright train RECIPE --backbone-weights {use} --data ...")
    return say(f"  look at images with it:\n    boxwright detect {use} IMAGES... --output detections")


@weights_app.command(
    help_epilogue=examples(
        "boxwright weights show torchvision:ssd300_vgg16", "boxwright weights show model_final.pkl --json"
    )
)
def show(
    source: Source,
    /,
    *,
    classes: ClassNames = None,
    publisher: Whose = None,
    size: InputSize = None,
    json: Json = False,
) -> int:
    """Say what a checkpoint is: whose, which detector, which classes, and how it wants its images."""
    from boxwright.app.weights import describe

    facts = describe(source, classes, publisher, size)
    return print_json(facts) if json else _show(facts)


def _show(facts: dict[str, Any]) -> int:
    if not facts["fetched"]:
        rows = [
            ("published", f"{_figures(facts['figures'], facts['kind'])} on {facts['measured_on']}"),
            ("learnt from", facts["data"]),
        ]
        rows += [("licence", facts["licence"])]
        rows += [("file", f"{file['url']} (verified by: {file['verified_by']})") for file in facts["files"]]
        rows += [("here", facts["path"] or f"no; fetch it: boxwright weights fetch {facts['name']}")]
        title = facts["name"]
    else:
        names = facts["classes"]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        imported = facts["meta"].get("imported") or {}
        rows = [
            ("from", facts["source"]),
            ("detector", f"{facts['detector']} on {facts['backbone']}, {facts['parameters'] / 1e6:.1f} M parameters"),
            ("classes", f"{len(names)}: {shown}"),
            ("images", ", ".join(_view(view) for view in facts["images"]["eval"]) or "as they are"),
            ("licence", imported.get("licence") or "not stated in the file"),
            ("file", f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB)"),
        ]
        title = imported.get("name") or facts["path"]
    say(title)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        say(f"  {label:{width}}  {value}")
    return 0


def _figures(figures: dict[str, float], kind: str) -> str:
    """Figures in per cent, as publishers write them."""
    told = (f"{key.removesuffix(' AP')} {100 * value:.1f}" for key, value in figures.items())
    return " ".join(told) or ("AP unknown" if kind == "detector" else "top-1 unknown")


def _view(tree: dict[str, Any]) -> str:
    """A step of preparing an image, as the user sets it."""
    shown = {key: value if isinstance(value, list) else [value] for key, value in tree.items()}
    marks = {"size": " x ", "short": "/", "long": "/"}
    sides = {key: mark.join(map(str, shown[key])) for key, mark in marks.items() if key in shown}
    settings = ", ".join(f"{key} {value}" for key, value in sides.items())
    return f"{tree['kind']} {settings}".strip()


@weights_app.command(
    help_epilogue=examples(
        "boxwright weights convert model_final.pkl --output model.safetensors",
        "boxwright weights convert yolo-mine.weights --classes mine.names --output mine.safetensors",
        "boxwright weights convert run/best.safetensors --output my_detector --licence apache-2.0",
        "boxwright weights convert runs/fast-rcnn-vgg16-1 --ranks 1024 256 --output faster.safetensors",
    )
)
def convert(
    source: Source,
    /,
    *,
    output: Annotated[
        Path, Parameter(help="A new .safetensors file; or a folder to upload to the Hugging Face Hub.", group=OUTPUT)
    ],
    classes: ClassNames = None,
    publisher: Whose = None,
    size: InputSize = None,
    licence: Annotated[str | None, Parameter(help="Of the weights, for the card in a folder, as apache-2.0.")] = None,
    ranks: Annotated[
        tuple[int, ...],
        Parameter(
            help="Make the head's fully connected layers products of such ranks, one each, by truncated SVD; 0 leaves "
            "one whole.",
            consume_multiple=True,
            show_default=False,
        ),
    ] = (),
    json: Json = False,
) -> int:
    """Write any checkpoint as one of ours: tensors, recipe and classes in one file that runs nothing.

    Without a suffix, --output is a folder with config.json, model.safetensors and a card, as the Hub has them.
    """
    from boxwright.app.weights import convert as convert_checkpoint

    checkpoint, path = convert_checkpoint(source, output, classes, publisher, size, licence, ranks)
    if json:
        return print_json({"output": str(path), "detector": checkpoint.detector.kind, "source": checkpoint.recipe.name})
    say(f"wrote {path}: {checkpoint.recipe.name}, {checkpoint.detector.kind}, {len(checkpoint.classes)} classes")
    return say(f"  look at images with it:\n    boxwright detect {path} IMAGES... --output detections")


@weights_app.command(
    help_epilogue=examples(
        "boxwright weights push me/my-detector runs/ssd-small-1 --licence apache-2.0",
        "boxwright weights push me/my-detector best.safetensors --private",
    )
)
def push(
    repository: Annotated[str, Parameter(help="Of the Hugging Face Hub, owner/name; it is made if need be.")],
    source: Source,
    /,
    *,
    licence: Annotated[str | None, Parameter(help="Of the weights, for the card, as apache-2.0.")] = None,
    private: Annotated[
        bool, Parameter(help="Let only its owner see the repository, if it is new.", show_default=False)
    ] = False,
    message: Annotated[str | None, Parameter(help="Of the commit.")] = None,
    json: Json = False,
) -> int:
    """Upload a detector to the Hugging Face Hub: tensors, recipe and classes, with a card.

    It needs `pip install 'boxwright[hub]'`, and `hf auth login` or HF_TOKEN for the right to write.
    """
    from boxwright.checkpoints.hub import push_to_hub
    from boxwright.checkpoints.hub_cache import HUB_PREFIX

    address = push_to_hub(source, repository, licence=licence, private=private or None, message=message)
    name = f"{HUB_PREFIX}{repository.removeprefix(HUB_PREFIX)}"
    if json:
        return print_json({"name": name, "url": address})
    say(f"{name} is at {address}")
    return say(f"  fetch it elsewhere:\n    boxwright weights fetch {name}")
