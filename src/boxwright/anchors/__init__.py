"""Reference boxes, and how ground truth is given to them: generate, match, sample, code."""
