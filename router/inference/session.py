"""One question on its way: what is known of it, and which request the model gets next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from m3router.m3core.matryoshka.base import Answer, MultiScaleModel, Peek, Request, VisualEncoding
from m3router.router.cascade.rule import STEPS, Cascade
from m3router.router.inference.result import RoutedAnswer, flops_of
from m3router.router.policies.guarantee_text import told_by
from m3router.router.policies.policy import Policy


@dataclass(kw_only=True, eq=False)
class Session:
    """A question about an image, from before its encoding to its routed answer.

    Attributes:
        image: RGB.
        question: What is asked.
        rule: A scale of the model, a policy, a cascade, or None for the decider's own.
        digest: Equal for equal images only, such as a hash of the file; "" for not known.
        encoding: What the vision tower made of the image; None before `encode`. A session that
            begins with an encoding is not encoded again.
        decided_by: The policy or cascade that chose the scale; None before the decision, and
            where the scale was given.
        estimate: Scale to the router's probability, in the order of the grid; empty where the
            scale was given.
        familiarity: See :attr:`m3router.router.inference.result.RoutedAnswer.familiarity`.
        outside: See :attr:`m3router.router.inference.result.RoutedAnswer.outside`.
        request: What the model is asked next; None before the decision.
        peek: Goes on to the answer of the request; None where the request must be read.
        lost: Visual and other tokens of a peek that was thrown away.
        earlier: Answers before, which looked wrong.
        answer: The one that is given in the end; None before.
        milliseconds: Wall-clock time by stage.
    """

    image: Image.Image
    question: str
    rule: int | Policy | Cascade | None = None
    digest: str = ""
    encoding: VisualEncoding | None = None
    decided_by: Policy | Cascade | None = None
    estimate: dict[int, float] = field(default_factory=dict)
    familiarity: float | None = None
    outside: bool = False
    request: Request | None = None
    peek: Peek | None = None
    lost: tuple[int, int] = (0, 0)
    earlier: tuple[Answer, ...] = ()
    answer: Answer | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def encoded(self) -> VisualEncoding:
        """The encoding, after `encode`."""
        assert self.encoding is not None, "an image is encoded before anything is decided"
        return self.encoding

    @property
    def prompt(self) -> Request:
        """What the model is asked next, after the decision."""
        assert self.request is not None, "the scale is decided before the prompt is read"
        return self.request

    @property
    def is_final(self) -> bool:
        """Whether nothing can be asked after the answer to the request, whatever it says.

        Only then may an answer be passed on while it is still being written.
        """
        return not (
            isinstance(self.decided_by, Cascade)
            and bool(self.decided_by.rule.start)
            and len(self.earlier) < STEPS
            and self.prompt.scale != list(self.estimate)[-1]
        )

    def ask(self, scale: int) -> None:
        """Let the model be asked at a scale."""
        self.request = Request(encoding=self.encoded, question=self.question, scale=scale)

    def escalate(self, answer: Answer) -> bool:
        """Take the answer to the request, and see whether it is the one to give.

        Returns:
            Whether a finer scale must be asked, which is the new request; else the answer is final.
        """
        finer = self._finer(answer)
        if finer is None:
            self.answer = answer
            return False
        self.earlier = (*self.earlier, answer)
        self.ask(finer)
        return True

    def _finer(self, answer: Answer) -> int | None:
        if not isinstance(self.decided_by, Cascade):
            return None
        scales = list(self.estimate)
        costs = [self.encoded.tokens(scale) for scale in scales]
        following = self.decided_by.decide_after(
            np.array([self.estimate[scale] for scale in scales]),
            np.array(costs, dtype=np.float64),
            scales.index(self.prompt.scale),
            confidence=answer.confidence,
            logprob=answer.logprob,
            step=len(self.earlier),
        )
        return None if following is None else scales[following]

    def result(self, model: MultiScaleModel) -> RoutedAnswer:
        """The routed answer, once `escalate` has taken the last one.

        Args:
            model: That answered.
        """
        assert self.answer is not None, "a result has an answer"
        peeked, by = sum(self.lost), self.decided_by
        return RoutedAnswer(
            answer=self.answer,
            scale=self.prompt.scale,
            sufficiency=self.estimate,
            milliseconds=dict(self.milliseconds),
            flops={
                "language": flops_of(model, self.answer),
                "vision": model.shape.vision_flops(self.encoded.views),
                "peek": model.shape.answer_flops(peeked, 1) if peeked else 0.0,
                "earlier": float(sum(flops_of(model, one) for one in self.earlier)),
            },
            peek_tokens=self.lost[0],
            earlier=self.earlier,
            encoding=self.encoding,
            # A cascade that meets nothing is never made, so that only a policy falls back.
            fallback=by.reason if isinstance(by, Policy) and by.fallback else "",
            guarantee="" if by is None else told_by(by),
            familiarity=self.familiarity,
            outside=self.outside,
            question=self.question,
            image=self.image,
        )


class Encoder:
    """Runs the vision tower once for each distinct image; for any thread.

    Args:
        model: Encodes.
        kept: Encodings that are kept for later sessions about the same images, by their digest;
            0 shares them within one call only.
    """

    def __init__(self, model: MultiScaleModel, *, kept: int = 0) -> None:
        self._model = model
        self._kept = kept
        self._lock = threading.Lock()
        self._known: OrderedDict[str | int, VisualEncoding] = OrderedDict()

    def encode(self, sessions: Sequence[Session]) -> None:
        """Give each session its encoding.

        Args:
            sessions: Those with equal digests, or with the same object as their image, share one.
                Those that have an encoding are left alone.
        """
        new = [one for one in sessions if one.encoding is None]
        keys: list[str | int] = [one.digest or id(one.image) for one in new]
        images = {key: one.image for key, one in zip(keys, new, strict=True)}
        with self._lock:
            found = {key: self._known[key] for key in images if key in self._known}
        unseen = [key for key in images if key not in found]
        made = self._model.encode([images[key] for key in unseen]) if unseen else []
        found.update(zip(unseen, made, strict=True))
        for key, one in zip(keys, new, strict=True):
            one.encoding = found[key]
        with self._lock:
            for key in keys:
                if isinstance(key, str):  # an id may come again, for another image
                    self._known[key] = found[key]
                    self._known.move_to_end(key)
            while len(self._known) > self._kept:
                self._known.popitem(last=False)
