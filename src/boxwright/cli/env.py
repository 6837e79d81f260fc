"""The command ``boxwright env``."""

from __future__ import annotations

from typing import Any

from boxwright.cli.common import Json, examples, print_json, say

EXAMPLES = examples("boxwright env", "boxwright env --json > environment.json")


def env(*, json: Json = False) -> int:
    """Print versions, system, processor, memory and GPUs, as a bug report needs them."""
    from boxwright.app.machine import describe_environment

    facts = describe_environment()
    return print_json(facts) if json else say("\n".join(lines_of(facts)))


def lines_of(facts: dict[str, Any]) -> list[str]:
    """Return the facts as lines of a label and a value."""
    commit = f", commit {facts['commit'][:12]}" if facts["commit"] else ""
    rows = [
        ("boxwright", f"{facts['boxwright']}{commit}, in {facts['location']}"),
        ("python", f"{facts['python']}, {facts['executable']}"),
    ]
    rows += [(name, version or "not installed") for name, version in facts["packages"].items()]
    for extra, parts in facts["extras"].items():
        shown = ", ".join(f"{name} {version or 'not installed'}" for name, version in parts.items())
        rows.append((f"[{extra}]", shown))
    rows += [
        ("system", facts["system"]),
        ("processor", f"{facts['processor']}, {facts['cores']} cores, {facts['usable_cores']} usable"),
        ("memory", f"{_size(facts['memory'])}, shared memory {_size(facts['shared_memory'])}"),
        *_torch_rows(facts["torch"], facts["driver"]),
    ]
    own = facts["set_by_boxwright"]
    rows += [
        (name, f"{value} (set by Boxwright)" if name in own else value) for name, value in facts["variables"].items()
    ]
    width = max(len(label) for label, _ in rows)
    return [f"{label:{width}}  {value}" for label, value in rows]


def _torch_rows(torch: dict[str, Any], driver: str | None) -> list[tuple[str, str]]:
    if "error" in torch:
        return [("torch", f"cannot be imported: {torch['error']}"), ("NVIDIA driver", driver or "none")]
    built = f"CUDA {torch['cuda']}" if torch["cuda"] else f"HIP {torch['hip']}" if torch["hip"] else "the CPU only"
    gpus = [
        (f"GPU {index}", f"{gpu['name']}, {_size(gpu['memory'])}, compute capability {gpu['capability']}")
        for index, gpu in enumerate(torch["gpus"])
    ]
    threads = f"{torch['threads']} in an operation, {torch['interop_threads']} between, {torch['cpu_capability']}"
    return [
        ("torch built for", built + (f", cuDNN {torch['cudnn']}" if torch["cudnn"] else "")),
        ("NVIDIA driver", driver or "none"),
        *(gpus or [("GPU", "Apple (mps)" if torch["mps_available"] else "none that PyTorch can use")]),
        ("threads", threads),
    ]


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
