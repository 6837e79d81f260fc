"""Stages of a run: by gradient steps, or by fitting a part of the detector."""
