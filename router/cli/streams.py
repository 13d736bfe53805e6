"""Where text goes. On its own, so that listing the commands imports nothing heavy."""

from __future__ import annotations

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
"""Results."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress, notes and errors."""
