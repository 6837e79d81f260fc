"""Tests of what the options of ``boxwright train`` ask for."""
