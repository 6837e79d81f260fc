"""Files and environment: the only place that writes a file or asks the machine."""
