"""The entry of the command line: ``boxwright`` and ``python -m boxwright``."""

from boxwright.cli.entry.interrupts import leave, leave_at_once


def main() -> None:
    """Run the command line of this process and end it with the exit code. Ctrl-C is quiet from the first moment."""
    leave_at_once()
    from boxwright.cli.app import main as run

    leave(run())


if __name__ == "__main__":
    main()
