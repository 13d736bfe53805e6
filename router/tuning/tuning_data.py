"""What tuning may read of a run: the rows of `fit` and `tune`, and nothing of other rows.

Notation for shapes: N rows of `fit` and `tune`, K options, B budgets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import Gaps, part_rows
from m3router.data.splits.folds import Fold, cross_fit, quarter
from m3router.data.splits.split import Split
from m3router.router.estimators import estimator_class
from m3router.router.estimators.base import Floats, GroupedEstimator, Validation, log_loss
from m3router.router.features.mapped import side_by_side
from m3router.router.features.table import FeatureTable
from m3router.router.training.fit import refuse_foreign, refuse_unlearnable
from m3router.router.training.probability_calibration import choose_calibration
from m3router.router.tuning.objective import budgets, curve


@dataclass(frozen=True)
class TuningData:
    """Rows to fit and to judge on; other rows are not in it.

    Attributes:
        blocks: feature block name -> (N, d).
        groups: (N,), the image of each row.
        targets: (N, K), whether an option suffices.
        costs: (N, K) of the options by themselves.
        folds: row numbers below N.
        look: the cheap first look: a quarter of the first fold.
        at: budgets (B,) of the curves.
        seed: of the estimators.
        hashes: SHA-256 of what was read of log and features, and the split's fingerprint.
    """

    blocks: Mapping[str, Floats]
    groups: npt.NDArray[np.object_]
    targets: Floats
    costs: Floats
    folds: Sequence[Fold]
    look: Fold
    at: npt.NDArray[np.float64]
    seed: int
    hashes: Mapping[str, str]

    def predict(
        self, estimator: str, blocks: Sequence[str], settings: Mapping[str, Any], fold: Fold
    ) -> npt.NDArray[np.float64]:
        """Probabilities of a fold's judged rows, fitted and calibrated without them.

        The rows to stop at take the place that `tune` has when a router is trained: fits stop
        early on them, and probabilities are calibrated on them; an estimator that divides its
        examples itself is fitted on both.

        Raises:
            DataError: when the estimator cannot be made or fitted.
        """
        widths = tuple(self.blocks[name].shape[1] for name in blocks)
        kind = estimator_class(estimator)
        model = kind.configured(settings, seed=self.seed, widths=widths)
        X = {
            part: side_by_side([self.blocks[name] for name in blocks], rows)
            for part, rows in (("fit", fold.fit), ("stop", fold.stop), ("judge", fold.judge))
        }
        if isinstance(model, GroupedEstimator):  # it holds out what it needs itself
            rows = np.concatenate([fold.fit, fold.stop])
            both = side_by_side([self.blocks[name] for name in blocks], rows)
            held = model.fit_groups(both, self.targets[rows], groups=self.groups[rows])
            calibration, _ = choose_calibration(held, self.targets[rows], groups=self.groups[rows])
            return calibration.apply(model.predict(X["judge"]))
        held_back = Validation(X=X["stop"], Y=self.targets[fold.stop])
        model = model.fit(X["fit"], self.targets[fold.fit], validation=held_back)
        p = model.predict(X["stop"])
        calibration, _ = choose_calibration(p, held_back.Y, groups=self.groups[fold.stop])
        return calibration.apply(model.predict(X["judge"]))

    def judged(
        self, rows: npt.NDArray[np.intp], p: Floats, blocks: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], float]:
        """Accuracy (B,) at each budget of predictions for these rows, and their log-loss."""
        targets = self.targets[rows]
        reached = curve(p, self.costs[rows], targets, at=self.at, blocks=blocks)
        return reached, log_loss(targets, p)


def gather(
    log: OracleLog, features: FeatureTable, split: Split, *, gaps: Gaps, folds: int, seed: int
) -> TuningData:
    """Gather what tuning may read.

    Args:
        log: with the targets of the rule in place of the scores.
        features: rows for (at least) every complete example of the log.
        split: made from the log's groups.
        gaps: "error" refuses a log with gaps, "drop" leaves those examples out.
        folds: see `m3router.data.splits.folds.cross_fit`.
        seed: of the folds and of the estimators.

    Raises:
        NotLearnableError: see `m3router.router.training.fit.train_router`.
        MismatchError: when examples of the log have no features.
        DataError: for gaps with "error", or too few images.
    """
    parts = {part: part_rows(log, split, part, gaps=gaps) for part in ("fit", "tune")}
    refuse_unlearnable(log, parts)
    refuse_foreign(log, features)
    rows = np.sort(np.concatenate([parts["fit"], parts["tune"]]))
    groups = log.groups[rows]
    own = {part: np.searchsorted(rows, index) for part, index in parts.items()}
    ids = [log.ids[row] for row in rows]
    targets, costs = log.scores[rows], log.costs[rows]
    table = features.align(ids)
    names = [ids, [str(group) for group in groups], list(log.options)]
    cut = cross_fit(groups, own, folds=folds, seed=seed)
    return TuningData(
        blocks=dict(table.blocks),
        groups=groups,
        targets=targets,
        costs=costs,
        folds=cut,
        look=quarter(groups, cut[0], seed=seed),
        at=budgets(costs),
        seed=seed,
        hashes={
            "log": _digest(repr(names).encode(), targets, costs),
            "features": _digest(repr(table.widths).encode(), *table.blocks.values()),
            "split": split.fingerprint,
        },
    )


def _digest(text: bytes, *arrays: Floats) -> str:
    found = hashlib.sha256(text)
    for array in arrays:
        found.update(np.ascontiguousarray(array).reshape(-1).data)
    return found.hexdigest()
