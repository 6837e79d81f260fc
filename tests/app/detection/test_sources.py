"""Paths and globs on the command line, and the files that they select."""

import os
from pathlib import Path

import pytest

from boxwright.app.detection.sources import find_sources, natural_key
from boxwright.structures import InputError
from tests.support.dataset_files import write_image


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
        ("dead.jpg", r"dead\.jpg: this is a link to .*nowhere\.jpg, which does not exist"),
        ("photos/*.tiff", "no image or video matches"),
        ("empty", "no image or video in this folder; include its subfolders with --recursive"),
    ],
)
def test_an_empty_selection_is_an_error_with_a_remedy(photos: Path, pattern: str, words: str):
    (photos.parent / "empty").mkdir()
    (photos.parent / "dead.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(InputError, match=words):
        find_sources([photos.parent / pattern])


def test_the_home_of_nobody_is_no_fault():
    with pytest.raises(InputError, match=r"^~nobody_here/c\.png: no such file or folder"):
        find_sources(["~nobody_here/c.png"])


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_current_folder(name: str):
    """A shell gives one for a variable that is not set."""
    with pytest.raises(InputError, match="an empty name was given"):
        find_sources([name])


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


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/**/*.jpg", ["10.jpg", "2.jpg", "cam.jpg"]),
        ("photos/**/2.*", ["2.JPG", "2-2.jpg"]),
        ("photos/deep/**", ["2.jpg"]),
        ("p*/**/deep/**/*.jpg", ["2.jpg"]),
        ("photos/*.jpg", ["10.jpg"]),
    ],
)
def test_globs_at_any_depth_end_in_loops_of_links(photos: Path, pattern: str, expected: list[str]):
    (photos.parent / "outside").mkdir()
    (photos.parent / "outside" / "cam.jpg").write_bytes(b"x")
    (photos / "linked").symlink_to("../outside")
    for name in ("one", "two"):  # two loops have 2**40 paths before the system ends them
        (photos / "deep" / name).symlink_to("..")
    assert [s.name for s in find_sources([photos.parent / pattern])] == expected


@pytest.mark.parametrize("name", ["IMG_1.DNG", "a.jxl", "dead.jpg"])
def test_images_that_cannot_be_read_are_among_the_sources(photos: Path, name: str):
    """Reading them fails, and so they are reported."""
    (photos / name).symlink_to("nowhere")
    assert (name, "image") in names(find_sources([photos]))


ADDRESSES = {
    "rtsp://192.168.0.1:554/stream1": "rtsp://192.168.0.1:554/stream1",
    "rtsp://me:s3cret@10.0.0.2/live": "rtsp://me:***@10.0.0.2/live",
    "https://example.org/bus.jpg": "https://example.org/bus.jpg",
    "HTTP://example.org//a//b.mp4?x=1": "HTTP://example.org//a//b.mp4?x=1",
    "https://example.org/photos/*.jpg": "https://example.org/photos/*.jpg",
    "rtmp://example.org/live": "rtmp://example.org/live",
    "udp://@239.0.0.1:1234": "udp://@239.0.0.1:1234",
    "s3://bucket/a.jpg": "s3://bucket/a.jpg",
    "0": "0",
    "1": "1",
    "/dev/video99": "/dev/video99",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_and_cameras_are_refused_as_they_were_given(photos: Path, address: str):
    with pytest.raises(InputError) as caught:
        find_sources([photos, address])
    assert str(caught.value) == (
        f"{ADDRESSES[address]}: addresses (streams, web pages, cameras) are not read; "
        "download or record it and name the file"
    )


def test_the_address_of_a_file_is_named_as_its_path():
    with pytest.raises(
        InputError, match=r"file:///data/a\.jpg: addresses are not read; give the path itself: /data/a\.jpg"
    ):
        find_sources(["file:///data/a.jpg"])


def test_a_file_with_the_name_of_a_camera_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_image(tmp_path / "0.png").rename(tmp_path / "0")
    monkeypatch.chdir(tmp_path)
    assert names(find_sources(["0"])) == [("0", "image")]


def test_a_device_is_no_source(tmp_path: Path):
    os.mkfifo(tmp_path / "clip.mp4")
    for path in ("/dev/null", tmp_path / "clip.mp4"):
        with pytest.raises(InputError, match="this is a pipe or device, not a file"):
            find_sources([path])


# ---- lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_names_images_and_videos(photos: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str):
    """Paths are relative to the list's folder or else to the current one, or absolute."""
    (photos / "grüße 1.jpg").write_bytes(b"x")
    lines = [
        "# a remark",
        '"b.png"',
        "",
        "  deep/2.jpg ",
        "deep\\2.jpg",
        str(photos / "clip.mp4"),
        "photos/10.jpg",
        "grüße 1.jpg",
    ]
    (photos / "list.txt").write_bytes((end.join(lines)).encode(encoding))
    monkeypatch.chdir(photos.parent)
    assert names(find_sources([photos / "list.txt"])) == [
        ("b.png", "image"),
        ("2.jpg", "image"),
        ("clip.mp4", "video"),
        ("10.jpg", "image"),
        ("grüße 1.jpg", "image"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"b.png\n\nmissing.jpg\n", r"list\.txt, line 3: missing\.jpg: no such file in .*photos or in .*; correct"),
        (b"/nowhere/a.jpg", r"list\.txt, line 1: /nowhere/a\.jpg: no such file; correct or remove the line"),
        (b"b.png\nhttps://example.org/a.jpg", r"line 2: https://example\.org/a\.jpg: addresses .* are not read"),
        (b"b.png\ndeep\n", r"line 2: deep: this is a folder; a list names files"),
        (b"\n  \n", r"list\.txt: this list is empty; write the path"),
        (b"b.png\n" + b"x" * 300 + b".jpg", r"list\.txt, line 2: x{300}\.jpg: no such file in"),
        (b"b.png\n" + b"x" * 5000, r"list\.txt, line 2: has 5,000 characters, too many for a path or a name"),
        (b"~nobody_here/a.jpg", r"list\.txt, line 1: ~nobody_here/a\.jpg: no such file in"),
        (b"b.png\ngr\xfc\xdfe.jpg", r"list\.txt, line 2: byte 8 is not UTF-8 text; save it as UTF-8"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(photos: Path, content: bytes, words: str):
    (photos / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=words):
        find_sources([photos / "list.txt"])


def test_a_list_in_a_folder_is_no_source(photos: Path):
    (photos / "list.txt").write_text("b.png")
    assert ("list.txt", "image") not in names(find_sources([photos]))


# ---- images of formats that are not read ---------------------------------------------------------------------------


def test_nothing_but_images_that_are_not_read_is_refused(tmp_path: Path):
    for name in ("a.jxl", "b.dng"):
        (tmp_path / name).write_bytes(b"x" * 50)
    with pytest.raises(InputError, match=r"a\.jxl: JPEG XL images are not read; convert it to PNG or JPEG$"):
        find_sources([tmp_path / "a.jxl"])
    with pytest.raises(InputError, match=r"a\.jxl: JPEG XL .*; nor can the 1 other images be read"):
        find_sources([tmp_path])
    write_image(tmp_path / "c.png")
    assert [name for name, _ in names(find_sources([tmp_path]))] == ["a.jxl", "b.dng", "c.png"]


def test_an_image_under_a_wrong_suffix_is_read(tmp_path: Path):
    write_image(tmp_path / "a.png").rename(tmp_path / "a.jxl")
    assert names(find_sources([tmp_path / "a.jxl"])) == [("a.jxl", "image")]


def test_numbers_sort_as_numbers():
    assert sorted(["a10", "a9", "a", "10", "9b"], key=natural_key) == ["9b", "10", "a", "a9", "a10"]
