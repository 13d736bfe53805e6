"""The protocols by name, each imported on demand.

A new protocol is a :class:`m3router.m3core.judging.protocols.base.Protocol` in a module of its own,
one line here, and its name in :data:`m3router.data.scoring.metrics.JUDGED_METRICS`.
"""

from __future__ import annotations

from typing import cast

from m3router.data.registry import load_entry
from m3router.m3core.judging.protocols.base import Protocol

PROTOCOLS = {
    "mm-vet": "m3router.m3core.judging.protocols.mm_vet:MM_VET",
    "llava-bench": "m3router.m3core.judging.protocols.llava_bench:LLAVA_BENCH",
    "video-qa": "m3router.m3core.judging.protocols.video_qa:VIDEO_QA",
}


def protocol(name: str) -> Protocol:
    """Look a protocol up.

    Raises:
        DataError: There is no such protocol; the message suggests one.
    """
    return cast("Protocol", load_entry(PROTOCOLS, name, kind="protocol of a judge"))
