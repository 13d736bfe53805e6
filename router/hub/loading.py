"""From the hub, or from a folder that is laid out as there, to a router or a policy."""

from __future__ import annotations

from dataclasses import replace

from m3router.data.paths import StrPath
from m3router.router.hub.repository import fetch
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.training.scale_router import ScaleRouter


def load_router(
    repository: StrPath,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: StrPath | None = None,
) -> ScaleRouter:
    """Load a router; where it is from is then in its `origin`.

    Args:
        repository: `owner/name` on the hub, or a folder.
        revision: branch, tag or commit; the newest by default.
        token: of the hub; by default the one of `hf auth login` or of `HF_TOKEN`.
        cache_dir: where downloads are kept; by default the hub's own cache.

    Raises:
        DataError: when it cannot be fetched, or a part is missing, cut short or edited.
    """
    found = fetch(repository, revision=revision, token=token, cache_dir=cache_dir)
    return replace(ScaleRouter.read(Run(found.folder).arm()), origin=found.origin)


def load_policy(
    repository: StrPath,
    *,
    name: str = "default",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: StrPath | None = None,
) -> Policy:
    """Load a policy of that name; the rest as in `load_router`.

    Raises:
        DataError: when it cannot be fetched, there is none of that name, or it was edited.
    """
    found = fetch(repository, revision=revision, token=token, cache_dir=cache_dir)
    return Policy.read(Run(found.folder).need_policy(name))
