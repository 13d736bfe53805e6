"""What policies are made from, so that one can be made whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.log.oracle_log import OracleLog
from data.splits.split import Split
from router.analysis.words import Words, words_of
from router.costs import routed_costs
from router.estimators.base import Floats
from router.features.table import FeatureTable
from router.guarantee import Labelled, Target, for_target
from router.guarantee_text import SENTENCE, guarantee_sentence
from router.knobs import for_budget, for_max_loss, for_price
from router.parts import Gaps, part_rows
from router.policy import Binding, Policy
from router.references import chosen
from router.router import DATASETS, TOLD, ScaleRouter
from router.run import Run


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """The parts of a run that a policy is made from.

    Attributes:
        binding: What its policies belong to.
        tune: None where the tune part has no complete example; only guarantees need it.
        calibrate: The calibrate part, with at least one example.
        sizes: Questions of each image of the fit and the tune part, which say with how many an
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
            DataError: When something is missing or damaged, or the calibrate part is empty.
            MismatchError: When router, log, features and split do not belong together.
        """
        router, log = run.read_router(), run.read_log()
        return cls.of(router, log, run.read_features(log), run.read_split(log))

    @classmethod
    def of(
        cls, router: ScaleRouter, log: OracleLog, features: FeatureTable, split: Split
    ) -> CalibrationData:
        """The parts of a log, as a router trained on its split sees them.

        Raises:
            DataError: When the calibrate part is empty.
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

    def policy(
        self,
        *,
        budget: float | None = None,
        max_loss_points: float | None = None,
        price: float | None = None,
        target: Target | None = None,
        cap: float | None = None,
        reference: str | None = None,
    ) -> Policy:
        """Choose a policy on the calibrate part.

        Args:
            budget: Most mean cost per answer, in the log's cost unit.
            max_loss_points: Or: at most so many points of accuracy below the reference option.
            price: Or: of one unit of cost, in probability of a right answer.
            target: Or: a regret and the confidence with which it is kept; its own cap and
                reference are not read.
            cap: Most cost of any single answer; by itself, the likeliest right option within it.
            reference: Name of the option that losses are against, and that is used where nothing
                meets the target; None for the best one of the calibrate part under the cap.

        Raises:
            DataError: Unless exactly one knob, or a cap alone, is given; when the budget or the
                cap is below the cheapest option; when the part is too small for the target; for
                an unknown reference.
        """
        given = [budget, max_loss_points, price, target].count(None)
        if given < 3 or (given == 4 and cap is None):
            raise DataError(
                "Give exactly one of a budget, a maximal loss, a price and a maximal regret; a "
                "cap may stand beside it or alone."
            )
        part, binding = self.calibrate, self.binding
        p, costs = part.p, part.costs
        named = chosen(reference, binding.options, scores=part.scores, costs=costs, cap=cap)
        if target is not None:
            if self.tune is None:
                raise _empty()
            images = len(np.unique(part.groups))
            made = for_target(
                replace(part, most=target.most_for(self.sizes, images=images)),
                tune=self.tune,
                target=replace(target, cap=cap, reference=named),
                binding=binding,
            )
            kept = {**made.guarantee, **({DATASETS: TOLD} if self.told else {})}
            told = guarantee_sentence(
                kept,
                reference=named,
                cap=cap,
                words=self.words,
                singles=images == len(part.groups),
            )
            return replace(made, guarantee={**kept, SENTENCE: told})
        if budget is not None:
            return for_budget(p, costs, budget=budget, binding=binding, cap=cap, reference=named)
        if max_loss_points is not None:
            return for_max_loss(
                p,
                costs,
                scores=part.scores,
                max_loss_points=max_loss_points,
                binding=binding,
                cap=cap,
                reference=named,
            )
        return for_price(p, costs, price=price or 0.0, binding=binding, cap=cap, reference=named)


def labelled(
    router: ScaleRouter, features: FeatureTable, log: OracleLog, rows: np.ndarray
) -> Labelled:
    """What a router says about some rows of a log, what they cost behind it, and the truth.

    Raises:
        DataError: When there are no rows.
        MismatchError: When the rows are not in the features.
    """
    if not len(rows):
        raise _empty()
    _, sizes = np.unique(log.groups[rows], return_counts=True)
    return Labelled(
        p=predictions(router, features, log, rows)[rows],
        costs=routed_costs(log.costs[rows], router.blocks),
        scores=log.scores[rows],
        groups=log.groups[rows],
        most=int(sizes.max()),
        ids=np.asarray(log.ids)[rows],
    )


def image_sizes(log: OracleLog, split: Split, *, gaps: Gaps) -> npt.NDArray[np.intp]:
    """Questions of each image that is in the fit or the tune part."""
    rows = [part_rows(log, split, part, gaps=gaps) for part in ("fit", "tune")]
    _, sizes = np.unique(log.groups[np.concatenate(rows)], return_counts=True)
    return np.asarray(sizes, dtype=np.intp)


def predictions(
    router: ScaleRouter, features: FeatureTable, log: OracleLog, rows: np.ndarray
) -> Floats:
    """Probabilities (N, K) for all rows of the log that a router belongs to; NaN outside of `rows`.

    Those of its own training examples are held out, see `router.held_out`.
    """
    p = np.full(log.scores.shape, np.nan)
    ids = [log.ids[row] for row in rows]
    found = router.predict(features.align(ids), datasets=log.datasets[rows])
    p[rows] = found if router.held_out is None else router.held_out.put_into(found, ids)
    return p


def _empty() -> DataError:
    return DataError(
        "The calibrate part has no complete example, or the tune part. Label more questions."
    )
