"""Published checkpoints, and files of other programs: ``boxwright weights``."""
