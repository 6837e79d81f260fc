"""``python -m boxwright`` is ``boxwright``."""

import sys

from boxwright.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
