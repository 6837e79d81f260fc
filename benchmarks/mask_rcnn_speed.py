"""Time and memory of Mask R-CNN R50-FPN beside torchvision's: ``speed.py`` for this detector.

    python benchmarks/mask_rcnn_speed.py inference
    python benchmarks/mask_rcnn_speed.py training
    python benchmarks/mask_rcnn_speed.py training --memory

Masks are compared as the networks give them, 28 x 28 for each detection; ``mask_paste.py`` is about pasting. Writes
results/mask_rcnn_<mode>.md, with ``--memory`` results/mask_rcnn_<mode>_memory.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from speed import main

if __name__ == "__main__":
    main("mask_rcnn")
