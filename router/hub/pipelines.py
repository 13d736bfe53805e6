"""From the hub to a pipeline; apart from the rest, because a pipeline's model needs torch."""

from __future__ import annotations

from dataclasses import replace

from m3router.data.paths import StrPath
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.router.hub.repository import fetch
from m3router.router.inference.pipeline import AutoScalePipeline


def load_pipeline(
    repository: StrPath,
    *,
    model: MultiScaleModel | str | None = None,
    policy: str = "default",
    device: str = "auto",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: StrPath | None = None,
) -> AutoScalePipeline:
    """Load router, policy and cascade as a pipeline; where they are from is in `router.origin`.

    Args:
        repository: `owner/name` on the hub, or a folder.
        model: see `AutoScalePipeline.load`, as `policy` and `device`.
        policy: name of the policy.
        device: where a model given by name is loaded.
        revision: see `load_router`, as `token` and `cache_dir`.
        token: of the hub.
        cache_dir: where downloads are kept.

    Raises:
        DataError: when it cannot be fetched, or a part is missing, cut short or edited.
        MismatchError: when the parts do not belong together.
    """
    found = fetch(repository, revision=revision, token=token, cache_dir=cache_dir)
    pipeline = AutoScalePipeline.load(found.folder, model=model, policy=policy, device=device)
    pipeline.router = replace(pipeline.router, origin=found.origin)
    return pipeline
