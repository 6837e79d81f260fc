"""Run Python in a process of its own, with the package and the tests importable there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def python_environment(**changes: str) -> dict[str, str]:
    """Return the environment of a child process that can import ``tests`` too."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **changes}


def start_python(*arguments: str, **options: Any) -> subprocess.Popen[Any]:
    """Start Python with these arguments."""
    return subprocess.Popen([sys.executable, *arguments], env=python_environment(), **options)


def run_python(code: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` to its end, with ``changes`` of the environment, and return its output as text."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=python_environment(**changes), capture_output=True, text=True, check=False)
