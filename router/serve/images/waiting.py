"""Waiting up to a moment."""

from __future__ import annotations

import asyncio
import time


def until(deadline: float) -> asyncio.Timeout:
    """A context that lasts up to a moment of :func:`time.monotonic`; then TimeoutError."""
    return asyncio.timeout(max(0.0, deadline - time.monotonic()))
