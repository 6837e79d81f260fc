"""The catalogue of published checkpoints, and the download of their files."""
