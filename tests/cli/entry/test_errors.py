"""Errors of the command line: messages, kinds and exit codes, as text and as JSON."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import boxwright.data.formats.check as checking
from boxwright.cli.app import main
from boxwright.cli.entry.errors import FAULT, failure_of
from boxwright.structures import InputError
from tests.support.processes import python_environment


def raising(error: BaseException):
    def raises(*_: object, **__: object) -> None:
        raise error

    return raises


def test_a_fault_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checking, "check_dataset", raising(IndexError("index 3 is out of range\nmore")))
    assert main(["data", "check", "here"]) == FAULT == 70
    captured = capsys.readouterr()
    assert captured.out == ""
    *trace, last = captured.err.splitlines()
    assert trace[0].startswith("Traceback")
    assert last == (
        "error: this is a fault in Boxwright (IndexError: index 3 is out of range); please report it with this "
        "command, the traceback above and the output of `boxwright env`"
    )
    assert main(["data", "check", "here", "--json"]) == 70
    value = json.loads(capsys.readouterr().out)["error"]
    assert (value["kind"], value["exit_code"]) == ("fault", 70)


CASES = {
    "gpu": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."), "smaller batches"),
    "cpu": (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), "memory is full"),
    "python": (MemoryError(), "the memory is full"),
    "driver": (RuntimeError("Found no NVIDIA driver on your system. Please check"), "Found no NVIDIA driver on your"),
    "old gpu": (RuntimeError("CUDA error: no kernel image is available for execution"), "Install a PyTorch for it"),
    "disk": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    "named disk": (OSError(errno.ENOSPC, "No space left on device", "/x/y.bin"), "/x/y.bin: the disk is full"),
    "reading": (PermissionError(errno.EACCES, "Permission denied", "/x/y.bin"), "/x/y.bin: Permission denied"),
}


@pytest.mark.parametrize("name", CASES)
def test_errors_of_the_machine(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error, words = CASES[name]
    monkeypatch.setattr(checking, "check_dataset", raising(error))
    assert main(["data", "check", "here", "--json"]) == 2
    captured = capsys.readouterr()
    value = json.loads(captured.out)["error"]
    assert (value["kind"], value["exit_code"]) == ("machine", 2)
    assert words in value["message"]
    assert captured.err == f"error: {value['message']}\n"


def test_kinds() -> None:
    assert failure_of(InputError("x")).kind == "input"
    assert failure_of(RuntimeError("x")).kind == "fault"
    assert failure_of(AssertionError()).message.startswith("this is a fault in Boxwright (AssertionError); please")
    assert failure_of(OSError("no number")).kind == "fault"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("trian --json", "usage"),
        ("train --json", "usage"),
        ("detect --json --foo", "usage"),
        ("data scenes x --size 3 --json", "usage"),
        ("train model=x --json", "usage"),
        ("train r --data nowhere --json", "input"),
        ("pretrain detnet59 --data nowhere --json", "input"),
        ("proposals --data nowhere --output x.safetensors --json", "input"),
        ("evaluate nothing --data nowhere --json", "input"),
        ("detect nothing nowhere.jpg --json", "input"),
        ("models nothing --json", "input"),
        ("demo --images 0 --json", "input"),
        ("data check nowhere --json", "input"),
        ("data show nowhere --json", "input"),
        ("data convert nowhere new --format coco --json", "input"),
        ("data anchors nowhere --count 3 --json", "input"),
        ("data scenes . --json", "input"),
        ("weights list --publisher nobody --json", "input"),
        ("weights fetch nobody:nothing --json", "input"),
        ("weights show nothing --json", "input"),
        ("weights convert nothing --output x.safetensors --json", "input"),
        ("weights export nothing --format torchvision --output x.pth --json", "input"),
        ("weights push a/b nothing --json", "input"),
    ],
)
def test_with_json_an_error_is_json(
    line: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("")
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert set(value) == {"error"}
    assert (value["error"]["kind"], value["error"]["exit_code"]) == (kind, 2)
    assert captured.err.splitlines()[-1] == f"error: {value['error']['message']}"


def piped(*words: str) -> tuple[int, str]:
    """Run a command whose output nobody reads; return its exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "boxwright", *words],
        env=python_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
@pytest.mark.parametrize("line", ["--help", "models", "models --json", "weights list", "trian --json"])
def test_output_that_nobody_reads(line: str) -> None:
    code, err = piped(*line.split())
    assert code == 0
    assert [text for text in err.splitlines() if not text.startswith("error: there is no command `trian`")] == []


def test_a_broken_pipe_of_something_else_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checking, "check_dataset", raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert main(["data", "check", "here"]) == 2
    assert capsys.readouterr().err == "error: Broken pipe\n"
