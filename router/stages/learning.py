"""Stages that learn: train and calibrate."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Unpack

from m3router.data.errors import MismatchError
from m3router.data.log.parts import Gaps, part_rows, require_choice
from m3router.data.manifest import MANIFEST
from m3router.data.progress import watched
from m3router.data.registry import unknown_name
from m3router.router import estimators
from m3router.router.cascade.rule import cascade_path
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.features.table import FeatureTable
from m3router.router.monitoring.familiarity import FILES as FAMILIARITY
from m3router.router.policies.costs import PEEK
from m3router.router.policies.knobs import Knobs
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import ARMS, AnyRun, Run, as_run
from m3router.router.stages.splitting import Splitting, run_split
from m3router.router.tracking.trackers import tracked
from m3router.router.tracking.training import log_training
from m3router.router.training.fit import datasets_of, train_router, warn_of_constants
from m3router.router.training.held_out import FILE as HELD_OUT
from m3router.router.training.scale_router import FILE as ROUTER_FILE
from m3router.router.training.scale_router import Datasets, ScaleRouter
from m3router.router.training.targets import DEFAULT, apply_rule
from m3router.router.tuning.setting import Tuned


@tracked("train", log_training)
def train_stage(
    run: AnyRun,
    *,
    estimator: str = estimators.DEFAULT,
    seed: int = 0,
    gaps: Gaps = "error",
    rule: str = DEFAULT,
    threads: int = 1,
    ablations: bool = True,
    feature_groups: Sequence[str] | None = None,
    reuse: bool = False,
    progress: Callable[[str, int, int], None] | bool | None = True,
    splitting: Splitting | None = None,
    tuned: Tuned | None = None,
    datasets: Datasets | None = None,
    log_to: str | Sequence[str] | None = None,
    log_to_project: str | None = None,
) -> ScaleRouter:
    """Split the log by image, then learn which option suffices.

    Args:
        run: must hold `log/` and `features/`; receives `split.json` and `router/`.
        estimator: a name in `m3router.router.estimators.ESTIMATORS`.
        seed: of the split and of the estimator.
        gaps: "error" refuses a log with gaps, "drop" leaves those examples out.
        rule: a name in `m3router.router.training.targets.RULES`.
        threads: of the fit, where the estimator can use several.
        ablations: whether to train an image-only and a question-only router as well.
        feature_groups: feature blocks that the router reads; by default all that there are but the
            peek, which costs a call of the model for every question. The ablations keep to their
            own.
        reuse: keep what was trained on the same inputs with the same options.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called with (router, routers done, routers in all).
        splitting: how to split; None for the usual shares by seed, where images keep the part that
            they had before examples were added.
        tuned: the setting to train with, in place of estimator, seed, gaps, rule and splitting;
            the ablations take it with their own blocks.
        datasets: see `m3router.router.training.fit.train_router`.
        log_to: experiment trackers that are told, names in `m3router.router.tracking.TRACKERS`.
        log_to_project: project of theirs; None for the tracker's own setting, or "m3router".

    Raises:
        NotLearnableError: when everything is right, wrong, or independent of the option.
        DataError: for gaps with "error", an unknown estimator, rule or tracker, or a tracker
            whose package is not installed.
        MismatchError: when features and log do not belong together, or a feature group is not
            there.
    """
    run = as_run(run).opened()
    log = run.log()
    require_choice(log)
    features = run.features(log)
    for feature_group in feature_groups or ():
        if feature_group not in features.blocks:
            told = unknown_name("feature group", feature_group, features.blocks)
            if feature_group in FEATURE_GROUPS:
                told = (
                    f"There is no feature block {feature_group!r} in {run.features_folder}, which "
                    f"has {', '.join(features.blocks)}. Compute it: m3router featurize {run.root} "
                    f"--feature-group {feature_group}"
                )
            raise MismatchError(told)
    if tuned:
        estimator, seed, gaps, rule = tuned.estimator, tuned.seed, tuned.gaps, tuned.rule
    estimators.estimator_class(estimator)  # a name that there is not is refused before any work
    targets = apply_rule(log, rule)
    split = tuned.split if tuned else run_split(run, log, splitting, seed=seed)
    known = [
        name for name, (_, blocks) in ARMS.items() if set(blocks or ()) <= set(features.blocks)
    ]
    wanted = known if ablations and len(features.blocks) > 1 else ["router"]
    for name in set(ARMS) - set(wanted):
        shutil.rmtree(run.arm(name), ignore_errors=True)
    written = False
    with watched(progress, "training", _told) as show:
        for done, name in enumerate(wanted):
            if show:
                show(name, done, len(wanted))
            own = tuned.blocks if tuned else feature_groups or _usual(features)
            blocks = list(dict.fromkeys(ARMS[name][1] or own))
            params = _train_params(estimator, blocks, seed=seed, gaps=gaps, rule=rule)
            params["datasets"] = datasets or datasets_of(targets)
            if tuned:
                params["tuning"] = tuned.record
            inputs = run.inputs("log", "features", "split")
            folder = run.arm(name)
            if reuse and run.is_current(folder, "train", inputs=inputs, params=params):
                continue
            router = train_router(
                targets,
                features,
                split,
                estimator=estimator,
                blocks=blocks,
                seed=seed,
                gaps=gaps,
                hyperparameters=tuned.hyperparameters if tuned else None,
                threads=threads,
                datasets=params["datasets"],
            )
            if tuned:
                router = replace(router, metadata={**router.metadata, "tuning": tuned.record})
            (folder / MANIFEST).unlink(missing_ok=True)
            if not written:  # only now: a training that fails leaves the old router usable
                run.write_split(split)
                written = True
            router.write(folder)
            names = (ROUTER_FILE, HELD_OUT, *FAMILIARITY)
            files = [folder / one for one in names if (folder / one).is_file()]
            run.record(folder, "train", inputs=inputs, params=params, files=files)
        if show:
            show("done", len(wanted), len(wanted))
    warn_of_constants(targets, part_rows(targets, split, "fit", gaps=gaps))
    return run.router()


def _told(name: str, done: int, total: int) -> tuple[int, int, str]:
    return done, total, "" if done == total else name


def calibrate_stage(run: AnyRun, *, name: str = "default", **knobs: Unpack[Knobs]) -> Policy:
    """Choose a policy on the calibration split.

    Args:
        run: must hold a trained router; receives `policies/<name>.json`.
        name: of the policy.
        knobs: what is asked for.

    Raises:
        DataError: see `m3router.router.runs.calibration_data.CalibrationData.policy`; or for a
            name that is not a plain file name.
        MismatchError: when router, log, features and split do not belong together.
    """
    run = as_run(run)
    path, run = run.policy_file(name), run.opened()
    policy = CalibrationData.read(run).policy(**knobs)
    cascade_path(run.root, name).unlink(missing_ok=True)  # it went with the policy before
    policy.write(path)
    record_policies(run)
    return policy


def record_policies(run: Run) -> None:
    """Write the manifest of all policies that there are."""
    files = [run.policy_file(name) for name in run.policy_names()]
    run.record(
        run.policies_folder,
        "calibrate",
        inputs=run.inputs("log", "features", "split", "router"),
        params={one.stem: dict(Policy.read(one).knob) for one in files},
        files=files,
    )


def _usual(features: FeatureTable) -> list[str]:
    """All blocks but the peek, unless there is nothing else."""
    return [name for name in features.blocks if name != PEEK] or list(features.blocks)


def _train_params(
    estimator: str, blocks: list[str], *, seed: int, gaps: str, rule: str
) -> dict[str, Any]:
    return {"estimator": estimator, "blocks": blocks, "seed": seed, "gaps": gaps, "rule": rule}
