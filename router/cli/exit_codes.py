"""What a command's exit code says; docs/troubleshooting.md has the same table in words."""

from __future__ import annotations

DEFECT = 1
"""A defect of this program, or a `check` that found something wrong."""
WRONG_USE = 2
"""What was asked for cannot be done: an option, a file, a stage that was not run; one message."""
SOME_FAILED = 3
"""Done, but some items could not be used or answered."""
ALARM = 4
"""`monitor`: the policy's promise is broken, or the traffic has drifted."""
UNDECIDED = 5
"""`monitor`: no alarm, but not enough evidence yet."""
STOPPED = 130
"""Ctrl-C, as shells say it."""
UNREAD = 141
"""Nobody reads the output any more, as shells say it."""
