"""One routed question, the same in the pipeline, behind a server and in the demo.

A :class:`~m3router.router.inference.session.Session` goes through five stages::

    encode     the vision tower sees the image, once for all scales
    decide     the router estimates each scale, a policy or cascade chooses one
    answer     the language model answers the session's `request`
    escalate   a cascade may want a finer scale; then answer again
    result     the last answer, with its encoding, estimate, tokens, operations and times

Who batches is not decided here: the pipeline answers lists of questions, a server's worker gives
each running answer one more token a step, and the vLLM backend waits for another server. All of
them take the next request from the session, so that none of them knows what a cascade is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {})
