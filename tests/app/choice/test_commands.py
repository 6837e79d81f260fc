"""The command of a runner-up trains exactly the candidate."""

import shlex
from pathlib import Path

from boxwright.app.choice.candidate import Wishes
from boxwright.app.choice.choose import choose
from boxwright.app.choice.commands import exact_command
from boxwright.app.requests.training import TrainRequest
from boxwright.app.training.request_recipe import requested_recipe
from tests.support.choice_cases import boxes_index, never, task_of


def test_commands_give_back_the_recipes_of_all_candidates():
    candidates = choose(task_of(boxes_index(images=60, side=24.0)), Wishes(effort="quick"), never, most=4).candidates
    assert len(candidates) == 4
    for candidate in candidates:
        words = shlex.split(exact_command(candidate, Path("my_data"), []))
        assert words[:5] == ["boxwright", "train", candidate.known.recipe, "--data", "my_data"]
        given = dict(zip(words[5::2], words[6::2], strict=True))
        request = TrainRequest(
            data=Path("my_data"),
            sets=tuple(value for option, value in zip(words[5::2], words[6::2], strict=True) if option == "--set"),
            size=given.get("--size"),
            batch_size=int(given["--batch-size"]) if "--batch-size" in given else None,
            epochs=float(given["--epochs"]) if "--epochs" in given else None,
        )
        assert requested_recipe(candidate.known.recipe, request) == candidate.recipe
