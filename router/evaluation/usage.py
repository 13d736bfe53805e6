"""What answers use beside their cost: operations of tower and language model, tokens, time, money.

Two savings are told of every way of choosing. That of the *language model* alone is what fewer
visual tokens save. That of *everything* counts the vision tower too: a Matryoshka model runs it
once, whatever the option; for other models every option that is asked runs its own, and a router
that decides before encoding pays for no other.

Notation for shapes: N examples of the log, n of one part, K options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.log.oracle_log import OracleLog
from m3router.router.estimators.base import Floats
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.outcomes import Asked, Prices
from m3router.router.text.numbers import number

LANGUAGE, TOWER, EVERYTHING = "gflops", "tower_gflops", "total_gflops"
MEASURED = ("image_tokens", "seconds", "price")
"""Columns of the log that are summed over all that was asked."""
ENCODED = "image"
"""The feature block that needs an image encoder: the model's own tower, or a small one."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LogUsage:
    """What every answer of a log, or of one part of it, used; NaN where it is not known.

    Attributes:
        tower: (N, K) GFLOPs of vision tower and connector for each answer.
        once: whether one pass of the tower serves all options, as a Matryoshka model's does.
        encoder: GFLOPs of the router's own image encoder for a question; 0 where the tower of the
            model that answers serves the router, NaN where it is not known.
        measured: name in `MEASURED` -> (N, K).
    """

    tower: Floats
    once: bool
    encoder: float = 0.0
    measured: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, log: OracleLog, *, encoder: float = 0.0) -> LogUsage:
        """What a log says; `encoder` is in GFLOPs for a question, see the class."""
        return cls(
            tower=log.vision_flops / 1e9,
            once=log.encodes_once,
            encoder=encoder,
            measured={name: np.asarray(log.laid_out(name), np.float64) for name in MEASURED},
        )

    def part(self, rows: npt.NDArray[np.intp]) -> LogUsage:
        """That of some rows (n,)."""
        measured = {name: values[rows] for name, values in self.measured.items()}
        return replace(self, tower=self.tower[rows], measured=measured)

    def alone(self, language: Floats | None) -> dict[str, Floats]:
        """Name -> (n, K) what each option uses by itself, given GFLOPs of the language model."""
        found: dict[str, Floats] = {TOWER: self.tower}
        if language is not None:
            found[EVERYTHING] = language + self.tower
        return found | dict(self.measured)

    def spent(
        self, asked: Asked, *, reads: Sequence[str], language: Floats | None
    ) -> dict[str, Array]:
        """Name -> (n,) what asking these options used, all that was thrown away included.

        Args:
            asked: which options answered.
            reads: feature blocks that whoever chose reads; a peek is paid as
                `m3router.router.policies.costs.routed_costs` says.
            language: (n,) GFLOPs of the language model in all; None where they are not known.
        """
        each = np.where(asked.options, self.tower, 0.0)
        # Where one pass serves all options, they all tell the same.
        tower = each.max(axis=1) if self.once else each.sum(axis=1)
        found = {TOWER: np.asarray(tower)}
        if language is not None:
            own = self.encoder if ENCODED in reads else 0.0
            found[EVERYTHING] = np.asarray(language) + tower + own
        for name, values in self.measured.items():
            found[name] = Prices(alone=values, routed=routed_costs(values, reads)).of(asked)
        return found

    def described(self, options: Sequence[str], *, images: bool) -> dict[str, Any]:
        """What a report says of the tower, JSON-able; None where something is not known.

        Args:
            options: names of the options.
            images: whether the questions are about images.

        Returns:
            "once", "gflops" (option -> mean over the examples), "encoder_gflops" and "text".
        """
        means = self.tower.mean(axis=0)
        known = {
            name: float(mean) if np.isfinite(mean) else None
            for name, mean in zip(options, means.tolist(), strict=True)
        }
        encoder = float(self.encoder) if np.isfinite(self.encoder) else None
        found: dict[str, Any] = {"once": self.once, "gflops": known, "encoder_gflops": encoder}
        return {**found, "text": tower_sentence(found) if images else ""}


def tower_sentence(tower: Mapping[str, Any]) -> str:
    """What the two savings differ by, in words."""
    known = {name: each for name, each in tower["gflops"].items() if each is not None}
    if not known:
        return "The vision tower's cost is not known for this log."
    if len(known) < len(tower["gflops"]):
        return (
            f"The vision tower's cost is known of {', '.join(known)} only, so that savings of "
            "everything are not."
        )
    if tower["once"]:
        text = (
            f"The vision tower and projector cost {number(max(known.values()))} GFLOPs per image "
            "whatever the option: routing cannot save them, so that less is saved of everything "
            "than of the language model alone."
        )
    elif len(set(known.values())) == 1:
        text = (
            f"The vision tower costs {number(max(known.values()))} GFLOPs per answer at every "
            "option, and is paid again for every option that is asked."
        )
    else:
        low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        text = (
            f"The vision tower costs {number(known[low])} GFLOPs per answer at {low} and "
            f"{number(known[high])} at {high}: routing decides before encoding, so that only the "
            "options that are asked are paid for."
        )
    return text + _own_encoder(tower["encoder_gflops"])


def _own_encoder(gflops: float | None) -> str:
    if gflops is None:
        return (
            " What the router's own image encoder computes is not known, so that savings of "
            "everything are not either; `m3router featurize` says it of features made anew."
        )
    if not gflops:
        return ""
    return f" The router's own image encoder adds {number(gflops)} GFLOPs to each question."
