"""Pages of the documentation, their blocks and the commands in them."""

import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the number of its first line in the page."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command line and the output that the page shows."""

    words: list[str]
    shown: list[str]
    line: int

    @property
    def code(self) -> int:
        """The exit code that the page shows."""
        return 2 if any(line.startswith("error: ") for line in self.shown) else 0


def blocks_of(page: Path) -> list[Block]:
    """Return all fenced blocks of a page."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start, language = 0, ""
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            continue
        if start:
            found.append(Block(language, "\n".join(lines[start : number - 1]), start + 1))
            start = 0
        else:
            start, language = number, line[3:].strip()
    assert not start, f"{page.name}: the block of line {start} has no end"
    return found


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a block of ``bash`` (one per line) or ``console`` (after ``$``, with output)."""
    found: list[Command] = []
    text = re.sub(r"\\\n\s*", " ", block.text)  # a line that goes on after a backslash
    for number, line in enumerate(text.splitlines(), start=block.line):
        if block.language == "console" and not line.startswith("$ "):
            found[-1].shown.append(line)
        elif words := shlex.split(line.removeprefix("$ "), comments=True):
            found.append(Command(words, [], number))
    return found


def all_commands() -> list[tuple[str, Command]]:
    """Return every command of every page."""
    shells = [(p, b) for p in PAGES for b in blocks_of(p) if b.language in ("bash", "console")]
    return [(page.name, command) for page, block in shells for command in commands_of(block)]


def boxwright_words(words: list[str]) -> list[str] | None:
    """Return the arguments of ``boxwright`` in a command line, also under ``torchrun``; None for other programs."""
    if words[0] == "boxwright":
        return words[1:]
    for i in range(len(words) - 1):
        if words[i : i + 2] == ["-m", "boxwright"]:
            return words[i + 2 :]
    return None


def load_script(name: str) -> Any:
    """Load a script of the folder of the pages as a module."""
    spec = importlib.util.spec_from_file_location(f"docs{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
