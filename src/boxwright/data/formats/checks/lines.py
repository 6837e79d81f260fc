"""Print many problems in few lines."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.data.formats.problems import Problem


def gathered(problems: Sequence[Problem], kinds: bool = False) -> list[tuple[Problem, str]]:
    """Return the problems to print, each with the end of its line, in their order.

    An error has a line of its own. Warnings and remarks that say the same of several places share a line, which ends
    with the number of the others; with ``kinds`` all warnings of a kind do, whatever they say.
    """
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for number, problem in enumerate(problems):
        same = problem.message
        if problem.severity == "error":
            same = str(number)
        elif problem.severity == "warning" and kinds:
            same = ""
        groups.setdefault((problem.severity, problem.kind, same), []).append(problem)
    return [(found[0], f" (and {len(found) - 1:,} more)" if len(found) > 1 else "") for found in groups.values()]
