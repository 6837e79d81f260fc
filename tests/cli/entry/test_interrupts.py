"""Ctrl-C at any moment: one line, exit code 130, no traceback, also from the processes of a command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import python_environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process group cannot be interrupted there")

# The entry under a hook that sends SIGINT when a module is about to be imported: an exact moment on any machine.
AT_IMPORT = """
import os, signal, sys
from boxwright.__main__ import main
moment, *sys.argv[1:] = sys.argv[1:]
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Sender())
main()
"""


def stopped(words: list[str], code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], env=python_environment(), capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("boxwright.cli.app", ["--help"]),
        ("cyclopts", ["models"]),
        ("rich", ["models"]),
        ("boxwright.cli.weights", ["weights", "list"]),
        ("boxwright.data.formats.check", ["data", "check", "nowhere"]),
        ("torch", ["detect", "nothing", "nowhere.jpg"]),
        ("torch.nn", ["train", "ssd-small", "--data", "nowhere"]),
        ("torchvision", ["evaluate", "nothing", "--data", "nowhere"]),
    ],
)
def test_while_modules_are_imported(moment: str, words: list[str]) -> None:
    done = stopped([moment, *words], AT_IMPORT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_with_json_stdout_holds_the_error() -> None:
    for moment in ("cyclopts", "boxwright.data.formats.check"):
        done = stopped([moment, "data", "check", "nowhere", "--json"], AT_IMPORT)
        assert (done.returncode, done.stderr) == (130, "stopped\n")
        assert done.stdout == '{"error": {"message": "stopped", "kind": "stopped", "exit_code": 130}}\n'


SWALLOWED = """
import os, signal, sys, time
import boxwright.data.formats.check as check
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
def checking(data, **_):
    late = Late()
    del late  # Python swallows what is raised in here
    time.sleep(600)
def wrapping(data, **_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("cannot import name x")
check.check_dataset = {"swallowed": checking, "wrapped": wrapping}[sys.argv[1]]
from boxwright.__main__ import main
sys.argv[1:] = ["data", "check", "here"]
main()
"""


@pytest.mark.parametrize("kind", ["swallowed", "wrapped"])
def test_where_the_exception_does_not_arrive(kind: str) -> None:
    done = stopped([kind], SWALLOWED)  # and not after the minute that the command would wait
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_the_processes_of_a_command_are_silent(tmp_path: Path) -> None:
    """A terminal interrupts the whole group: the command and the processes that draw for it, as they start."""
    words = ["data", "scenes", "scenes", "--train", "4000", "--workers", "2", "--size", "128", "128"]
    for wait in (0.0, 0.7):
        process = subprocess.Popen(
            [sys.executable, "-m", "boxwright", *words],
            env=python_environment(),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:  # it has begun
            time.sleep(0.01)
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err.splitlines()[-1]) == (130, "", "stopped")
        assert "Traceback" not in err
        assert list(tmp_path.iterdir()) == []
