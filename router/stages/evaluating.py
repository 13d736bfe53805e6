"""The stage that measures the router of a run on its test split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows, part_sizes
from m3router.data.manifest import atomic_write_text, library_versions, read_manifest
from m3router.data.progress import Advance, as_counted, watched
from m3router.data.splits.split import Split
from m3router.router.cascade.rule import cascade_path
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.breakdown import by_dataset, lost_questions, reliability
from m3router.router.evaluation.documents import DOCUMENT
from m3router.router.evaluation.evaluate import (
    SCHEMA,
    Settings,
    default_budgets,
    different_budgets,
    evaluate,
)
from m3router.router.evaluation.usage import LogUsage
from m3router.router.evaluation_document import Evaluation
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.fitting import check_budget
from m3router.router.policies.policy import Binding, Policy
from m3router.router.runs.calibration_data import known_costs, predictions
from m3router.router.runs.run import AnyRun, Run, as_run
from m3router.router.tracking.evaluation import log_evaluation
from m3router.router.tracking.trackers import tracked
from m3router.router.training.scale_router import ScaleRouter
from m3router.router.training.targets import MEANING


@tracked("evaluate", log_evaluation)
def evaluate_stage(
    run: AnyRun,
    *,
    budgets: Sequence[float] | None = None,
    draws: int = 1000,
    seed: int = 0,
    reuse: bool = False,
    reference: str | None = None,
    progress: Advance | bool | None = True,
    log_to: str | Sequence[str] | None = None,
    log_to_project: str | None = None,
) -> Evaluation:
    """Measure router, policies, ablations and oracles on the test split.

    Args:
        run: must hold a trained router; receives `evaluation/`.
        budgets: mean costs per answer for the router's rows; None for 1/16, 1/4 and 1/2 of the
            finest option's.
        draws: bootstrap draws.
        seed: of the bootstrap.
        reuse: keep what was evaluated on the same inputs with the same options.
        reference: name of the option that accuracies are compared with; None for the best of the
            calibration split.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called with (methods measured, methods in all, the next one).
        log_to: experiment trackers that are told, names in `m3router.router.tracking.TRACKERS`.
        log_to_project: project of theirs; None for the tracker's own setting, or "m3router".

    Returns:
        The document that reports are made from.

    Raises:
        DataError: when a part of the run is missing or damaged, a budget is too small, or the
            reference or a tracker is unknown, or the package of a tracker is not installed.
        MismatchError: when parts of the run do not belong together.
    """
    run = as_run(run).opened()
    router = run.router()
    log = run.log()
    split = run.split(log)
    policies = run.policies(router, split)
    cascades = run.cascades(router)
    features = run.features(log)
    rows = {
        part: part_rows(log, split, part, gaps=router.metadata["gaps"])
        for part in ("tune", "calibrate", "test")
    }
    going_by = known_costs(router, features, log)
    inside = rows["calibrate"]
    chosen = (
        different_budgets(budgets)
        if budgets
        else default_budgets(log.costs[inside], None if going_by is None else going_by[inside])
    )
    for budget in budgets or ():  # before anything long; what is paid by the router may be more
        least = float(log.costs[inside].min(axis=1).mean()) * (1 - 1e-12)
        check_budget(budget, least, log.cost_unit)
    inputs = run.inputs("log", "features", "split", *run.arms())
    inputs |= {f"policy {name}": run.policy_file(name) for name in policies}
    inputs |= {f"cascade {name}": cascade_path(run.root, name) for name in cascades}
    params = {"budgets": list(chosen), "draws": draws, "seed": seed, "schema": SCHEMA}
    params["reference"] = reference
    if reuse and run.is_current(run.evaluation_folder, "evaluate", inputs=inputs, params=params):
        return run.evaluation()
    known = np.concatenate(list(rows.values()))
    routers = {arm: run.router(arm) for arm in run.arms()}
    p = {arm: predictions(one, features, log, known) for arm, one in routers.items()}
    reads = {arm: tuple(one.blocks) for arm, one in routers.items()}
    shown = [{"budget": budget} for budget in chosen]
    named = {name: one for name, one in policies.items() if dict(one.knob) not in shown}
    with watched(progress, "evaluating", as_counted) as show:
        document = evaluate(
            log,
            p["router"],
            split=split,
            policies=named,
            gflops=_gflops(log, known),
            usage=LogUsage.of(log, encoder=_encoder_gflops(router)),
            ablations={arm: values for arm, values in p.items() if arm != "router"},
            features=features,
            reads=reads,
            cascades=cascades,
            known_costs=going_by,
            reference=reference,
            progress=show,
            settings=Settings(budgets=chosen, draws=draws, seed=seed, gaps=router.metadata["gaps"]),
        )
    details = _Details(log, rows["test"], p["router"], reads["router"], going_by)
    document |= details.told(document, draws=draws, seed=seed)
    document |= _provenance(run, router, log, split) | _vision(document)
    path = run.evaluation_folder / DOCUMENT
    atomic_write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    run.record(run.evaluation_folder, "evaluate", inputs=inputs, params=params, files=[path])
    return document


def read_document(run: AnyRun) -> Evaluation:
    """The evaluation, after checking that it is of this run; see `Run.evaluation`."""
    return as_run(run).evaluation()


def _gflops(log: OracleLog, rows: np.ndarray) -> Floats | None:
    """GFLOPs (N, K) of the language model; None where the log does not know them."""
    known = np.isfinite(log.flops[rows]).all()
    return log.flops / 1e9 if known else None


def _encoder_gflops(router: ScaleRouter) -> float:
    """GFLOPs of the router's own image encoder for a question; NaN where they are not known."""
    if router.reads_own_model:
        return 0.0
    return float(router.metadata.get("features", {}).get("encoder_flops", np.nan)) / 1e9


def _vision(document: Mapping[str, Any]) -> dict[str, float | None]:
    """Mean cost of the vision tower by image, where it is the same at every option."""
    known = set(document["tower"]["gflops"].values())
    return {"vision_gflops": next(iter(known)) if len(known) == 1 else None}


class _Details:
    """What the report says beyond the totals, for every row of the router."""

    def __init__(
        self,
        log: OracleLog,
        rows: np.ndarray,
        p: Floats,
        reads: Sequence[str],
        going_by: Floats | None,
    ) -> None:
        self.test, self.p = log.select(rows), np.asarray(p)[rows]
        self.paid = routed_costs(self.test.costs, reads)
        self.costs = self.paid if going_by is None else routed_costs(going_by[rows], reads)

    def told(self, document: Mapping[str, Any], *, draws: int, seed: int) -> dict[str, Any]:
        """By dataset, which questions were lost, and how well probabilities come true."""
        test, p = self.test, self.p
        policies = {
            row["name"]: _policy(row["policy"], test)
            for row in document["rows"]
            if row["kind"] == "router"
        }
        choices = {name: policy.choose(p, self.costs) for name, policy in policies.items()}
        return {
            "datasets": by_dataset(
                test,
                choices,
                costs=self.paid,
                best=document["best_fixed"],
                reference=document["reference"]["option"],
                draws=draws,
                seed=seed,
            ),
            "lost": {
                name: {
                    "reference": policy.reference,
                    **lost_questions(
                        test, choices[name], p, reference=policy.reference_choice(self.costs)
                    ),
                }
                for name, policy in policies.items()
            },
            "calibration": reliability(p, test.scores, test.options),
        }


def _policy(described: Mapping[str, Any], log: OracleLog) -> Policy:
    binding = Binding(options=log.options, cost_unit=log.cost_unit, router="", split="")
    return Policy(
        binding=binding,
        kind=described["kind"],
        lam=described["lam"],
        cost_scale=described["cost_scale"],
        reference=described["reference"],
        cap=described["cap"],
    )


def _provenance(run: Run, router: ScaleRouter, log: OracleLog, split: Split) -> dict[str, Any]:
    trained = read_manifest(run.arm(), stage="train")
    rule = trained["params"]["rule"]
    return {
        "rule": {"name": rule, "meaning": MEANING[rule]},
        "provenance": {
            "log": {**log.metadata, "sha256": run.sha256(run.inputs("log")["log"])},
            "features": dict(router.metadata["features"]),
            "router": {
                "estimator": router.estimator_name,
                "blocks": dict(router.blocks),
                "hyperparameters": router.metadata["hyperparameters"],
                "seed": router.metadata["seed"],
                "gaps": router.metadata["gaps"],
                "fingerprint": router.fingerprint,
            },
            "split": {"seed": split.seed, "fingerprint": split.fingerprint},
            "sizes": part_sizes(log, split),
            "examples": len(log),
            "examples_with_gaps": int((~log.complete).sum()),
            "versions": library_versions(),
        },
    }
