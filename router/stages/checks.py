"""Is everything in order? Checks of the environment and of a run folder, one line each."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from packaging.requirements import Requirement
from PIL import Image

from m3router.data.errors import DataError, M3RouterError
from m3router.data.manifest import MANIFEST
from m3router.data.plain_files import is_there
from m3router.data.scenes.drawing import render
from m3router.data.scenes.export import TEST_SEEDS
from m3router.data.scenes.questions import ask_about
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.base import Request
from m3router.router.cascade.rule import Cascade, cascade_path
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import ARMS, AnyRun, Run, as_run
from m3router.router.text.numbers import count
from m3router.router.text.words import words_of

PACKAGE = "m3router"
PYTHON = (3, 11)
MEASURED = (
    ("evaluation", "evaluate"),
    ("importance", "importance"),
    ("learning-curve", "learning-curve"),
    ("leave-one-out", "leave-one-out"),
    ("report", "report"),
)
"""Folders of what was measured, and their stages."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: what was checked.
        ok: whether it is in order.
        detail: what was found, and what to do when it is not in order.
    """

    what: str
    ok: bool
    detail: str


def check_environment(model: str = "embedded") -> list[Check]:
    """Check Python, every required library, and that a model loads and answers.

    Args:
        model: name of the model to try.
    """
    found = ".".join(map(str, sys.version_info[:3]))
    needed = ".".join(map(str, PYTHON))
    checks = [Check("python", sys.version_info >= PYTHON, f"{found} (needs {needed} or newer)")]
    try:
        wanted = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        checks.append(Check(PACKAGE, False, "is not installed; run `make install`"))
        wanted = []
    for text in wanted:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            checks.append(_library(requirement))
    checks.append(_attempt(f"model {model}", partial(_try_model, model)))
    return checks


def check_run(run: AnyRun) -> list[Check]:
    """Check every manifest and hash of a run folder, and that its parts belong together.

    Stages that have not been run are not listed.
    """
    run = as_run(run).opened()
    checks = [_attempt("log", partial(_log, run))]
    if is_there(run.features_folder / MANIFEST):
        checks.append(_attempt("features", partial(_features, run)))
    for arm in run.arms():
        checks.append(_attempt(ARMS[arm][0], partial(_router, run, arm)))
    if is_there(run.split_file):
        checks.append(_attempt("split", partial(_split, run)))
    if is_there(run.policies_folder / MANIFEST):
        checks.append(_attempt("policies", partial(_stage, run, "policies", "calibrate")))
    for name in run.policy_names():
        checks.append(_attempt(f"policy {name}", partial(_policy, run, name)))
        if is_there(cascade_path(run.root, name)):
            checks.append(_attempt(f"cascade {name}", partial(_cascade, run, name)))
    for folder, stage in MEASURED:
        if is_there(run.root / folder / MANIFEST):
            checks.append(_attempt(folder, partial(_stage, run, folder, stage)))
    if is_there(run.root / "tuning" / "study.json"):
        checks.append(_attempt("tuning", partial(_tuning, run)))
    return checks


def _attempt(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, look())
    except M3RouterError as error:
        return Check(what, False, str(error))


def _library(requirement: Requirement) -> Check:
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(requirement.name, False, "is not installed; run `make install`")
    fits = requirement.specifier.contains(found, prereleases=True)
    return Check(requirement.name, fits, f"{found} (needs {requirement.specifier or 'any'})")


def _try_model(name: str) -> str:
    model = load_model(name, device="cpu")
    scene = make_scene(TEST_SEEDS.start)
    question = ask_about(scene, 1)[0]
    (encoding,) = model.encode([Image.fromarray(render(scene))])
    requests = [
        Request(encoding=encoding, question=question.text, scale=scale)
        for scale in model.grid.scales
    ]
    answers = [answer.text for answer in model.answer(requests)]
    if not all(answers):
        raise DataError(f"the model gave empty answers to {question.text!r}: {answers}")
    said = ", ".join(f"{r.scale}: {a}" for r, a in zip(requests, answers, strict=True))
    return f"loads and answers {question.text!r} ({said})"


def _log(run: Run) -> str:
    log = run.log()
    gaps = f", {log.n_gaps} gaps" if log.n_gaps else ""
    return f"{len(log)} examples at {', '.join(log.options)}{gaps}"


def _features(run: Run) -> str:
    log = run.log()
    table = run.features(log)
    table.align([log.ids[row] for row in log.complete.nonzero()[0]])
    return f"{len(table)} examples, {table.widths}"


def _router(run: Run, arm: str) -> str:
    router = run.router(arm)
    return f"{router.estimator_name} on {', '.join(router.blocks)} ({router.fingerprint[:12]})"


def _split(run: Run) -> str:
    log = run.log()
    split = run.split(log)
    split.prove_disjoint(log.groups)
    return f"no {words_of(log).of('image')} on two sides ({split.fingerprint[:12]})"


def _policy(run: Run, name: str) -> str:
    log = run.log()
    policy = Policy.read(run.policy_file(name))
    policy.check_fits(
        options=log.options,
        router=run.router().fingerprint,
        split=run.split(log).fingerprint,
    )
    return f"{policy.kind}, {dict(policy.knob)}{', falls back' if policy.fallback else ''}"


def _cascade(run: Run, name: str) -> str:
    cascade = Cascade.read(cascade_path(run.root, name))
    router = run.router()
    cascade.check_fits(options=router.options, router=router.fingerprint)
    return f"{cascade.knob}, {'asks again' if cascade.rule.start else 'never asks again'}"


def _tuning(run: Run) -> str:
    from m3router.router.stages.tuning import tuned_setting  # Optuna is slow to import

    tuned = tuned_setting(run)
    return f"chose {tuned.estimator} on {', '.join(tuned.blocks)}"


def _stage(run: Run, folder: str, stage: str) -> str:
    manifest = run.verify(run.root / folder, stage)
    return f"{count(len(manifest['files']), 'file')}, {count(len(manifest['inputs']), 'input')}"
