"""Options of earlier versions are read at their new paths; a deleted one is an error unless it was as always."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import pytest

from boxwright.config.config_tree import from_tree, to_tree
from boxwright.config.moved import MOVED, Gone, Moves
from boxwright.config.overlay import apply_overlays, parse_set
from boxwright.fields import Count, Share, config, field_types, union_members
from boxwright.structures import InputError


@config
class Loss:
    ratio: float = 3.0
    weight: float = 1.0


@config
class Post:
    nms: Share = 0.5
    most: Count = 100


@config
class Head:
    post: Post = Post()


@config
class Dense:
    USUAL: ClassVar[bool] = True

    kind: Literal["dense"] = "dense"
    loss: Loss = Loss()
    head: Head = Head()
    sides: tuple[int, ...] = (1, 2)


@config
class Other:
    kind: Literal["other"] = "other"
    ratio: float = 7.0


@config
class Run:
    name: str = "run"
    net: Dense | Other = Dense()
    nets: tuple[Dense | Other, ...] = (Other(), Dense())
    maybe: Dense | None = None


MOVES: Moves = {
    Dense: {
        "ratio": "loss.ratio",
        "matcher.weight": "loss.weight",
        "post": "head.post",
        "flavour": Gone("plain", (1, 2)),
    },
    Run: {"network": "net"},
}
OLD = {
    "name": "old",
    "net": {
        "kind": "dense",
        "ratio": 2.0,
        "matcher": {"weight": 0.5},
        "post": {"nms": 0.3, "most": 7},
        "flavour": "plain",
        "sides": [3],
    },
    "nets": [{"kind": "other", "ratio": 1.0}, {"ratio": 4.0, "flavour": [1, 2]}],
    "maybe": {"kind": "dense", "post": {"most": 5}},
}


def test_a_stored_tree_reads_at_the_new_paths() -> None:
    assert from_tree(Run, OLD, moves=MOVES) == Run(
        name="old",
        net=Dense(loss=Loss(ratio=2.0, weight=0.5), head=Head(post=Post(nms=0.3, most=7)), sides=(3,)),
        nets=(Other(ratio=1.0), Dense(loss=Loss(ratio=4.0))),
        maybe=Dense(head=Head(post=Post(most=5))),
    )
    run = from_tree(Run, {"network": {"kind": "other"}}, moves=MOVES)
    assert run == Run(net=Other())
    assert from_tree(Run, to_tree(run), moves=MOVES) == run


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["net.ratio=2"], Run(net=Dense(loss=Loss(ratio=2.0)))),
        (["net.ratio=2", "net.loss.ratio=4"], Run(net=Dense(loss=Loss(ratio=4.0)))),
        (["net.loss.ratio=4", "net.ratio=2"], Run(net=Dense(loss=Loss(ratio=2.0)))),
        (["net.post.nms=0.25"], Run(net=Dense(head=Head(post=Post(nms=0.25))))),
        (["net.matcher.weight=2"], Run(net=Dense(loss=Loss(weight=2.0)))),
        (["network.ratio=2"], Run(net=Dense(loss=Loss(ratio=2.0)))),
        (["nets.1.ratio=2"], Run(nets=(Other(), Dense(loss=Loss(ratio=2.0))))),
        (["nets.0.ratio=2"], Run(nets=(Other(ratio=2.0), Dense()))),
        (["net.kind=other", "net.ratio=2"], Run(net=Other(ratio=2.0))),
        (["net={kind='other', ratio=2}"], Run(net=Other(ratio=2.0))),
        (["maybe.ratio=2", "maybe.flavour=plain"], Run(maybe=Dense(loss=Loss(ratio=2.0)))),
        (["maybe.ratio=2", "maybe=none"], Run()),
        (["nets=[{ratio=2}]"], Run(nets=(Dense(loss=Loss(ratio=2.0)),))),
    ],
)
def test_a_setting_reaches_the_new_path(sets: list[str], expected: Run) -> None:
    assert apply_overlays(Run(), [parse_set(text) for text in sets], MOVES) == expected


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["net.flavour=odd"], ["--set net.flavour=odd: net.flavour = 'odd'", "gone", "'plain' or [1, 2]"]),
        (["net.ratio='x'"], ["--set net.ratio='x': net.loss.ratio = 'x'", "valid number"]),
        (["net={ratio=2, loss={ratio=3}}"], ["net.ratio is 'loss.ratio' now, which is given as well"]),
        (["nets.0.flavour=plain"], ["nets.0 has no key 'flavour'"]),
        (["nets.2.ratio=1"], ["0 to 1", "'2'"]),
        (["net={loss=3, ratio=2}"], ["net.loss = 3"]),
    ],
)
def test_what_cannot_be_read_says_why(sets: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        apply_overlays(Run(), [parse_set(text) for text in sets], MOVES)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_table_leads_to_options_that_exist() -> None:
    for cls, moves in MOVED.items():
        for old, new in moves.items():
            assert old not in {".".join(path) for path in _paths(cls)}, f"{cls.__name__}.{old} is still there"
            if isinstance(new, str):
                assert tuple(new.split(".")) in _paths(cls), f"{cls.__name__} has no {new}"
            else:
                assert new.values


def _paths(cls: Any) -> set[tuple[str, ...]]:
    """Every path below the table of ``cls``."""
    found: set[tuple[str, ...]] = set()
    for name, annotation in field_types(cls).items():
        found.add((name,))
        for member in union_members(annotation):
            if dataclasses.is_dataclass(member):
                found |= {(name, *path) for path in _paths(member)}
    return found


def test_a_trained_checkpoint_may_hold_any_value_of_a_deleted_option_of_training() -> None:
    """Its weights are what they are; only a run that goes on would need the option."""
    moves: Moves = {Loss: {"decay": Gone(None, training=True), "shape": Gone("round")}}
    assert from_tree(Loss, {"decay": 0.8, "ratio": 2.0}, moves=moves, trained=True) == Loss(ratio=2.0)
    with pytest.raises(InputError, match=r"decay = 0.8: this option is gone"):
        from_tree(Loss, {"decay": 0.8}, moves=moves)
    with pytest.raises(InputError, match=r"shape = 'odd': this option is gone"):
        from_tree(Loss, {"shape": "odd"}, moves=moves, trained=True)


@pytest.mark.parametrize(
    ("value", "allowed", "same"),
    [("none", None, True), (None, None, True), (1, True, False), (True, 1.0, False), (1, 1.0, True), (1.0, 1, False)],
)
def test_a_deleted_option_is_compared_by_type_too(value: Any, allowed: Any, same: bool) -> None:
    moves: Moves = {Loss: {"odd": Gone(allowed)}}
    if same:
        assert from_tree(Loss, {"odd": value}, moves=moves) == Loss()
    else:
        with pytest.raises(InputError, match="this option is gone"):
            from_tree(Loss, {"odd": value}, moves=moves)
