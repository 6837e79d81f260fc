"""Time and memory of Faster R-CNN R50-FPN beside torchvision's: ``speed.py`` for this detector.

    python benchmarks/faster_rcnn_speed.py inference
    python benchmarks/faster_rcnn_speed.py training
    python benchmarks/faster_rcnn_speed.py training --memory

Writes results/faster_rcnn_<mode>.md, with ``--memory`` results/faster_rcnn_<mode>_memory.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from speed import main

if __name__ == "__main__":
    main("faster_rcnn")
