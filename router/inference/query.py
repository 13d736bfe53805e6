"""What is asked of whatever answers, and what it serves: plain values."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from m3router.m3core.matryoshka.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Query:
    """One question that was let in. At most one of `scale`, `budget`, `max_regret` is given.

    Attributes:
        id: Of the request, unique.
        image: The image, RGB.
        digest: Equal for equal images only, such as a hash of the file, so that one need not be
            encoded twice; "" for not known.
        question: What is asked, not empty.
        scale: Answer at this scale of the grid instead of routing.
        budget: Route within so many visual tokens on average instead of by the server's policy.
        max_regret: Route so that at most this share of answers is lost, as certified on the run's
            calibration split.
        max_tokens: Longest answer in tokens; None for the model's own limit.
        stop: Strings before which the answer ends, none of them empty.
        sampling: How its tokens are drawn; None for the likeliest ones.
        seconds: Within which it must be answered.
    """

    id: str
    image: Image.Image
    question: str
    scale: int | None = None
    budget: float | None = None
    max_regret: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling | None = None
    seconds: float = 60.0
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a backend serves.

    Attributes:
        model: Name of the model.
        revision: Its revision.
        scales: Of its grid, coarsest first.
        router: Fingerprint of the router.
        policy: Name of the policy.
        max_tokens: Longest answer in tokens.
        guarantee: What is certified about the policy, one sentence; "" without.
    """

    model: str
    revision: str
    scales: tuple[int, ...]
    router: str
    policy: str
    max_tokens: int
    guarantee: str = ""
