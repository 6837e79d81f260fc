"""The contract of a detector, and what all detectors share."""
