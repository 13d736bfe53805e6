"""Which option to ask, for the gateway: the interface, a process of its own, replicas under Ray.

::

    decider.py    what is asked and told: Wish, Asked, Judged, RouterFacts, the protocol Decider
    process.py    a Decider that asks a child process; batched, cached, restarted
    child.py      that process: the router, its encoder, its policies
    wire.py       what the two tell each other
    ray.py        the same child in replicas under Ray Serve
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {})
