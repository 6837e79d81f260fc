"""The commands ``boxwright recipe``, one file each."""
