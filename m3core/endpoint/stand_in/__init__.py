"""A server for tests and tutorials: it speaks as real servers do, and fails on demand.

It is honest: it decodes the image that it gets, counts with the real image processor of a family,
ignores and refuses what the imitated server ignores and refuses, answers from the pixels that it
received, at the resolution that the request asked for, and counts its hits. It has no model: it
reads images that :func:`coded_image` made where their cells are large enough for the image tokens
that were spent, and names a colour otherwise. So a router has something true to learn.

It needs the packages of the extra `serve`. Start it with
``python -m m3router.m3core.endpoint.stand_in``, or in a test with :func:`running`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.m3core.endpoint.stand_in.app import StandIn as StandIn
    from m3router.m3core.endpoint.stand_in.app import running as running
    from m3router.m3core.endpoint.stand_in.coded_images import coded_image as coded_image

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "StandIn": "m3router.m3core.endpoint.stand_in.app",
            "coded_image": "m3router.m3core.endpoint.stand_in.coded_images",
            "running": "m3router.m3core.endpoint.stand_in.app",
        },
    )
