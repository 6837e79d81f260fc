"""Time and memory of Faster R-CNN R50-FPN compared with torchvision's: ``speed.py`` for this detector.

    python benchmarks/faster_rcnn_speed.py inference
    python benchmarks/faster_rcnn_speed.py training
    python benchmarks/faster_rcnn_speed.py training --memory

Writes results/faster_rcnn_<mode>.md, with ``--memory`` results/faster_rcnn_<mode>_memory.md.
"""

from __future__ import annotations

from speed import main

if __name__ == "__main__":
    main("faster_rcnn")
