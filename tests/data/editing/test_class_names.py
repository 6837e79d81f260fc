"""Classes renamed, merged, dropped and kept by name."""

import pytest

from boxwright.data.editing.class_names import alike, change_classes, merged_classes
from boxwright.structures import Classes, InputError

BEFORE = Classes(("car", "cars", "dog", "a=b"), (7, 3, 9, 11))


@pytest.mark.parametrize(
    ("rename", "drop", "keep", "names", "ids", "labels"),
    [
        ((), (), (), ("car", "cars", "dog", "a=b"), (7, 3, 9, 11), (0, 1, 2, 3)),
        (("cars=car",), (), (), ("car", "dog", "a=b"), (7, 9, 11), (0, 0, 1, 2)),
        (("car=cars",), (), (), ("cars", "dog", "a=b"), (3, 9, 11), (0, 0, 1, 2)),
        (("car=vehicle", "cars=vehicle"), (), (), ("vehicle", "dog", "a=b"), (7, 9, 11), (0, 0, 1, 2)),
        (("car=cars", "cars=car"), (), (), ("cars", "car", "dog", "a=b"), (7, 3, 9, 11), (0, 1, 2, 3)),
        (("a=b=c=d",), (), (), ("car", "cars", "dog", "c=d"), (7, 3, 9, 11), (0, 1, 2, 3)),
        (("  cars = car ",), ("dog",), (), ("car", "a=b"), (7, 11), (0, 0, -1, 1)),
        (("cars=car",), (), ("car",), ("car",), (7,), (0, 0, -1, -1)),
        ((), ("dog",), ("dog", "car"), None, None, None),
        ((), ("dog",), ("a=b", "car"), ("car", "a=b"), (7, 11), (0, -1, -1, 1)),
    ],
)
def test_changes(rename, drop, keep, names, ids, labels) -> None:  # type: ignore[no-untyped-def]
    if names is None:
        with pytest.raises(InputError, match="class 'dog': is named by --drop and by --keep"):
            change_classes(BEFORE, rename, drop, keep, "coco")
        return
    change = change_classes(BEFORE, rename, drop, keep, "coco")
    assert (change.classes.names, change.classes.ids, change.labels) == (names, ids, labels)
    assert change_classes(BEFORE, rename, drop, keep, "voc").classes.ids == tuple(range(1, len(names) + 1))


@pytest.mark.parametrize(
    ("rename", "drop", "keep", "message"),
    [
        (("cart=car",), (), (), "--rename cart=car: there is no class 'cart'; did you mean 'car"),
        (("car",), (), (), "--rename car: has no equals sign"),
        (("car=",), (), (), "--rename car=: the new name is empty; .* use --drop"),
        (("car=x", "car=y"), (), (), "--rename car=y: 'car' is already renamed to 'x'"),
        ((), ("dgo",), (), "--drop dgo: there is no class 'dgo'; did you mean 'dog'"),
        ((), (), ("zebra",), "--keep zebra: there is no class 'zebra'; there are car, cars, dog, a=b"),
        (("cars=car",), ("cars",), (), "--drop cars: --rename makes this class 'car'"),
        ((), ("car", "cars", "dog", "a=b"), (), "no class is left"),
    ],
)
def test_refusals(rename, drop, keep, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        change_classes(BEFORE, rename, drop, keep, "coco")


def test_merges_are_told() -> None:
    change = change_classes(BEFORE, ("cars=car",), (), (), "coco")
    assert merged_classes(BEFORE, change) == ["classes car, cars are merged into one class, car"]
    assert merged_classes(BEFORE, change_classes(BEFORE, ("cars=auto",), (), (), "coco")) == []


def test_names_that_seem_to_mean_the_same() -> None:
    groups = [
        ("car", "Cars", "CAR"),
        ("traffic light", "traffic_lights", "Traffic-Light"),
        ("berry", "berries"),
        ("box", "boxes"),
        ("bus", "Bus"),
        ("glass", "Glasses"),
        ("dish", "dishes"),
    ]
    assert [{alike(name) for name in group} for group in groups] == [{alike(group[0])} for group in groups]
    assert len({alike(group[0]) for group in groups} | {"cat", "van", "gas"}) == len(groups) + 3
    assert alike("car") != alike("cat")
