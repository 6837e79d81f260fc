"""Groups of images that stay together: by their names, as copies, as near-duplicates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boxwright.data.editing.groups import groups_of_copies, groups_of_names, groups_of_similar, joined_groups
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import Classes, InputError
from tests.support.photographs import CHANGES, photograph

FRAMES = ["tokyo/v1_f1.jpg", "tokyo/v1_f2.jpg", "oslo/v1_f3.jpg", "oslo/v2_f1.jpg", "oslo/photo.jpg"]


def named(paths: list[str]) -> DetectionIndex:
    records = [ImageRecord(path=Path("data") / p, image_id=i, height=4, width=6) for i, p in enumerate(paths)]
    return DetectionIndex.build(Classes.from_names(["ant"]), records, root="data")


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("(.+)_f", [0, 0, 0, 1, 2]),  # what the brackets hold, in the name of the file
        (r"^v\d", [0, 0, 0, 1, 2]),  # all of it without brackets
        (r"(v\d)_f(\d)", [0, 1, 2, 3, 4]),  # both brackets
        (r"(.+)/", [0, 0, 1, 1, 1]),  # the path, with a slash
        (r"(.+)/(v\d)", [0, 0, 1, 2, 3]),
        (r"f(1)|f(2)", [0, 1, 2, 0, 3]),  # a bracket that takes no part
    ],
)
def test_images_are_grouped_by_their_names(pattern: str, groups: list[int]) -> None:
    assert groups_of_names(named(FRAMES), pattern)[0].tolist() == groups


def test_groups_and_misses_are_said() -> None:
    assert groups_of_names(named(FRAMES), "(.+)_f")[1] == [
        "by --group-by, the 5 images are 3 groups of 1 to 3 images",
        "1 image does not match --group-by (.+)_f, such as photo.jpg; each is a group of its own",
    ]
    assert groups_of_names(named(FRAMES[:4] * 2), "(.+)/")[1] == [
        "by --group-by, the 8 images are 2 groups of 4 images"
    ]
    assert groups_of_names(named(FRAMES), "(.+)/(.+)")[1] == [
        "--group-by (.+)/(.+): every image is a group of its own, so it keeps none together"
    ]


def test_the_key_of_a_group_is_not_the_name_of_an_image_that_does_not_match() -> None:
    groups, _ = groups_of_names(named(["a_1.jpg", "a_2.jpg", "b"]), "([ab])_")
    assert groups.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "*_frame",
            "--group-by *_frame: is no regular expression: nothing to repeat at position 0; for any text write",
        ),
        ("(.+_f", "is no regular expression: missing ), unterminated subpattern at position 0"),
        ("x{99999999999}", "is no regular expression: the repetition number is too large"),
        ("video", "--group-by video: is found in no name of the 5 images, such as v1_f1.jpg"),
        ("paris/(.+)", "is found in no path below the data set of the 5 images, such as tokyo/v1_f1.jpg"),
        (r"\.jpg", "finds '.jpg' in all 5 images, such as v1_f1.jpg, so they are one group; put brackets around what"),
        ("", "finds '' in all 5 images"),
    ],
)
def test_patterns_of_no_use_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        groups_of_names(named(FRAMES), pattern)
    assert message in str(caught.value)


def test_exact_copies_are_found_by_content(tmp_path: Path) -> None:
    contents = [b"one", b"two", b"one", b"three", b"one", b"two"]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.png").write_bytes(content)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    groups, notes = groups_of_copies(paths)
    assert groups.tolist() == [0, 1, 0, 2, 0, 1]
    assert notes == ["5 images are exact copies of another one and stay together, in 2 groups, the largest of 3"]
    assert groups_of_copies(paths[:2]) == (pytest.approx(np.array([0, 1])), [])


def test_near_duplicates_are_found(tmp_path: Path) -> None:
    images = [photograph(0), photograph(1), CHANGES["mirrored"](photograph(0)), photograph(2)]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.jpg")
    paths = [tmp_path / f"{i}.jpg" for i in range(4)]
    groups, notes = groups_of_similar(paths)
    assert groups[0] == groups[2]
    assert len(np.unique(groups)) == 3
    assert notes == ["2 images are near-duplicates of another one and stay together, in 1 group"]
    assert groups_of_similar(paths[1:])[1] == ["no near-duplicates were found"]


def test_numberings_are_joined() -> None:
    first, second = np.array([0, 0, 1, 2, 3, 4]), np.array([7, 1, 2, 1, 3, 7])
    assert joined_groups(first, second).tolist() == [0, 0, 1, 0, 2, 0]
    assert joined_groups(first).tolist() == first.tolist()
