"""Which backend answers behind the front."""

from __future__ import annotations

from m3router.data.errors import DataError
from m3router.router.serve.backends.backend import Backend
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.backends.vllm.client import VllmAddress
from m3router.router.serve.settings import EngineSettings


def backend_of(
    engine: EngineSettings, *, ray: RaySettings | None = None, vllm: VllmAddress | None = None
) -> Backend:
    """The backend for these settings; nothing is loaded yet.

    Args:
        engine: What to load and how much to take on.
        ray: Replicas under Ray Serve, in place of this process.
        vllm: A vLLM server that runs the language model.

    Raises:
        DataError: If both are given.
    """
    if ray is not None and vllm is not None:
        raise DataError("--ray and --vllm are two ways to answer; give one of them.")
    if ray is not None:
        from m3router.router.serve.backends.ray.backend import RayBackend

        return RayBackend(engine, ray)
    if vllm is not None:
        from m3router.router.serve.backends.vllm.backend import VllmBackend

        return VllmBackend(engine, vllm)
    from m3router.router.serve.backends.engine import LocalEngine

    return LocalEngine(engine)
