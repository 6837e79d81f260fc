"""Time and memory of Mask R-CNN R50-FPN compared with torchvision's: ``speed.py`` for this detector.

    python benchmarks/mask_rcnn_speed.py inference
    python benchmarks/mask_rcnn_speed.py training
    python benchmarks/mask_rcnn_speed.py training --memory

Masks are the outputs of the networks, 28 x 28 per detection; ``mask_paste.py`` times pasting. Writes
results/mask_rcnn_<mode>.md, with ``--memory`` results/mask_rcnn_<mode>_memory.md.
"""

from __future__ import annotations

from speed import main

if __name__ == "__main__":
    main("mask_rcnn")
