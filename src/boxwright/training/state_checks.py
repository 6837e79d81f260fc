"""Checks of a training state that is read to resume a run: an edited or damaged one is refused by its entry."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from boxwright.checkpoints.contents import check_types
from boxwright.config.bounds import LARGEST, shortened
from boxwright.detectors.contract.adoption import misfits, not_finite
from boxwright.structures import InputError

REMEDY = "take an older copy of the file, or start a new run with last.safetensors as --weights"


class StateError(InputError):
    """An entry of a training state is damaged. The message begins with its key; the file is added by the reader."""


@contextmanager
def entry(key: str) -> Iterator[None]:
    """Turn whatever the block raises while it reads the entry ``key`` into a StateError that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise fault(key, f"{type(error).__name__}: {error}") from error


def fault(key: str, told: str) -> StateError:
    """Return the error about an entry."""
    return StateError(f"{key}: damaged ({shortened(told)}); {REMEDY}")


def check_outline(state: Mapping[str, Any], path: str) -> None:
    """Raise InputError for a state whose entries are missing or of another type; states of earlier versions lack some.

    ``path`` names the file.
    """
    kinds: dict[str, Any] = {"step": int, "world": int, "model": dict, "random": list, "best": (dict, type(None))}
    kinds |= {"fingerprint": str, "classes": list}
    optional: dict[str, Any] = {"stage": int, "validated": int, "measured": int, "validations_since_best": int}
    optional |= {"stream": dict, "monitor": dict, "starts": dict, "recipe": str, "pretrain": str, "licence": str}
    optional |= {"last_validation": (dict, type(None)), "ema": (dict, type(None)), "scaler": dict}
    optional |= {"optimiser": (dict, type(None)), "fit": (dict, type(None)), "val_fingerprint": (str, type(None))}
    check_types(state, kinds | {key: kind for key, kind in optional.items() if key in state}, path)
    for key in ("step", "stage", "validated", "measured", "validations_since_best"):
        check_count(state.get(key, 0), key)
    check_count(state["world"] - 1, "world")
    if any(not isinstance(name, str) for name in state["classes"]):
        raise fault("classes", "names must be text")


def check_count(value: Any, key: str, most: int = LARGEST - 1) -> int:
    """Return a whole number in 0..``most``; raises StateError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise fault(key, f"{shortened(repr_of(value), 80)} is not a whole number from 0 to {most}")
    return value


def repr_of(value: Any) -> str:
    """Return ``value`` as text; a whole number of thousands of digits has none."""
    try:
        return repr(value)
    except ValueError:
        return "a number"


def check_row(row: Any, key: str, metric: str, step: int) -> None:
    """Raise StateError unless ``row`` is that of a validation up to ``step``, or None."""
    if row is None:
        return
    check_count(row.get("step"), f"{key}.step", step)
    value = row.get(metric, "nothing")
    if value is not None and (not isinstance(value, int | float) or not math.isfinite(value)):
        raise fault(f"{key}.{metric}", f"{shortened(repr_of(value), 80)} is not a number")


def check_tensors(model: nn.Module, given: Any, key: str) -> None:
    """Raise StateError unless ``given`` has the finite tensors of ``model``, by name and shape."""
    if not isinstance(given, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in given.items()):
        raise fault(key, "must hold tensors by name")
    if faults := misfits(model, given):
        raise fault(key, faults)
    if named := not_finite(given):
        raise fault(key, f"values that are NaN or infinite in {named}")


def load_optimiser(optimiser: Optimizer, state: Any) -> None:
    """Restore ``optimiser``. Its settings are those of the recipe; the state adds what the steps have gathered.

    Raises StateError for values that are missing, of another shape, or not finite.
    """
    key = "optimiser"
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        raise fault(key, "must hold state and param_groups")
    with entry(key):
        groups = optimiser.state_dict()["param_groups"]
        saved = state["param_groups"]
        if [group["params"] for group in saved] != [group["params"] for group in groups]:
            raise fault(f"{key}.param_groups", "other parameters than the network's")
        for own, group in zip(groups, saved, strict=True):
            if not isinstance(group["lr"], float | int) or not math.isfinite(group["lr"]) or group["lr"] < 0:
                raise fault(f"{key}.param_groups.lr", repr_of(group["lr"]))
            own["lr"] = group["lr"]
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for number, values in state["state"].items():
        check_count(number, f"{key}.state", len(parameters) - 1)
        _check_gathered(values, parameters[number], optimiser, f"{key}.state.{number}")
    with entry(key):
        optimiser.load_state_dict({"state": state["state"], "param_groups": groups})


def _check_gathered(values: Any, parameter: Tensor, optimiser: Optimizer, key: str) -> None:
    """Check what an optimiser has gathered of one parameter."""
    names = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimiser, AdamW) else {"momentum_buffer"}
    if not isinstance(values, dict) or (set(values) != names and values):
        raise fault(key, f"must hold {', '.join(sorted(names))}")
    for name, value in values.items():
        if value is None and name == "momentum_buffer":
            continue
        shape = torch.Size() if name == "step" else parameter.shape
        if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
            raise fault(f"{key}.{name}", f"must be a tensor of shape {list(shape)}")
        if not_finite({name: value}) or (name in ("step", "exp_avg_sq") and bool((value < 0).any())):
            raise fault(f"{key}.{name}", "values that are NaN, infinite or negative")


def check_monitor(state: Mapping[str, Any]) -> None:
    """Raise StateError unless the losses since the last row are numbers, one for each name."""
    names, rows = state.get("names", []), state.get("since_row")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise fault("monitor.names", "must be names of losses")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        raise fault("monitor.since_row", f"must be lists of {len(names)} losses")
    if not all(isinstance(value, int | float) and math.isfinite(value) for row in rows for value in row):
        raise fault("monitor.since_row", "losses that are no finite numbers")


def check_random(states: list[Any], world: int) -> None:
    """Raise StateError unless there are the random states of each process."""
    if len(states) != world:
        raise fault("random", f"{len(states)} states for {world} processes")
    for state in states:
        with entry("random"):
            _, keys, position, _, gauss = state["numpy"]
            words = state["python"][1]
            whole = keys.dtype == torch.int64 and keys.shape == (624,) and bool(((keys >= 0) & (keys < 2**32)).all())
            if not whole or not 0 <= position <= 624 or not math.isfinite(gauss) or len(words) != 625:
                raise fault("random", "no state of a generator")
