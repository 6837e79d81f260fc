"""Paths and globs on the command line, and the files that they select."""

from pathlib import Path

import pytest

from boxwright.app.detection.sources import find_sources, natural_key
from boxwright.structures import InputError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("10.jpg", "2.JPG", "b.png", "notes.txt", "clip.mp4", "deep/2.jpg", "deep/.hidden.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "photos"


def names(sources) -> list[tuple[str, str]]:
    return [(s.name, s.kind) for s in sources]


def test_a_folder_gives_images_and_videos_in_natural_order(photos: Path):
    assert names(find_sources([photos])) == [
        ("2.JPG", "image"),
        ("10.jpg", "image"),
        ("b.png", "image"),
        ("clip.mp4", "video"),
    ]


def test_recursive_includes_subfolders_but_no_hidden_files(photos: Path):
    assert ("deep/2.jpg", "image") in names(find_sources([photos], recursive=True))
    assert len(find_sources([photos], recursive=True)) == 5


def test_files_globs_and_folders_mix_and_each_file_counts_once(photos: Path):
    found = find_sources([photos / "b.png", str(photos / "*.jpg"), photos])
    assert names(found) == [("b.png", "image"), ("10.jpg", "image"), ("2.JPG", "image"), ("clip.mp4", "video")]


def test_files_of_the_same_name_get_different_names(photos: Path):
    assert [s.name for s in find_sources([photos / "2.JPG", photos / "deep" / "2.jpg"])] == ["2.JPG", "2-2.jpg"]


def test_a_file_whose_name_has_glob_characters_is_taken_as_it_is(tmp_path: Path):
    path = tmp_path / "a[1].jpg"
    path.write_bytes(b"x")
    assert [s.path for s in find_sources([path])] == [path]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("photos/c.png", r"no such file or folder; did you mean 'b\.png'\?"),
        ("elsewhere/c.png", "elsewhere does not exist either"),
        ("photos/*.tiff", "no image or video matches"),
        ("empty", "no image or video in this folder; include its subfolders with --recursive"),
    ],
)
def test_an_empty_selection_is_an_error_with_a_remedy(photos: Path, pattern: str, words: str):
    (photos.parent / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        find_sources([photos.parent / pattern])


def test_no_source_at_all():
    with pytest.raises(InputError, match="no files given"):
        find_sources([])


def test_links_to_folders_are_followed_and_no_image_counts_twice(photos: Path):
    outside = photos.parent / "outside"
    outside.mkdir()
    (outside / "cam.jpg").write_bytes(b"x")
    (photos / "linked").symlink_to("../outside")
    (photos / "deep" / "up").symlink_to("..")
    (photos / "same.jpg").symlink_to("b.png")
    found = find_sources([photos], recursive=True)
    assert [s.name for s in found] == ["2.JPG", "10.jpg", "b.png", "clip.mp4", "deep/2.jpg", "linked/cam.jpg"]
    assert len({s.path for s in found}) == len(found)


@pytest.mark.parametrize("name", ["IMG_1.DNG", "a.jxl", "dead.jpg"])
def test_images_that_cannot_be_read_are_among_the_sources(photos: Path, name: str):
    """Reading them fails, and so they are reported."""
    (photos / name).symlink_to("nowhere")
    assert (name, "image") in names(find_sources([photos]))


def test_numbers_sort_as_numbers():
    assert sorted(["a10", "a9", "a", "10", "9b"], key=natural_key) == ["9b", "10", "a", "a9", "a10"]
