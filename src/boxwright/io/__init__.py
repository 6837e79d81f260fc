"""Files and environment: the only code that writes files or queries the machine."""
