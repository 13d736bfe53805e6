"""Which backend answers behind the front: one literal table, imported on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from m3router.data.errors import DataError
from m3router.data.registry import load_entry
from m3router.router.serve.backends.backend import Backend
from m3router.router.serve.settings import ServeSettings

BACKENDS: dict[str, str] = {
    "local": "m3router.router.serve.backends.engine:from_settings",
    "ray": "m3router.router.serve.backends.ray.backend:from_settings",
    "vllm": "m3router.router.serve.backends.vllm.backend:from_settings",
}
"""Name -> function of (settings, environment) that makes it; nothing is loaded by that yet.

A backend is chosen by the setting of its name, such as ``--ray`` or ``--vllm URL``.
"""
DEFAULT = "local"


def backend_of(settings: ServeSettings, environment: Mapping[str, str]) -> Backend:
    """The backend that the settings ask for.

    Args:
        settings: Of the server.
        environment: Where secrets are looked for, such as M3ROUTER_VLLM_KEY.

    Raises:
        DataError: If several are asked for.
    """
    asked = [name for name in BACKENDS if getattr(settings, name, None)]
    if len(asked) > 1:
        options = " and ".join(f"--{name}" for name in asked)
        raise DataError(f"{options} are different ways to answer; give one of them.")
    make = load_entry(BACKENDS, asked[0] if asked else DEFAULT, kind="backend")
    return cast("Backend", make(settings, environment))
