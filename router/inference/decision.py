"""Which option to ask, and why: plain values, without a model or torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which option to ask, and why.

    Attributes:
        option: The option to ask, or to ask first where `escalates`.
        estimates: Option to the estimated probability that it answers rightly, in the order of the
            options.
        costs: Option to what it is expected to cost for this image, in `cost_unit`.
        cost_unit: What costs count.
        reason: Which rule chose it, one sentence.
        guarantee: What is certified about answers that are routed so, one sentence; "" without, and
            where the rule was certified with costs that only the model itself can count.
        fallback: Why the reference option is used where no policy meets what was asked for; else
            "".
        escalates: Whether a cascade chose it, which may ask another option after the answer.
        familiarity: Share of held-out images of the training that are at least as unlike the
            images it learned from as this image is, in (0, 1]: a p-value, see
            :mod:`m3router.router.monitoring.familiarity`. None without an image, and where the
            router reads no more of it than the size, had too few images, or was trained before
            this was kept. For the embedded model also how like drawn scenes the image is, see
            :func:`m3router.router.monitoring.scenes.combined`.
        outside: Whether the image is outside what the model can read, as far as that is known: of
            the embedded model alone, which reads drawn scenes only.
        milliseconds: Wall-clock time by stage (``vision``, ``features``, ``route``); a batch's
            time is shared equally.
    """

    option: str
    estimates: Mapping[str, float]
    costs: Mapping[str, float]
    cost_unit: str
    reason: str
    guarantee: str = ""
    fallback: str = ""
    escalates: bool = False
    familiarity: float | None = None
    outside: bool = False
    milliseconds: Mapping[str, float]
