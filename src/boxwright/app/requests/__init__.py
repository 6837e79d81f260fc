"""Requests: the options of each command as a dataclass, from which the command line takes its signature and help.

Nothing here loads torch, so that ``--help`` is quick.
"""
