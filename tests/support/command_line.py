"""Helpers for tests that run command lines in this process."""

import json

import pytest

from boxwright.cli.app import main

RECIPE = "faster-rcnn-detnet-small-fpn"
TINY = [
    *("--set", "data.train.0.size=[96, 96]", "--set", "data.eval.0.size=[96, 96]", "--set", "data.batch_size=4"),
    *("--set", "stages.0.length=2", "--set", "stages.0.unit=steps", "--set", 'stages.0.schedule.warmup="none"'),
    *("--workers", "0", "--device", "cpu"),
]


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command line that must fail with exit code 2 and no traceback, and return its one-line error.

    With ``--json`` stdout must hold the same message as JSON, and nothing else.
    """
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, captured.err
    if "--json" in words:
        assert f"error: {json.loads(captured.out)['error']['message']}" == errors[0]
    else:
        assert captured.out == ""
    return errors[0]


def json_output(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> object:
    """Run a command line and return the one JSON value that it prints on stdout."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    return json.loads(capsys.readouterr().out)
