"""What goes to the hub: a run's router with its policies, or one of them, and the card.

Logs, features, questions and images never go along; of some images, a few coordinates do, which new
images are compared with (`m3router.router.monitoring.familiarity`). What a repository is read with
is in `m3router.router.hub.repository`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from m3router.data.errors import DataError
from m3router.data.json_files import values_of
from m3router.data.manifest import MANIFEST, atomic_write_bytes
from m3router.data.paths import StrPath, as_path
from m3router.data.plain_files import is_there
from m3router.router.cascade.rule import cascade_path
from m3router.router.evaluation.documents import DOCUMENT, REDO, evaluation_in
from m3router.router.hub.card import Facts, local_path_in, model_card, with_policies
from m3router.router.hub.repository import CARD, card_of, fetch, publish, router_files
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.training.scale_router import ScaleRouter

Files = dict[str, bytes]


def run_files(run: Run, facts: Facts) -> Files:
    """What of a run is published, by its path in the repository.

    Args:
        run: trained; its policies, cascades and evaluation go along where there are any.
        facts: for the card; what the run knows is added.

    Raises:
        DataError: when a part is missing or damaged, or the router names a folder of this machine.
        MismatchError: when a part belongs to another router.
    """
    run = run.opened()
    router = run.router()
    refuse_local_paths(router)
    policies, cascades = run.policies(router), run.cascades(router)
    evaluation = None
    if is_there(run.evaluation_folder / MANIFEST):
        run.verify(run.evaluation_folder, "evaluate")
        evaluation = evaluation_in(run.evaluation_folder / DOCUMENT)
    known = replace(facts, trained=run.verify(run.arm(), "train"), evaluation=evaluation)
    with values_of(run.evaluation_folder / DOCUMENT, redo=REDO) if evaluation else nullcontext():
        files = {CARD: model_card(router, policies, cascades, known).encode()}
    for file in router_files():
        if is_there(run.arm() / file):
            files[f"router/{file}"] = (run.arm() / file).read_bytes()
    for one in policies:
        files[f"policies/{one}.json"] = run.policy_file(one).read_bytes()
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
    """Upload a run's router, policies and card; see `run_files` and `repository.publish`.

    Returns:
        Address of the commit.
    """
    files = run_files(run, facts)
    return publish(facts.name, files, message=message, private=private, token=token)


def save_router(router: ScaleRouter, folder: StrPath) -> None:
    """Write a router into a folder as it lies in a repository: `router/`.

    What it thought of its own training examples stays here.
    """
    folder = as_path(folder)
    replace(router, held_out=None).write(Run(folder).arm())


def save_policy(policy: Policy, folder: StrPath, *, name: str = "default") -> None:
    """Write a policy into a folder as it lies in a repository: `policies/<name>.json`."""
    folder = as_path(folder)
    policy.write(Run(folder).policy_file(name))


def push_router(
    router: ScaleRouter,
    repository: str,
    *,
    licence: str | None = None,
    private: bool | None = None,
    message: str = "Router",
    token: str | bool | None = None,
) -> str:
    """Upload a router and a card; policies that lie in the repository go, they fit another one.

    Args:
        router: trained.
        repository: `owner/name`.
        licence: identifier as the hub writes it, for the card.
        private: of a new repository; None for the owner's default.
        message: of the commit.
        token: one that may write; by default that of `hf auth login` or of `HF_TOKEN`.

    Returns:
        Address of the commit.
    """
    refuse_local_paths(router)
    with TemporaryDirectory() as folder:
        save_router(router, Path(folder))
        files = _files_in(Path(folder))
    files[CARD] = model_card(router, {}, {}, Facts(name=repository, licence=licence)).encode()
    return publish(repository, files, message=message, private=private, token=token)


def push_policy(
    policy: Policy,
    repository: str,
    *,
    name: str = "default",
    message: str = "Policy",
    token: str | bool | None = None,
) -> str:
    """Upload a policy into the repository of its router, and rewrite the card's list of policies.

    Args:
        policy: calibrated.
        repository: `owner/name`.
        name: of the policy.
        message: of the commit.
        token: one that may write; by default that of `hf auth login` or of `HF_TOKEN`.

    Returns:
        Address of the commit.

    Raises:
        MismatchError: when another router lies there.
    """
    there = fetch(repository, token=token)
    run = Run(there.folder)
    router = ScaleRouter.read(run.arm())
    policy.check_fits(options=router.options, router=router.fingerprint)
    with TemporaryDirectory() as folder:
        save_policy(policy, Path(folder), name=name)
        files = _files_in(Path(folder))
    policies = {**run.policies(router), name: policy}
    card = card_of(there.origin, token=token)
    rewritten = with_policies(card, policies, run.cascades(router))
    if rewritten != card:
        files[CARD] = rewritten.encode()
    return publish(repository, files, message=message, token=token, replace=False)


def refuse_local_paths(router: ScaleRouter) -> None:
    """Refuse a router that names a folder of this machine, which is of no use to anybody else.

    Raises:
        DataError: naming it.
    """
    found = local_path_in(router.metadata)
    if found:
        raise DataError(
            f"The router was trained with {found!r}, a path on this machine that nobody else "
            "can load. Train it with the name of a published model or question encoder instead."
        )


def _files_in(folder: Path) -> Files:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
