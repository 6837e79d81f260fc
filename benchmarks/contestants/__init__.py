"""Detectors of other projects, trained by their own recipes for ``benchmarks/peers.py``.

Each file is a program that reads ``plan.json`` in the folder that it is given and writes ``result.json`` there: the
seconds from its start to the end of training with validation, and those of the parts. The plan names the COCO results
file to write for each split.
"""
