"""How many of the processor's cores work on one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the calling thread compute alone.

    Many operations on small tensors, as features of one image are, take a fraction of a
    millisecond; cores that share them mostly wait for each other, and where other work is on the
    machine for hundreds of times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
