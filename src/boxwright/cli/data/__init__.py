"""The commands ``boxwright data``, one file each."""
