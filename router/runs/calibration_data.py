"""What policies are made from, so that one can be made whenever it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import Gaps, part_rows
from m3router.data.splits.split import Split
from m3router.router.estimators.base import Floats
from m3router.router.features.size import image_sizes as sizes_of_images
from m3router.router.features.table import FeatureTable
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.fitting import for_budget, for_max_loss, for_price
from m3router.router.policies.guarantee import Labelled, Target, for_target
from m3router.router.policies.guarantee_text import SENTENCE, guarantee_sentence
from m3router.router.policies.knobs import Knobs
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.references import chosen
from m3router.router.runs.run import Run
from m3router.router.text.words import Words, words_of
from m3router.router.training.scale_router import DATASETS, TOLD, ScaleRouter


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """The parts of a run that a policy is made from.

    Attributes:
        binding: What its policies belong to.
        tune: None where the tune split has no complete example; only guarantees need it.
        calibrate: The calibration split, with at least one example.
        sizes: Questions of each image of the fit and the tune split, which say with how many an
            image counts where nothing is declared.
        words: That fit the log, to tell what is guaranteed.
        told: Whether the router is told which dataset a question is from.
    """

    binding: Binding
    tune: Labelled | None
    calibrate: Labelled
    sizes: npt.NDArray[np.intp]
    words: Words = Words()
    told: bool = False

    @classmethod
    def read(cls, run: Run) -> CalibrationData:
        """Read a run with a trained router.

        Raises:
            DataError: When something is missing or damaged, or the calibration split is empty.
            MismatchError: When router, log, features and split do not belong together.
        """
        run = run.opened()
        router, log = run.router(), run.log()
        return cls.of(router, log, run.features(log), run.split(log))

    @classmethod
    def of(
        cls, router: ScaleRouter, log: OracleLog, features: FeatureTable, split: Split
    ) -> CalibrationData:
        """The parts of a log, as a router trained on its split sees them.

        Raises:
            DataError: When the calibration split is empty.
            MismatchError: When router, log, features and split do not belong together.
        """
        gaps = router.metadata["gaps"]
        rows = {part: part_rows(log, split, part, gaps=gaps) for part in ("tune", "calibrate")}
        return cls(
            binding=Binding(
                options=router.options,
                cost_unit=router.cost_unit,
                router=router.fingerprint,
                split=split.fingerprint,
            ),
            tune=labelled(router, features, log, rows["tune"]) if len(rows["tune"]) else None,
            calibrate=labelled(router, features, log, rows["calibrate"]),
            sizes=image_sizes(log, split, gaps=gaps),
            words=words_of(log),
            told=router.told,
        )

    def policy(self, **knobs: Unpack[Knobs]) -> Policy:
        """Choose a policy on the calibration split.

        Args:
            knobs: What is asked for.

        Raises:
            DataError: Unless exactly one knob, or a cap alone, is given; when the budget or the
                cap is below the cheapest option; when the part is too small for the target; for
                an unknown reference.
        """
        budget, price, cap = knobs.get("budget"), knobs.get("price"), knobs.get("cap")
        lost, target = knobs.get("max_loss_observed"), Target.of(knobs)
        given = [budget, lost, price, target].count(None)
        if given < 3 or (given == 4 and cap is None):
            raise DataError(
                "Give exactly one of a budget, a maximal loss, a price and a maximal regret; a "
                "cap may stand beside it or alone."
            )
        if cap is not None and not math.isfinite(cap):
            raise DataError(f"A cap must be finite, not {cap}; leave it out to have none.")
        part, binding = self.calibrate, self.binding
        p, costs = part.p, part.costs
        named = chosen(
            knobs.get("reference"), binding.options, scores=part.scores, costs=costs, cap=cap
        )
        if target is not None:
            if self.tune is None:
                raise _empty()
            made = for_target(
                self.examined(target),
                tune=self.tune,
                target=replace(target, reference=named),
                binding=binding,
            )
            promised = self.promised(made.guarantee, reference=named, cap=cap)
            return replace(made, guarantee=promised)
        if budget is not None:
            return for_budget(
                p,
                costs,
                budget=budget,
                binding=binding,
                cap=cap,
                reference=named,
                paid=part.paid,
            )
        if lost is not None:
            return for_max_loss(
                p,
                costs,
                scores=part.scores,
                max_loss_points=round(100 * lost, 10),  # 29, not 28.999999999999996
                binding=binding,
                cap=cap,
                reference=named,
                paid=part.paid,
            )
        return for_price(
            p,
            costs,
            price=price or 0.0,
            binding=binding,
            cap=cap,
            reference=named,
            paid=part.paid,
        )

    def examined(self, target: Target) -> Labelled:
        """The calibration split, an image counting with as many questions as a target wants."""
        images = len(np.unique(self.calibrate.groups))
        return replace(self.calibrate, most=target.most_for(self.sizes, images=images))

    def promised(
        self, kept: Mapping[str, Any], *, reference: str, cap: float | None = None
    ) -> dict[str, Any]:
        """A guarantee with the sentence that says it, and whether data sets are told.

        Args:
            kept: See `m3router.router.policies.guarantee.Certified.guarantee`.
            reference: Name of the reference option.
            cap: Most cost of any single answer.
        """
        kept = {**kept, **({DATASETS: TOLD} if self.told else {})}
        groups = self.calibrate.groups
        sentence = guarantee_sentence(
            kept,
            reference=reference,
            cap=cap,
            words=self.words,
            singles=len(np.unique(groups)) == len(groups),
        )
        return {**kept, SENTENCE: sentence}


def labelled(
    router: ScaleRouter, features: FeatureTable, log: OracleLog, rows: np.ndarray
) -> Labelled:
    """What a router says about some rows of a log, what they cost behind it, and the truth.

    Choices go by the costs that the router expects, where it does not know them before an answer.

    Raises:
        DataError: When there are no rows.
        MismatchError: When the rows are not in the features.
    """
    if not len(rows):
        raise _empty()
    _, sizes = np.unique(log.groups[rows], return_counts=True)
    paid = routed_costs(log.costs[rows], router.blocks)
    known = known_costs(router, features, log)
    return Labelled(
        p=predictions(router, features, log, rows)[rows],
        costs=paid if known is None else routed_costs(known[rows], router.blocks),
        scores=log.scores[rows],
        groups=log.groups[rows],
        most=int(sizes.max()),
        paid=None if known is None else paid,
        ids=np.asarray(log.ids)[rows],
    )


def known_costs(router: ScaleRouter, features: FeatureTable, log: OracleLog) -> Floats | None:
    """Costs (N, K) that a router's choices go by, for all rows of a log; NaN without features.

    None where that is what was paid: the log's own costs.
    """
    expected = router.expected_costs
    if expected is None or expected.counted:
        return None
    place = {name: row for row, name in enumerate(features.ids)}
    found = [(row, place[name]) for row, name in enumerate(log.ids) if name in place]
    rows, own = np.array(found, dtype=np.intp).reshape(-1, 2).T
    sizes = sizes_of_images(features)
    known = np.full(log.costs.shape, np.nan)
    known[rows] = expected.of(None if sizes is None else sizes[own], len(rows))
    return known


def image_sizes(log: OracleLog, split: Split, *, gaps: Gaps) -> npt.NDArray[np.intp]:
    """Questions of each image that is in the fit or the tune split."""
    rows = [part_rows(log, split, part, gaps=gaps) for part in ("fit", "tune")]
    _, sizes = np.unique(log.groups[np.concatenate(rows)], return_counts=True)
    return np.asarray(sizes, dtype=np.intp)


def predictions(
    router: ScaleRouter, features: FeatureTable, log: OracleLog, rows: np.ndarray
) -> Floats:
    """Probabilities (N, K) for all rows of the log that a router belongs to; NaN outside of `rows`.

    Those of its own training examples are held out, see `m3router.router.training.held_out`.
    """
    p = np.full(log.scores.shape, np.nan)
    ids = [log.ids[row] for row in rows]
    found = router.predict(features.align(ids), datasets=log.datasets[rows])
    p[rows] = found if router.held_out is None else router.held_out.put_into(found, ids)
    return p


def _empty() -> DataError:
    return DataError(
        "The calibration split has no complete example, or the tune split. Label more questions."
    )
