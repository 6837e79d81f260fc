"""The record of a run: its folder, log, plots, progress line and health checks."""
