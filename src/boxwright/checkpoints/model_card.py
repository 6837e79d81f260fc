"""Write the model card of a detector: architecture, origin and measured metrics. Only known facts are stated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from torch import Tensor

from boxwright.checkpoints.checkpoint import Checkpoint
from boxwright.config.reading import dump_recipe

_METRICS = {
    "AP": "AP at IoU .50 to .95",
    "AP50": "AP at IoU .50",
    "AP75": "AP at IoU .75",
    "APs": "AP of small objects",
    "APm": "AP of medium objects",
    "APl": "AP of large objects",
    "AR100": "AR with 100 detections an image",
    "mask_AP": "AP of masks",
}

_USE = """\
```python
import boxwright

detector = boxwright.from_pretrained("{name}")
for found in detector.detect("photo.jpg", threshold=0.5):
    print(found.boxes, found.scores, found.names)
```

or, on the command line:

```bash
boxwright weights fetch hf:{name}
boxwright detect hf:{name} photo.jpg
```
"""


def model_card(checkpoint: Checkpoint, meta: Mapping[str, Any], name: str, licence: str | None) -> str:
    """Return the ``README.md`` of a repository ``name`` ("owner/name", or the name alone while there is no owner).

    Its header is the metadata that the Hub indexes. ``model-index`` holds the metrics measured with these weights and
    is left out if there are none.
    """
    header: dict[str, Any] = {
        "library_name": "boxwright",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "boxwright", "pytorch", checkpoint.detector.kind.replace("_", "-")],
    }
    if licence is not None:
        header["license"] = licence
    measured = _measured(meta)
    if measured:
        header["model-index"] = [{"name": name.rsplit("/", 1)[-1], "results": [_result(measured, meta)]}]
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {name.rsplit('/', 1)[-1]}",
        _summary(checkpoint, meta),
        "## Use",
        _USE.format(name=name).strip(),
        "## Classes",
        ", ".join(checkpoint.classes.names),
        "## Measured",
        _measured_table(measured, meta),
        "## Made from",
        _origin(meta),
        "## Licence",
        _licence(licence, meta),
        "## Recipe",
        f"```json\n{dump_recipe(checkpoint.recipe)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def parameter_count(state: Mapping[str, Tensor]) -> int:
    """Count the parameters in a state dict, without the statistics of batch norms."""
    kept = (t for name, t in state.items() if not name.endswith(("num_batches_tracked", "running_mean", "running_var")))
    return sum(tensor.numel() for tensor in kept)


def _measured(meta: Mapping[str, Any]) -> dict[str, float]:
    row = meta.get("metrics") or {}
    return {key: row[key] for key in _METRICS if isinstance(row.get(key), int | float)}


def _data_name(meta: Mapping[str, Any]) -> str:
    return (meta.get("data") or {}).get("root") or "unknown"


def _result(measured: Mapping[str, float], meta: Mapping[str, Any]) -> dict[str, Any]:
    name = _data_name(meta)
    return {
        "task": {"type": "object-detection"},
        "dataset": {"name": name, "type": re.sub(r"[^\w.-]+", "-", name), "split": "validation"},
        "metrics": [{"type": key, "name": _METRICS[key], "value": round(value, 4)} for key, value in measured.items()],
    }


def _summary(checkpoint: Checkpoint, meta: Mapping[str, Any]) -> str:
    numbers = parameter_count(checkpoint.state)
    kind = checkpoint.detector.kind
    article = "An" if kind[0] in "aeiou" else "A"
    text = (
        f"{article} object detector of kind `{kind}` with {numbers / 1e6:.1f} M parameters for "
        f"{len(checkpoint.classes)} classes, recipe `{checkpoint.recipe.name}`, in the format of Boxwright."
    )
    paper = checkpoint.recipe.source.paper
    return f"{text} Method: {paper}." if paper else text


def _measured_table(measured: Mapping[str, float], meta: Mapping[str, Any]) -> str:
    rows = [
        "| metric | value |",
        "|---|---|",
        *(f"| {_METRICS[key]} | {value:.4f} |" for key, value in measured.items()),
    ]
    if measured:
        return "On the validation set of the training run, with these weights:\n\n" + "\n".join(rows)
    published = (meta.get("imported") or {}).get("published")
    if not published:
        return "Nothing was measured with these weights."
    told = ", ".join(f"{key} {value:.3f}" for key, value in published.items() if key != "measured_on")
    return f"Nothing was measured here. The publisher reports {told} on {published['measured_on']}."


def _origin(meta: Mapping[str, Any]) -> str:
    rows: list[tuple[str, Any]] = []
    data = meta.get("data") or {}
    if data:
        rows += [("data", _data_name(meta)), ("split", data.get("split"))]
        rows += [("images", data.get("images")), ("boxes", data.get("boxes")), ("fingerprint", data.get("fingerprint"))]
    imported = meta.get("imported") or {}
    labels = {
        "source": "imported from",
        "name": "published as",
        "url": "address",
        "data": "trained on",
        "file": "file",
    }
    rows += [(label, imported.get(key)) for key, label in labels.items()]
    rows += [("step", meta.get("step")), ("epoch", meta.get("epoch"))]
    rows += [(f"version of {what}", version) for what, version in (meta.get("versions") or {}).items()]
    told = [f"| {label} | {value} |" for label, value in rows if value is not None]
    return "\n".join(["| | |", "|---|---|", *told]) if told else "Unknown."


def _licence(licence: str | None, meta: Mapping[str, Any]) -> str:
    theirs = (meta.get("imported") or {}).get("licence")
    parts = [f"The weights: {licence}." if licence else "The licence of these weights is not stated."]
    if theirs:
        parts.append(f"They were imported from weights under: {theirs}.")
    parts.append("The code that reads them, Boxwright, is under Apache-2.0.")
    return " ".join(parts)
