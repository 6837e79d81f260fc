"""Folders with subfolders, links, loops of links and hidden names."""

import os
from pathlib import Path

import pytest

from boxwright.data.images import walk_files, walk_images
from boxwright.structures import InputError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def walked(folder: Path, recursive: bool = True) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in walk_images(folder, recursive)]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    for name in ("set/cam1/0.jpg", "set/cam1/1.jpg", "elsewhere/cam2/0.jpg", "elsewhere/cam2/deep/1.jpg"):
        touch(tmp_path / name)
    (tmp_path / "set" / "cam2").symlink_to("../elsewhere/cam2")
    assert walked(tmp_path / "set") == ["cam1/0.jpg", "cam1/1.jpg", "cam2/0.jpg", "cam2/deep/1.jpg"]
    assert walked(tmp_path / "set", recursive=False) == []
    (tmp_path / "linked").symlink_to("set")
    assert walked(tmp_path / "linked") == walked(tmp_path / "set")


def test_loops_of_links_end(tmp_path: Path) -> None:
    for name in ("set/a/0.jpg", "set/b/1.jpg", "outside/2.jpg", "val/9.jpg"):
        touch(tmp_path / name)
    (tmp_path / "set" / "a" / "up").symlink_to("..")
    (tmp_path / "set" / "a" / "further_up").symlink_to("../..")  # not val/, which the link's own folder leads to
    (tmp_path / "set" / "out").symlink_to("../outside")
    (tmp_path / "outside" / "back").symlink_to("../set")
    (tmp_path / "set" / "itself").symlink_to("itself")
    assert walked(tmp_path / "set") == ["a/0.jpg", "b/1.jpg", "out/2.jpg"]


def test_a_folder_with_several_paths_is_entered_once_and_without_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "set" / "real" / "0.jpg")
    touch(tmp_path / "outside" / "inner" / "1.jpg")
    (tmp_path / "set" / "alias").symlink_to("real")
    (tmp_path / "set" / "one").symlink_to("../outside/inner")
    (tmp_path / "set" / "two").symlink_to("../outside/inner")
    (tmp_path / "set" / "zero").symlink_to("../outside")
    assert walked(tmp_path / "set") == ["one/1.jpg", "real/0.jpg"]


def test_hidden_names_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.jpg", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "deep/.cache/x/b.jpg", "deep/b.jpg"):
        touch(tmp_path / ".data" / name)  # the name of the folder itself does not matter
    assert walked(tmp_path / ".data") == ["a.jpg", "deep/b.jpg"]


def test_what_is_no_file_is_left_out_and_dead_links_are_kept(tmp_path: Path) -> None:
    """A dead link is a missing image, which its reader reports; a pipe would be waited for."""
    touch(tmp_path / "b.JPG")
    touch(tmp_path / "notes.txt")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dead.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "same.png").symlink_to("b.JPG")
    assert walked(tmp_path) == ["b.JPG", "dead.jpg", "same.png"]
    assert [path.name for path in walk_files(tmp_path)] == ["b.JPG", "dead.jpg", "notes.txt", "same.png"]


@pytest.mark.parametrize("name", ["missing", "file.jpg"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "file.jpg")
    with pytest.raises(InputError, match=rf"{name}: the folder cannot be read \("):
        walk_files(tmp_path / name)


def test_names_decide_which_of_several_links_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which a disk lists a folder decides nothing."""
    touch(tmp_path / "outside" / "0.jpg")
    for name in "cabd":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "link").symlink_to("../../outside")
    straight = walked(tmp_path / "set")
    listed = os.scandir

    class Turned:
        def __init__(self, folder: str) -> None:
            with listed(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Turned)
    assert walked(tmp_path / "set") == straight
    monkeypatch.setattr(Turned, "__enter__", lambda self: self.entries[::-1])
    assert walked(tmp_path / "set") == straight == ["d/link/0.jpg"]
