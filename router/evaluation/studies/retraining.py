"""What studies share: the recipe of a run's router, trained again on other examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows
from m3router.data.manifest import read_manifest
from m3router.data.splits.split import Split
from m3router.router.estimators.base import Floats
from m3router.router.features.table import FeatureTable
from m3router.router.runs.calibration_data import predictions
from m3router.router.runs.run import Run
from m3router.router.training.fit import train_router
from m3router.router.training.scale_router import ScaleRouter
from m3router.router.training.targets import apply_rule

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run's parts and how its router was trained.

    Attributes:
        router: the run's own.
        log: what every option answered.
        features: of the log's examples.
        split: of the log.
        params: what `m3router train` was told; the words of `train_router`, "rule", and "tuning"
            where a tuned setting was taken.
        bound: hashes and options that a result depends on; JSON values.
    """

    router: ScaleRouter
    log: OracleLog
    features: FeatureTable
    split: Split
    params: dict[str, Any]
    bound: dict[str, Any]

    @classmethod
    def read(cls, run: Run) -> Recipe:
        """Read a run.

        Raises:
            DataError: when a part is missing or damaged.
            MismatchError: when parts do not belong together.
        """
        run = run.opened()
        router, log = run.router(), run.log()
        params = dict(read_manifest(run.arm(), stage="train")["params"])
        files = run.inputs("log", "features", "split", "router")
        return cls(
            router=router,
            log=log,
            features=run.features(log),
            split=run.split(log),
            params=params,
            bound={**{name: run.sha256(path) for name, path in files.items()}, "train": params},
        )

    def require_costs(self) -> None:
        """Refuse test questions on which there is no curve to measure.

        Raises:
            DataError: when every option costs the same on the mean of the test split.
        """
        means = self.log.costs[self.rows("test")].mean(axis=0)
        if not means.min() < means.max():
            raise DataError(
                "A study measures curves of accuracy over mean cost (AIQ), but on the test split "
                f"every option costs {means[0]:g} on the mean: there is no curve. Compare "
                "accuracies instead: `m3router evaluate`."
            )

    def rows(self, part: str) -> Rows:
        """Complete examples of a part."""
        return part_rows(self.log, self.split, part, gaps=self.params["gaps"])

    def train(self, fit: Rows, tune: Rows, *, seed: int | None = None) -> ScaleRouter:
        """Train as the run's router was, on some rows of its fit and tune splits.

        Raises:
            NotLearnableError: when nothing can be learned from these rows.
        """
        log, split = self.only(np.concatenate([fit, tune]))
        elsewhere = ("rule", "tuning")
        settings = {name: one for name, one in self.params.items() if name not in elsewhere}
        if "tuning" in self.params:
            settings["hyperparameters"] = self.router.metadata["hyperparameters"]
        if seed is not None:
            settings["seed"] = seed
        return train_router(apply_rule(log, self.params["rule"]), self.features, split, **settings)

    def only(self, rows: Rows) -> tuple[OracleLog, Split]:
        """The log and the split of some rows; every image stays in its part."""
        log = self.log.select(np.sort(rows))
        return log, Split.from_dict(self.split.to_dict(), log.groups)

    def predict(self, router: ScaleRouter, log: OracleLog) -> Floats:
        """Probabilities (N, K) for every example of a log."""
        return predictions(router, self.features, log, np.arange(len(log)))
