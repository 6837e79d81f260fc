"""Files are complete or absent, errors name them, and only one module opens files for writing."""

from __future__ import annotations

import ast
import errno
import os
import signal
import stat
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from boxwright.data.proposals.files import ProposalSet
from boxwright.io.files import (
    appending,
    atomic_folder,
    atomic_path,
    atomic_text,
    check_writable,
    copy_file,
    locked,
    write_atomically,
)
from boxwright.structures import InputError
from tests.support.processes import start_python
from tests.support.toys import toy_index

posix = pytest.mark.skipif(os.name != "posix", reason="locks, modes and kills of POSIX")
SOURCE = Path(__file__).resolve().parents[2] / "src" / "boxwright"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with atomic_text(target) as file:
        file.write("new\n")
        file.flush()
        assert target.read_text() == "old"
    assert target.read_bytes() == b"new\n"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (ValueError("no"), ValueError), (disk_full(), InputError)],
)
def test_a_failed_block_leaves_the_old_file_alone(
    error: BaseException, raised: type[BaseException], tmp_path: Path
) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def write() -> None:
        with atomic_text(target) as file:
            file.write("half")
            raise error

    with pytest.raises(raised):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_is_told_with_the_file_and_the_space(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    message = r"a\.bin: the disk is full: \d+\.\d MB are free and 3\.0 MB are needed\. Make room"
    with pytest.raises(InputError, match=message), atomic_path(target, size=3_000_000):
        raise disk_full()
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="the file that was there before is intact"), atomic_path(target):
        raise disk_full()


def test_an_error_about_another_file_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), atomic_path(tmp_path / "a"):
        (tmp_path / "absent").read_bytes()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for write in (lambda p: write_atomically(p, b"x"), lambda p: appending(p).__enter__()):
        with pytest.raises(InputError, match=r"absent/a: cannot be written: No such file or directory"):
            write(tmp_path / "absent" / "a")


def test_the_temporary_path_keeps_the_suffix(tmp_path: Path) -> None:
    """Writers of videos and images choose the format by the suffix."""
    with atomic_path(tmp_path / "clip.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.touch()


@pytest.mark.parametrize("stem", ["n" * 250, "é" * 125])
def test_a_name_may_be_as_long_as_the_system_takes(stem: str, tmp_path: Path) -> None:
    write_atomically(tmp_path / f"{stem}.png", b"content")
    assert names(tmp_path) == [f"{stem}.png"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()  # an empty folder is accepted
    with atomic_folder(target) as partial:
        (partial / "inner").mkdir()
        write_atomically(partial / "inner" / "a", b"x")
        assert names(target) == []
    assert names(target) == ["inner"]
    assert names(tmp_path) == ["set"]


def test_a_failed_folder_leaves_nothing_and_names_the_final_place(tmp_path: Path) -> None:
    target = tmp_path / "set"
    match = f"^{target}/a: the disk is full"
    with pytest.raises(InputError, match=match), atomic_folder(target) as partial, atomic_path(partial / "a"):
        raise disk_full()
    assert names(tmp_path) == []


def test_appending_adds_to_the_end(tmp_path: Path) -> None:
    for line in ("one\n", "two\n"):
        with appending(tmp_path / "log") as file:
            file.write(line)
    with appending(tmp_path / "log", "ab") as file:
        file.write(b"three")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree"


def test_a_copy_names_the_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x"
    with pytest.raises(InputError, match="absent: cannot be read: No such file"):
        copy_file(tmp_path / "absent", tmp_path / "c")
    assert names(tmp_path) == ["a", "b"]


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "a")
    assert names(tmp_path / "new") == []
    with pytest.raises(InputError, match=r"file/a: cannot be written"):
        check_writable(tmp_path / "file" / "a")


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="the system has no file locks")
    lock = tmp_path / "lock"
    with (
        locked(lock, "busy: {holder}"),
        pytest.raises(InputError, match=r"^busy: this process$"),
        locked(lock, "busy: {holder}"),
    ):
        pass
    assert not lock.exists()


HOLDING = """
import os, sys, time
from pathlib import Path
from boxwright.io.files import locked
with locked(Path(sys.argv[1]), "busy: {holder}"):
    if os.fork() == 0:  # as workers of a loader, which live on for seconds
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@posix
def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with start_python("-c", HOLDING, str(lock), stdout=PIPE, stdin=PIPE, start_new_session=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            with pytest.raises(InputError, match=rf"^busy: process {child.pid} on "), locked(lock, "busy: {holder}"):
                pass
            child.kill()
            child.wait()
            assert lock.exists()
            with locked(lock, "busy: {holder}") as held:  # although a forked process of the dead one lives
                assert held
        finally:
            os.killpg(child.pid, signal.SIGKILL)
    assert not lock.exists()


@posix
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_apart(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock", "busy") as held:
        assert not held
    assert names(tmp_path) == []


@posix
def test_a_file_written_anew_has_the_mode_of_new_files(tmp_path: Path) -> None:
    """However it is written: safetensors makes a file that its owner alone can read."""
    index = toy_index(tmp_path / "images", 2)
    boxes = [np.array([[0, 0, 2, 2]], np.float32)] * len(index)
    made = ProposalSet.build(index, boxes, [np.ones(1)] * len(index), "drawn")
    (tmp_path / "source").write_bytes(b"x")

    def write_text(path: Path) -> None:
        with atomic_text(path) as file:
            file.write("x")

    writers = {
        "bytes": lambda path: write_atomically(path, b"x"),
        "text": write_text,
        "copy": lambda path: copy_file(tmp_path / "source", path),
        "proposals": made.save,
    }
    for mask, mode in ((0o022, 0o644), (0o027, 0o640)):
        before = os.umask(mask)
        try:
            for name, write in writers.items():
                write(tmp_path / f"{name}-{mask:o}.safetensors")
        finally:
            os.umask(before)
        for name in writers:
            path = tmp_path / f"{name}-{mask:o}.safetensors"
            assert stat.S_IMODE(path.stat().st_mode) == mode, name
            path.chmod(0o660)
            writers[name](path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o660, "the mode of the file that is replaced"


# Other writers, which take a path from `atomic_path`.
OWN_WRITERS = {
    ("app/detection/video.py", "open"): "PyAV muxes into the temporary file",
    ("data/proposals/files.py", "save_file"): "safetensors writes arrays without a copy in memory",
}
WRITING_CALLS = {"write_text", "write_bytes", "copyfile", "copy2", "move", "mkstemp", "NamedTemporaryFile", "save_file"}


def writing_calls(tree: ast.AST) -> set[str]:
    """Names of the calls that open, write or rename a file."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        values = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        owner = getattr(getattr(node.func, "value", None), "id", "")
        renames = name in ("replace", "rename") and owner == "os"
        opens = name == "open" and any(set(mode) <= set("rwxabt+") and set(mode) & set("wxa+") for mode in modes)
        if name in WRITING_CALLS or renames or opens:
            found.add(name)
    return found


def test_only_this_module_opens_files_for_writing() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), name)
        for path in SOURCE.rglob("*.py")
        for name in writing_calls(ast.parse(path.read_text()))
    }
    assert {name for path, name in found if path == "io/files.py"} >= {"open", "replace", "write_bytes", "copyfile"}
    assert {call for call in found if call[0] != "io/files.py"} == set(OWN_WRITERS)
