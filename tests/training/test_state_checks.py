"""An edited or damaged training state is refused by its entry, and so are damaged records of a run."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from boxwright.checkpoints.checkpoint import load_train_state
from boxwright.config.recipe import AdamWConfig, Stage
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError
from boxwright.training.loop import train
from boxwright.training.state_checks import load_optimiser
from tests.support.hostile import assert_read_or_refused
from tests.support.mutations import json_mutations, mutations, tree_mutations
from tests.support.runs import without_pictures
from tests.support.toys import build_toy, toy_index, toy_recipe

NAN = float("nan")
NANS = torch.full((4, 3, 3, 3), NAN)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectionIndex, DetectionIndex, Path]:
    """A finished run, and its data."""
    folder = tmp_path_factory.mktemp("state")
    data = toy_index(folder / "train", 5), toy_index(folder / "val", 2, seed=1)
    train(toy_recipe(3), *data, folder / "run", build=build_toy, device="cpu", log="quiet")
    return *data, folder / "run"


def resumed(run: tuple[DetectionIndex, DetectionIndex, Path], folder: Path) -> None:
    train(None, run[0], run[1], folder, build=build_toy, device="cpu", log="quiet", resume=True)


def put(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        place: Any = state
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        place: Any = state
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


WEIGHT = "backbone.conv.weight"
CHANGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (put(-1, "step"), "step: damaged"),
    (put("3", "step"), "step = '3': must be a whole number"),
    (put(True, "step"), "step = True: must be a whole number"),
    (put(10**9, "step"), "step: damaged .*1000000000 is not a whole number from 0 to 3"),
    (put(2**63, "step"), "step: damaged"),
    (put(2, "step"), "damaged"),
    (drop("step"), "lacks step"),
    (put(0, "world"), "world: damaged"),
    (put(7, "stage"), "stage: damaged .7 after step 3"),
    (put(None, "recipe"), "recipe = None: must be text"),
    (put("{", "recipe"), "not valid JSON"),
    (put([1, 2], "classes"), "classes: damaged .names must be text"),
    (put("ab", "classes"), "classes = 'ab': must be a list"),
    (put("00", "fingerprint"), "not the data that the run was started on"),
    (drop("model", WEIGHT), f"model: damaged .*missing, the first {WEIGHT}"),
    (put(torch.zeros(2), "model", WEIGHT), f"model: damaged .*another shape, the first {WEIGHT}"),
    (put(NANS, "model", WEIGHT), "model: damaged .values that are NaN or infinite in"),
    (put(torch.zeros(1).expand(10**6, 10**6), "model", WEIGHT), "model: damaged .*another shape"),
    (put(3, "model", WEIGHT), "model: damaged .must hold tensors by name"),
    (put(None, "ema"), "ema: damaged"),
    (put(-5, "ema", "updates"), "ema.updates: damaged"),
    (put(NANS, "ema", "module", WEIGHT), "ema.module: damaged .values that are NaN"),
    (put(0, "stream", "batches"), "stream.batches: damaged .0 batches after 3 steps"),
    (put("x", "stream", "batches"), "stream.batches: damaged"),
    (put([], "random"), "random: damaged .0 states for 1 processes"),
    (put(torch.zeros(3, dtype=torch.uint8), "random", 0, "torch"), "random: damaged"),
    (put(10**9, "random", 0, "numpy", 2), "random: damaged"),
    (put([1, 2], "random", 0, "python"), "random: damaged"),
    (put([[1.0]], "monitor", "since_row"), "monitor.since_row: damaged"),
    (put([[NAN, NAN]], "monitor", "since_row"), "monitor.since_row: damaged"),
    (put([[10**400, 1.0]], "monitor", "since_row"), "monitor.*: damaged"),
    (put({"step": 99, "AP": 0.5}, "best"), "best.step: damaged"),
    (put({"step": 3, "AP": "0.5"}, "best"), "best.AP: damaged"),
    (put({"step": 3}, "best"), "best.AP: damaged"),
    (put(-1, "validations_since_best"), "validations_since_best: damaged"),
    (put(None, "optimiser"), "optimiser: damaged"),
    (put({}, "optimiser", "state", 0), ""),  # nothing gathered: as before its first gradient
    (put(torch.zeros(9), "optimiser", "state", 0, "momentum_buffer"), "optimiser.state.0.momentum_buffer: damaged"),
    (put(NANS, "optimiser", "state", 0, "momentum_buffer"), "momentum_buffer: damaged .values"),
    (put({"other": 1}, "optimiser", "state", 0), "optimiser.state.0: damaged .must hold momentum_buffer"),
    (put({}, "optimiser", "state", 99), "optimiser.state: damaged"),
    (put(NAN, "optimiser", "param_groups", 0, "lr"), "optimiser.param_groups.lr: damaged"),
    (put([0], "optimiser", "param_groups", 0, "params"), "optimiser.param_groups: damaged"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_an_edited_state_is_refused_by_its_entry(number: int, run, tmp_path: Path) -> None:
    change, said = CHANGES[number]
    shutil.copytree(run[2], tmp_path / "run")
    path = tmp_path / "run" / "last.train"
    state = load_train_state(path)
    change(state)
    torch.save(state, path)
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "run").iterdir())
    if not said:
        resumed(run, tmp_path / "run")
        return
    with pytest.raises(InputError, match=said) as caught:
        resumed(run, tmp_path / "run")
    assert "last.train" in str(caught.value) or "not the data" in said
    assert len(str(caught.value)) < 1500
    assert before == sorted((p.name, p.read_bytes()) for p in (tmp_path / "run").iterdir()), "nothing is written"


def test_settings_of_the_optimiser_come_from_the_recipe() -> None:
    """An edited state could else set a rate of NaN without a word."""
    weight = nn.Parameter(torch.ones(2))
    made = SGD([{"params": [weight], "base_lr": 0.1}], lr=0.1, momentum=0.9)
    weight.grad = torch.ones(2)
    made.step()
    state = made.state_dict()
    state["param_groups"][0] |= {"momentum": NAN, "base_lr": NAN, "weight_decay": "much", "lr": 0.05}
    other = SGD([{"params": [nn.Parameter(torch.ones(2))], "base_lr": 0.1}], lr=0.1, momentum=0.9)
    load_optimiser(other, state)
    group = other.param_groups[0]
    assert (group["momentum"], group["base_lr"], group["weight_decay"], group["lr"]) == (0.9, 0.1, 0, 0.05)
    assert torch.equal(next(iter(other.state.values()))["momentum_buffer"], torch.ones(2))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("metrics.jsonl", "[1]\n", r"metrics\.jsonl: line 1: not a row of a run"),
        ("metrics.jsonl", '{"kind": "train", "step": 1}\n{"kind": "odd", "step": 2}\n', "line 2: not a row of a run"),
        ("metrics.jsonl", '{"kind": "train", "step": "1"}\n', "line 1: not a row of a run"),
        ("metrics.jsonl", '{"kind": "train", "step": 1, "loss": [1]}\n', "line 1: values must be numbers"),
        ("metrics.jsonl", "{\n", "line 1: not valid JSON"),
        ("metrics.jsonl", "[" * 50_000 + "\n", "line 1: not valid JSON: too many tables"),
        ("metrics.jsonl", '{"kind": "train", "step": ' + "9" * 5000 + "}\n", "line 1: not valid JSON"),
        ("run.json", "[]", r"run\.json: not the record of a run"),
        ("run.json", '{"sessions": 3}', r"run\.json: not the record of a run"),
        ("run.json", "{", r"run\.json: not valid JSON"),
    ],
)
def test_a_damaged_record_is_named(file: str, text: str, said: str, run, tmp_path: Path) -> None:
    shutil.copytree(run[2], tmp_path / "run")
    (tmp_path / "run" / file).write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        resumed(run, tmp_path / "run")
    assert len(str(caught.value)) < 800


SPECIAL = (
    *(NAN, float("inf"), -1, 0, 2**63, 10**400, True, None, "", "x" * 10_000, [], {}, (1,), b"x"),
    *(torch.tensor(NAN), torch.zeros(0), torch.full((3,), NAN), torch.zeros(1).expand(10**6, 10**6)),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_damaged_states_are_read_or_refused(kind: str, run, tmp_path: Path) -> None:
    whole = run[2]
    if kind == "adamw":
        recipe = toy_recipe(3)
        stage = recipe.stages[0]
        assert isinstance(stage, Stage)
        whole = tmp_path / "whole"
        recipe = replace(recipe, stages=(replace(stage, optimiser=AdamWConfig()),))
        train(recipe, run[0], run[1], whole, build=build_toy, device="cpu", log="quiet")
    folder = tmp_path / "run"

    def read(data: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / "last.train").write_bytes(data)
        resumed(run, folder)

    def saved(state: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    state = load_train_state(whole / "last.train")
    inputs = [
        *map(saved, tree_mutations(state, 300, 1, SPECIAL)),
        *mutations((whole / "last.train").read_bytes(), 60, 2),
    ]
    assert assert_read_or_refused(read, inputs, tmp_path).read > 5


@pytest.mark.slow
@pytest.mark.parametrize("file", ["metrics.jsonl", "run.json", "data.csv"])
def test_damaged_records_are_read_or_refused(file: str, run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = (run[2] / file).read_bytes()

    def read(data: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run[2], folder)
        (folder / file).write_bytes(data)
        resumed(run, folder)

    inputs = list(mutations(whole, 200, 1))
    if file != "data.csv":
        tree = whole if file == "run.json" else json.dumps([json.loads(line) for line in whole.splitlines()]).encode()
        changed = json_mutations(tree, 120, 2)
        inputs += (
            changed if file == "run.json" else [text.strip(b"[]").replace(b"}, {", b"}\n{") + b"\n" for text in changed]
        )
    assert assert_read_or_refused(read, inputs, tmp_path).read > 5
