"""Describe the machine and the versions for the head of a results file."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import torch
import torchvision


def processor() -> str:
    """Return the name of the processor as the system states it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe(device: str = "cpu", threads: int | None = None) -> list[str]:
    """Return lines of a Markdown list: date, machine, versions."""
    threads = torch.get_num_threads() if threads is None else threads
    machine = f"{processor()}, {threads} threads" + (f"; {torch.cuda.get_device_name()}" if device == "cuda" else "")
    return [
        f"- date: {datetime.date.today().isoformat()}",
        f"- machine: {machine}",
        f"- versions: Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}",
    ]
