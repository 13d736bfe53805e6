"""How far a labelling run has come, and what it spent its time on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.batching import Batch

REPEATS = 5


@dataclass(kw_only=True)
class LabelStats:
    """What a run computed.

    Attributes:
        seconds: Wall-clock time by stage: ``pictures`` (waiting for images to be read),
            ``encode``, ``answer``, ``keep`` (scoring and journal), and what a caller adds.
        padded: Positions of prompts that the language model read, padding included.
        used: Those that were no padding.
        answered: Tokens generated, or scored.
        flops: Operations of tower, connector and language model that cannot be avoided: each
            image encoded once, each distinct prefix and each question read once.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    padded: int = 0
    used: int = 0
    answered: int = 0
    flops: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def count(self, batch: Batch) -> None:
        """Take a batch into account."""
        self.padded += batch.load.padded
        self.used += batch.load.used
        self.answered += sum(answer.answer_tokens for answer in batch.answers)

    @classmethod
    def joined(cls, several: Sequence[LabelStats]) -> LabelStats:
        """What processes computed together; the time by stage is the mean over them."""
        seconds: dict[str, float] = {}
        for one in several:
            for name, spent in one.seconds.items():
                seconds[name] = seconds.get(name, 0.0) + spent / len(several)
        return cls(
            seconds=seconds,
            padded=sum(one.padded for one in several),
            used=sum(one.used for one in several),
            answered=sum(one.answered for one in several),
            flops=sum(one.flops for one in several),
        )

    def summary(self, examples: int, seconds: float) -> dict[str, Any]:
        """The report of a run, JSON values.

        Args:
            examples: Labelled in this run.
            seconds: Its wall-clock time.
        """
        return {
            "examples": examples,
            "seconds": round(seconds, 3),
            "examples_per_second": examples / seconds if seconds else None,
            "tokens_per_second": (self.used + self.answered) / seconds if seconds else None,
            "padding_share": 1 - self.used / self.padded if self.padded else 0.0,
            "seconds_by_stage": {name: round(spent, 3) for name, spent in self.seconds.items()},
            "flops": self.flops,
        }


@dataclass(kw_only=True)
class LabelProgress:
    """How far a labelling run has come.

    Attributes:
        total: Examples of this process, those of earlier runs included.
        done: Examples labelled, those of earlier runs included.
        errors: Examples with an error record.
        seconds: Time spent in this run.
        began: Examples that earlier runs had labelled; None before that is known.
        scores: Sum of the scores and number of answers so far, by scale.
        stats: What this run computed.
    """

    total: int
    done: int = 0
    errors: int = 0
    seconds: float = 0.0
    began: int | None = None
    scores: dict[str, tuple[float, int]] = field(default_factory=dict)
    stats: LabelStats = field(default_factory=LabelStats)

    @property
    def accuracy(self) -> dict[str, float]:
        """Mean score so far by scale, in [0, 1]."""
        return {scale: total / count for scale, (total, count) in self.scores.items() if count}

    @property
    def note(self) -> str:
        """Accuracy so far by scale, errors and examples a second, for a bar."""
        parts = [f"{scale}:{share:.2f}" for scale, share in self.accuracy.items()]
        if self.errors:
            parts.append(f"errors:{self.errors}")
        if self.seconds and self.began is not None:
            parts.append(f"{(self.done - self.began) / self.seconds:.1f}/s")
        return " ".join(parts)

    def count(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the journalled rows of whole examples into account, example after example."""
        last, failed = None, False
        for row in rows:
            if row["example_id"] != last:
                self.errors += failed
                self.done += 1
                last, failed = row["example_id"], False
            failed |= row["error"] is not None
            if row["score"] is not None:
                total, count = self.scores.get(row["scale"], (0.0, 0))
                self.scores[row["scale"]] = (total + row["score"], count + 1)
        self.errors += failed


def matmul_rate(model: MultiScaleModel) -> float:
    """Operations per second of a large matrix product on a model's device, in its number format.

    The best of a few products; a model without tensors is taken to run on the CPU in float32.
    """
    inner = getattr(model, "model", None)
    device = getattr(inner, "device", torch.device("cpu"))
    dtype = getattr(inner, "dtype", torch.float32)
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(REPEATS):
        _finish(device)
        began = time.perf_counter()
        torch.mm(left, right)
        _finish(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
