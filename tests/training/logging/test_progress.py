"""Tests of the output of a run on the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from boxwright.training.logging.progress import Bar, Lines, describe, open_reporter

ROW = {
    "step": 20,
    "epoch": 1.5,
    "loss": 0.75,
    "loss_box": 0.25,
    "loss_label": 0.5,
    "lr": 0.02,
    "images_per_second": 12.34,
    "eta": 3725.4,
    "memory": 2_500_000_000,
}


def test_a_row_as_text() -> None:
    text = "epoch 1.50  loss 0.75 (box 0.25, label 0.5)  lr 0.02  12.3 images/s  1:02:05 left  2.50 GB"
    assert describe(ROW) == text
    assert (
        describe({"step": 1, "epoch": 0.1, "loss": 2.0, "lr": 1e-4, "memory": None}) == "epoch 0.10  loss 2  lr 0.0001"
    )


def test_lines() -> None:
    lines: list[str] = []
    reporter = Lines(lines.append, total=40)
    reporter.say("hello")
    reporter.step(19)
    reporter.row(ROW)
    assert lines[0] == "hello"
    assert lines[1].startswith("step 20/40  epoch 1.50  loss 0.75")
    assert len(lines) == 2


def test_the_bar_shows_steps_and_the_last_row() -> None:
    screen = io.StringIO()
    bar = Bar(Console(file=screen, force_terminal=True, width=160), total=40, done=4)
    bar.say("data: [not markup]")
    bar.step(21)
    bar.row(ROW)
    bar.close()
    text = screen.getvalue()
    assert "data: [not markup]" in text
    assert "21/40" in text
    assert "loss 0.75 (box 0.25, label 0.5)" in text


def test_where_a_run_talks_to(capsys) -> None:
    open_reporter("lines", main=True, total=9, done=0).say("one")
    open_reporter("lines", main=False, total=9, done=0).say("two")
    open_reporter("quiet", main=True, total=9, done=0).say("three")
    assert isinstance(open_reporter("auto", main=True, total=9, done=0), Lines)  # pytest's stderr is no terminal
    captured = capsys.readouterr()
    assert (captured.err, captured.out) == ("one\n", "")
