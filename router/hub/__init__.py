"""Routers, policies and cascades on the Hugging Face hub.

A repository holds one router with its policies and cascades, laid out as in a run folder, and a
card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.router.hub.card import Facts as Facts
    from m3router.router.hub.card import model_card as model_card
    from m3router.router.hub.loading import load_policy as load_policy
    from m3router.router.hub.loading import load_router as load_router
    from m3router.router.hub.pipelines import load_pipeline as load_pipeline
    from m3router.router.hub.publishing import push_policy as push_policy
    from m3router.router.hub.publishing import push_router as push_router
    from m3router.router.hub.publishing import push_run as push_run
    from m3router.router.hub.publishing import save_policy as save_policy
    from m3router.router.hub.publishing import save_router as save_router
    from m3router.router.hub.repository import fetch as fetch

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Facts": "m3router.router.hub.card",
            "fetch": "m3router.router.hub.repository",
            "load_pipeline": "m3router.router.hub.pipelines",
            "load_policy": "m3router.router.hub.loading",
            "load_router": "m3router.router.hub.loading",
            "model_card": "m3router.router.hub.card",
            "push_policy": "m3router.router.hub.publishing",
            "push_router": "m3router.router.hub.publishing",
            "push_run": "m3router.router.hub.publishing",
            "save_policy": "m3router.router.hub.publishing",
            "save_router": "m3router.router.hub.publishing",
        },
    )
