"""Temporary files of killed processes are removed by the next write, and those of living ones are not."""

import os
import signal
from pathlib import Path
from subprocess import PIPE

import pytest

from boxwright.io import leftovers
from boxwright.io.files import atomic_folder, atomic_path, check_writable, write_atomically
from boxwright.io.leftovers import FOREIGN_AGE, remove_leftovers, temporary_path
from tests.support.processes import start_python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes as POSIX does")

WRITING = """
import sys
from pathlib import Path
from boxwright.io.files import atomic_folder, atomic_path

folder = Path(sys.argv[1])
with atomic_path(folder / "a.json") as one, atomic_folder(folder / "set.v2") as two:
    one.write_text("half")
    (two / "inner").mkdir()
    (two / "inner" / "image.png").write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_file(folder: Path) -> None:
    write_atomically(folder / "b.json", b"whole")


def write_folder(folder: Path) -> None:
    with atomic_folder(folder / "b.json"):
        pass


def check(folder: Path) -> None:
    check_writable(folder / "b.json")
    (folder / "b.json").touch()


@pytest.mark.parametrize("write", [write_file, write_folder, check])
def test_what_a_killed_process_left_is_removed_by_the_next_write(write, tmp_path: Path) -> None:
    with start_python("-c", WRITING, str(tmp_path), stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        left = names(tmp_path)
        assert len(left) == 2
        assert all(str(child.pid) in name for name in left)
        write(tmp_path)
        assert names(tmp_path) == [*left, "b.json"], "a living process still writes to them"
        child.send_signal(signal.SIGKILL)
    leftovers._looked.clear()  # this process looks again only after some seconds
    write_atomically(tmp_path / "c.json", b"whole")
    assert names(tmp_path) == ["b.json", "c.json"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of a process as Linux tells it")
def test_a_killed_process_whose_parent_has_not_waited_is_dead(tmp_path: Path) -> None:
    child = start_python("-c", WRITING, str(tmp_path), stdin=PIPE, stdout=PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    assert child.stdout.read() == b"", "it is dead"
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and left as it is
    remove_leftovers(tmp_path, at_once=True)
    assert names(tmp_path) == []
    child.communicate()


def test_long_names_that_differ_at_the_end_have_temporary_files_of_their_own(tmp_path: Path) -> None:
    one, two = (temporary_path(tmp_path / ("n" * 250 + f"{end}.png")) for end in "12")
    assert one != two
    for temporary in (one, two):
        temporary.write_bytes(b"")  # its name is not too long
        assert temporary.suffix == ".png"


def test_the_own_temporary_files_stay(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.json") as one, atomic_folder(tmp_path / "set") as two:
        remove_leftovers(tmp_path, at_once=True)
        assert one.exists()
        assert two.exists()
    assert names(tmp_path) == ["a.json", "set"]


def test_a_process_of_the_same_number_before_this_one_left_it(tmp_path: Path) -> None:
    """In a container every first process has the number 1."""
    path = temporary_path(tmp_path / "a.json")
    leftovers.release(path)
    path.touch()
    remove_leftovers(tmp_path, at_once=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        ".a.0123abcd-1.part.json",
        ".set.0123abcd-99999999.part",
        ".a.4242.part.json",
        ".a.json.4242.tmp",
        ".set.x_1y2z3a.partial",
    ],
)
def test_files_of_other_machines_and_earlier_versions_go_after_a_day(name: str, tmp_path: Path) -> None:
    """Their process ids say nothing here. A folder is as old as the newest file in it."""
    path = tmp_path / name
    path.mkdir()
    inner = path / "image.png"
    inner.touch()
    remove_leftovers(tmp_path, at_once=True)
    assert path.exists()
    old = path.stat().st_mtime - FOREIGN_AGE - 100
    os.utime(path, (old, old))
    remove_leftovers(tmp_path, at_once=True)
    assert path.exists(), "a file in it is new"
    os.utime(inner, (old, old))
    remove_leftovers(tmp_path, at_once=True)
    assert not path.exists()


@pytest.mark.parametrize(
    "name", [".a.json", "a.0123abcd-1.part", ".model.pth.part", ".a.part.json", ".lock", ".1.partial", ".git"]
)
def test_other_hidden_files_are_left_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    os.utime(path, (1, 1))
    remove_leftovers(tmp_path, at_once=True)
    assert path.exists()


def test_a_folder_that_cannot_be_read_hinders_nobody(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "absent", at_once=True)
