"""What the gateway asks of whatever decides, and what it is told: values without torch.

The gateway's own processes load neither torch nor an encoder. A :class:`Decider` does, beside them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from m3router.router.cascade.rule import Cascade
from m3router.router.inference.decision import Decision

MOST_CHARACTERS = 1 << 16
"""Longest question that is judged: reading it takes a moment of everybody's time."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a request wants to be routed: at most one of these, none for the server's own policy.

    Attributes:
        option: Ask this option.
        budget: Decide within so much mean cost, as calibrated on the run's calibration split.
        max_loss: Guarantee that accuracy is at most this share of questions below the reference
            option's.
        policy: Name of another of the run's policies.
    """

    option: str | None = None
    budget: float | None = None
    max_loss: float | None = None
    policy: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedImage:
    """An image that a question is about, decoded only where somebody must look at it.

    Attributes:
        size: Width and height as its header says, upright.
        pixels: Decodes it: RGB, upright, of that size or smaller.
        digest: Equal for equal images only, such as a hash of the file; "" for not known.
    """

    size: tuple[int, int]
    pixels: Callable[[], Awaitable[Image.Image]]
    digest: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A question that an option is wanted for.

    Attributes:
        question: Not empty.
        image: None for a question without one.
        wish: How it wants to be routed.
        again: Whether another option can be asked after the answer. Where it cannot, the plain
            policy that goes with a cascade decides, which was calibrated for one answer.
    """

    question: str
    image: AskedImage | None
    wish: Wish = field(default_factory=Wish)
    again: bool = True


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was decided.

    Attributes:
        decision: Which option to ask, and why.
        cascade: What decides after the answer whether another option is asked; None where
            none does.
    """

    decision: Decision
    cascade: Cascade | None = None


@dataclass(frozen=True, kw_only=True)
class RouterFacts:
    """What decides, once started.

    Attributes:
        options: Names, cheapest first by name.
        cost_unit: What costs count.
        model: Name of the model that was labelled.
        revision: Its revision; "" where the log does not say.
        router: Fingerprint of the router.
        policy: Name of the server's own policy.
        guarantee: What is certified about it, one sentence; "" without.
        needs_image: Whether nothing can be decided without an image.
        needs_pixels: Whether it looks at pixels; else an image's size is enough.
    """

    options: tuple[str, ...]
    cost_unit: str
    model: str
    revision: str
    router: str
    policy: str
    guarantee: str
    needs_image: bool
    needs_pixels: bool


class Decider(Protocol):
    """Decides, many questions at a time."""

    async def start(self) -> RouterFacts:
        """Load and warm up; returns when questions can be decided.

        Raises:
            M3RouterError: Where router, policy or encoder cannot be loaded.
        """
        ...

    async def decide(self, asked: Asked) -> Judged:
        """Decide for one question; closing the task gives it up.

        Raises:
            DataError: If the wish cannot be met or calibrated here, or the question is empty.
            MismatchError: If there is no such option or policy.
            UnavailableError: If what decides is gone or broke down. The gateway then goes on, or
                refuses, as it was configured.
            Exception: Whatever decoding the image raises, where that is needed.
        """
        ...

    def load(self) -> dict[str, float]:
        """Questions "waiting", and "cached" encodings."""
        ...

    async def stop(self) -> None:
        """Let go."""
        ...
