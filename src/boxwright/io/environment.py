"""Describe the environment of a run: versions, git state, machine, memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boxwright

if TYPE_CHECKING:  # torch is imported only by the functions that need it
    import torch


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the results of a run depend."""
    import numpy as np
    import torch
    import torchvision

    return {
        "boxwright": boxwright.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine and the device of a run."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "cpu_threads": torch.get_num_threads(),
    }


def precision_note(device: torch.device, precision: str) -> str | None:
    """Return a warning if ``device`` has no bf16 instructions and has to emulate them, which is very slow."""
    if precision != "bf16":
        return None
    import torch

    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip is not None
    elif device.type == "cpu":
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch.backends.mkldnn.is_available() else False
    else:
        return None
    if native:
        return None
    return (
        f"this {device.type} device has no instructions for bf16, which is many times slower than fp32 here; use fp32"
    )


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Return commit, branch and whether files are changed in the work tree around ``folder`` (default: Boxwright's own
    sources); None outside a work tree or without git."""
    folder = folder or Path(__file__).resolve().parents[1]
    commit = _git(folder, "rev-parse", "HEAD")
    tracked = _git(folder, "ls-files", "--error-unmatch", ".")
    if not commit or not tracked:  # an installed package may be inside another work tree
        return None
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    return {"commit": commit, "branch": branch, "changed": bool(_git(folder, "status", "--porcelain", "-uno"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def peak_memory(device: torch.device) -> int | None:
    """Return peak memory in bytes: tensors on a CUDA device, else the process's resident memory; None if unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
