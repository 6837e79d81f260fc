"""The option ``boxwright --install-completion``: the shell completes commands and options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from boxwright.cli.common import say
from boxwright.cli.entry.errors import UsageError
from boxwright.io.files import atomic_text, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

Shell = Literal["bash", "zsh", "fish", "powershell"]


def completion_command(app: App) -> Callable[..., int]:
    """Return the command that installs completion for ``app``."""

    def install_completion(
        *,
        shell: Annotated[Shell | None, Parameter(help="The shell. Default: the one that runs this command.")] = None,
    ) -> int:
        """Let the shell complete commands and options: writes its script, and a line in the shell's own start file.

        Nothing else is changed and nothing is asked. The files that were written are named.
        """
        chosen = shell or _detected()
        script = app.generate_completion(shell=chosen)
        target = _script_path(chosen, app.name[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_text(target) as file:
            file.write(script)
        say(f"wrote {target}")
        if (start := _start_file(chosen)) is not None:
            line = _start_line(chosen, target)
            added = _add_line(start, line, first=chosen == "zsh")
            say(f"added to {start}: {line}" if added else f"{start} loads it already")
        return say(f"completion for {chosen} works in the next shell that you open")

    return install_completion


def _detected() -> Shell:
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        return detect_shell()
    except ShellDetectionError:
        raise UsageError("the shell is not known; name it with --shell bash, zsh, fish or powershell") from None


def _script_path(shell: Shell, name: str) -> Path:
    from cyclopts.completion.install import get_default_completion_path

    return get_default_completion_path(shell, name)


def _start_file(shell: Shell) -> Path | None:
    """Return the file that the shell reads at its start; None for fish, which finds its scripts."""
    match shell:
        case "bash":
            return Path.home() / ".bashrc"
        case "zsh":
            return Path.home() / ".zshrc"
        case "powershell":
            from cyclopts.completion.install import powershell_profile

            return powershell_profile()
    return None


def _start_line(shell: Shell, script: Path) -> str:
    match shell:
        case "zsh":
            return f"fpath=('{script.parent}' $fpath); autoload -Uz compinit && compinit"
        case "powershell":
            return f". '{script}'"
    return f"[ -f '{script}' ] && . '{script}'"


def _add_line(path: Path, line: str, first: bool) -> bool:
    """Add a line to a text file, at its beginning or end, and return True; False if it is there already."""
    path = path.resolve()  # a linked file stays a link
    before = path.read_bytes() if path.exists() else b""
    added = line.encode()
    if added in before.splitlines():
        return False
    joined = b"" if not before or before.endswith(b"\n") else b"\n"
    write_atomically(path, added + b"\n" + before if first else before + joined + added + b"\n")
    return True
