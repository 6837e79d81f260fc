"""Time and memory of RetinaNet R50-FPN compared with torchvision's: ``speed.py`` for this detector.

    python benchmarks/retinanet_speed.py inference
    python benchmarks/retinanet_speed.py training
    python benchmarks/retinanet_speed.py training --memory

Writes results/retinanet_<mode>.md, with ``--memory`` results/retinanet_<mode>_memory.md.
"""

from __future__ import annotations

from speed import main

if __name__ == "__main__":
    main("retinanet")
