"""In front of servers that exist: each chat request goes on at the option that suffices.

::

    http/ (guard, keys, rates)        who may ask, and how much
    gateway/bodies                    what a request asks: question, images, wishes
    images/                           from bytes to pixels, in processes of their own
    deciding/                         which option: a Decider, in a process of its own
    gateway/patching                  the body and the image as the option says
    gateway/relaying                  to the upstream and back, bytes unchanged
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {})
