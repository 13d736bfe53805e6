"""Routers, policies and cascades on the Hugging Face hub.

A repository holds one router with its policies and cascades, laid out as in a run folder, and a
card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.registry import exports

if TYPE_CHECKING:
    from router.hub.card import Facts as Facts
    from router.hub.card import model_card as model_card
    from router.hub.loading import load_policy as load_policy
    from router.hub.loading import load_router as load_router
    from router.hub.publishing import push_policy as push_policy
    from router.hub.publishing import push_router as push_router
    from router.hub.publishing import push_run as push_run
    from router.hub.publishing import save_policy as save_policy
    from router.hub.publishing import save_router as save_router
    from router.hub.repository import fetch as fetch

__getattr__ = exports(
    __name__,
    {
        "Facts": "router.hub.card",
        "fetch": "router.hub.repository",
        "load_policy": "router.hub.loading",
        "load_router": "router.hub.loading",
        "model_card": "router.hub.card",
        "push_policy": "router.hub.publishing",
        "push_router": "router.hub.publishing",
        "push_run": "router.hub.publishing",
        "save_policy": "router.hub.publishing",
        "save_router": "router.hub.publishing",
    },
)
