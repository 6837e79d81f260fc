"""``python -m boxwright`` is ``boxwright``."""

import sys

from boxwright.cli import main

if __name__ == "__main__":
    sys.exit(main())
