"""Recommend recipes for a data set and a machine, without training: ``boxwright recommend``."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Any, NamedTuple

from boxwright.app.choice.commands import exact_command
from boxwright.app.choice.request import choose_for, given_options, limits
from boxwright.app.choice.words import choice_dict, recommendation_lines
from boxwright.app.requests.training import RecommendRequest, TrainRequest
from boxwright.app.train import validated_splits
from boxwright.structures import InputError


class Recommendation(NamedTuple):
    """The choice and the runners-up, as lines of text and as plain values for JSON."""

    lines: list[str]
    values: dict[str, Any]


def recommend(request: RecommendRequest) -> Recommendation:
    """Choose recipes as ``boxwright train`` does without one, and measure their times on this machine.

    Raises InputError for data that cannot be trained on, and for limits that no candidate keeps.
    """
    if request.count < 1:
        raise InputError(f"--count {request.count}: give at least 1")
    shared = {field.name: getattr(request, field.name) for field in fields(request) if field.name != "count"}
    training = TrainRequest(**shared)
    train_index, val_index, _ = validated_splits(training, None)
    choice, task = choose_for(training, train_index, val_index, most=max(2, request.count))
    choice = choice.first(request.count)
    more = given_options(training)
    short = (("--size", request.size), ("--batch-size", request.batch_size), ("--epochs", request.epochs))
    settings = [word for option, value in short if value is not None for word in (option, str(value))]
    chosen = ["boxwright", "train", "--data", str(request.data), *limits(training), *settings, *more]
    others = [exact_command(candidate, request.data, more) for candidate in choice.candidates[1:]]
    commands = [shlex.join(chosen), *others]
    return Recommendation(recommendation_lines(choice, task, commands), choice_dict(choice, task, commands))
