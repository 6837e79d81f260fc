"""Around every command: words that are read another way, Ctrl-C, errors and exit codes."""
