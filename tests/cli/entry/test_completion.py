"""``boxwright --install-completion`` writes two files, says which, and the shell then completes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from boxwright.cli.app import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ZSH", "ZSH_CUSTOM", "ZSH_VERSION", "BASH_VERSION", "FISH_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def files_of(home: Path) -> dict[str, str]:
    return {str(path.relative_to(home)): path.read_text() for path in home.rglob("*") if path.is_file()}


START = {"bash": ".bashrc", "zsh": ".zshrc"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_says_which_files_it_wrote(shell: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = START.get(shell)
    if start is not None:
        (home / start).write_text("alias ll='ls -l'")
        (home / start).chmod(0o600)
    assert main(["--install-completion", "--shell", shell]) == 0
    told, first = capsys.readouterr().out, files_of(home)
    assert all(str(home / name) in told for name in first)
    assert len(first) == (1 if start is None else 2)
    assert main(["--install-completion", "--shell", shell]) == 0  # again: nothing more
    assert files_of(home) == first
    if start is not None:
        assert "loads it already" in capsys.readouterr().out
        lines = first[start].splitlines()
        assert lines[-1 if shell == "bash" else 0] in told
        assert "alias ll='ls -l'" in lines
        assert len(lines) == 2
        assert (home / start).stat().st_mode & 0o777 == 0o600


def test_no_other_command_writes_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["models"], ["--install-completion", "--help"], ["--install-completion", "--shell", "x"]):
        main(words)
    assert files_of(home) == {}


def test_the_shell_is_recognised(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FISH_VERSION", "4.0")
    assert main(["--install-completion"]) == 0
    assert list(files_of(home)) == [".config/fish/completions/boxwright.fish"]


def test_an_unknown_shell_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cyclopts.completion import detect

    def fails() -> None:
        raise detect.ShellDetectionError

    monkeypatch.setattr(detect, "detect_shell", fails)
    assert main(["--install-completion"]) == 2
    assert "name it with --shell bash, zsh, fish or powershell" in capsys.readouterr().err
    assert files_of(home) == {}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("tr", {"train"}),
        ("data ", {"anchors", "augment", "check", "convert", "filter", "merge", "scenes", "show", "split", "tile"}),
        ("weights ex", {"export"}),
        ("data convert --form", {"--format"}),
        ("detect --no-p", {"--no-pictures"}),
        ("data scenes x --format ", {"coco", "voc", "yolo"}),
    ],
)
def test_bash_completes(typed: str, found: set[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--install-completion", "--shell", "bash"]) == 0
    words = ["boxwright", *typed.split(" ")]
    script = f"""
    . "$HOME/.bashrc"
    COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
    _boxwright boxwright; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=home, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == found
