"""The pipeline in a browser: an image, a question, and how few visual tokens it needs.

The extra ``demo``. Only `m3router.router.demo.page` and `m3router.router.demo.serving` need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(__name__, {})
