"""What goes to the hub: a run's router with its policies, or one of them, and the card.

Logs, features, questions and pictures never go along. What a repository is read with is in
`router.hub`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from data.errors import DataError, MismatchError
from data.manifest import MANIFEST, atomic_write_bytes
from router.analysis.documents import upgraded
from router.cascade import Cascade, cascade_path
from router.hub import CARD, fetch, publish, router_files
from router.model_card import Facts, local_path_in, model_card, with_policies
from router.policy import Policy
from router.router import ScaleRouter
from router.run import Run

Files = dict[str, bytes]
_LONGEST_CARD = 1 << 20
"""Bytes of a card that is rewritten."""


def run_files(run: Run, facts: Facts) -> Files:
    """What of a run is published, by its path in the repository.

    Args:
        run: trained; its policies, cascades and evaluation go along where there are any.
        facts: for the card; what the run knows is added.

    Raises:
        DataError: when a part is missing or damaged, or the router names a folder of this machine.
        MismatchError: when a part belongs to another router.
    """
    router = run.read_router()
    refuse_local_paths(router)
    policies, cascades = _policies(run, router), _cascades(run, router)
    evaluation = None
    if (run.evaluation / MANIFEST).is_file():
        run.verify(run.evaluation, "evaluate")
        evaluation = upgraded(json.loads((run.evaluation / "evaluation.json").read_bytes()))
    known = replace(facts, trained=run.verify(run.arm(), "train"), evaluation=evaluation)
    files = {CARD: model_card(router, policies, cascades, known).encode()}
    for file in router_files():
        if (run.arm() / file).is_file():
            files[f"router/{file}"] = (run.arm() / file).read_bytes()
    for one in policies:
        files[f"policies/{one}.json"] = run.policy(one).read_bytes()
    for one in cascades:
        files[f"cascades/{one}.json"] = cascade_path(run.root, one).read_bytes()
    return files


def write_published(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what would be published into a folder, to look at or to upload by hand.

    Raises:
        DataError: when the folder holds something already, or cannot be written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise DataError(f"{folder} holds something already. Name a new folder.")
    for path, content in files.items():
        atomic_write_bytes(folder / path, content)


def push_run(
    run: Run,
    facts: Facts,
    *,
    private: bool | None = None,
    message: str = "Router and policies",
    token: str | bool | None = None,
) -> str:
    """Upload a run's router, policies and card; see `run_files` and `router.hub.publish`.

    Returns:
        Address of the commit.
    """
    files = run_files(run, facts)
    return publish(facts.name, files, message=message, private=private, token=token)


def push_router(
    router: ScaleRouter,
    name: str,
    *,
    licence: str | None,
    private: bool | None,
    message: str,
    token: str | bool | None,
) -> str:
    """Upload a router and a card; policies that lie in the repository go, they fit another one.

    Returns:
        Address of the commit.
    """
    refuse_local_paths(router)
    with TemporaryDirectory() as folder:
        replace(router, held_out=None).write(Path(folder))
        files = {f"router/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
    card = model_card(router, {}, {}, Facts(name=name, licence=licence))
    return publish(
        name, {CARD: card.encode(), **files}, message=message, private=private, token=token
    )


def push_policy(
    policy: Policy, name: str, *, policy_name: str, message: str, token: str | bool | None
) -> str:
    """Upload a policy into the repository of its router, and rewrite the card's list of policies.

    Returns:
        Address of the commit.

    Raises:
        MismatchError: when another router lies there.
    """
    there = fetch(name, token=token)
    run = Run(there.folder)
    router = ScaleRouter.read(run.arm())
    policy.check_fits(options=router.options, router=router.fingerprint)
    path = run.policy(policy_name)
    policies = {**_policies(run, router), policy_name: policy}
    with TemporaryDirectory() as folder:
        policy.write(Path(folder) / path.name)
        files = {f"policies/{path.name}": (Path(folder) / path.name).read_bytes()}
    card = _card_of(there.origin, token)
    rewritten = with_policies(card, policies, _cascades(run, router))
    if rewritten != card:
        files[CARD] = rewritten.encode()
    return publish(name, files, message=message, token=token, replace=False)


def refuse_local_paths(router: ScaleRouter) -> None:
    """Refuse a router that names a folder of this machine, which is of no use to anybody else.

    Raises:
        DataError: naming it.
    """
    found = local_path_in(router.metadata)
    if found:
        raise DataError(
            f"The router was trained with {found!r}, a place on this machine that nobody else has. "
            "Train it with the name of a published model or question encoder instead."
        )


def _policies(run: Run, router: ScaleRouter) -> dict[str, Policy]:
    found = {path.stem: Policy.read(path) for path in _json_in(run.policies)}
    _check_each(run, router, found)
    return found


def _cascades(run: Run, router: ScaleRouter) -> dict[str, Cascade]:
    found = {path.stem: Cascade.read(path) for path in _json_in(run.root / "cascades")}
    _check_each(run, router, found)
    return found


def _json_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*.json")) if path.name != MANIFEST)


def _check_each(run: Run, router: ScaleRouter, found: Mapping[str, Policy | Cascade]) -> None:
    for name, one in found.items():
        try:
            one.check_fits(options=router.options, router=router.fingerprint)
        except MismatchError as error:
            raise MismatchError(f"{name} of {run.root.name}: {error}") from error


def _card_of(origin: str, token: str | bool | None) -> str:
    """The card as it is there, up to a limit; "" where there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    name, _, commit = origin.partition("@")
    try:
        path = Path(hf_hub_download(name, CARD, revision=commit, token=token))
    except EntryNotFoundError:
        return ""
    content = path.read_bytes()
    return content.decode("utf-8", "replace") if len(content) <= _LONGEST_CARD else ""
