"""Work that holds the interpreter: beside the event loop, and one piece after the other.

Parsing 20 MB of JSON is one call into C, during which no other thread runs. In a thread the event
loop waits for one such call at most; of many threads it would wait for each in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Made = TypeVar("Made")

LONG = 64 << 10
"""Bytes of JSON that are parsed at once, within half a millisecond; more are parsed in turn."""

_thread = ThreadPoolExecutor(1, thread_name_prefix="in-turn")


async def in_turn(
    work: Callable[Given, Made], /, *given: Given.args, **named: Given.kwargs
) -> Made:
    """As :func:`asyncio.to_thread`, but one piece of work after the other, in order of coming."""
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(
        _thread, lambda: context.run(work, *given, **named)
    )
