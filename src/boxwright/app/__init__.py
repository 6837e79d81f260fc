"""What a person runs: detection on files, the HTML report, the demonstration."""
