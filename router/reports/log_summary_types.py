"""What an inspection of an oracle log says, as plain records.

Notation for shapes: n examples of one dataset, K options, cheapest first.

An example is *complete* when every option has a score and a cost. Counts and the accuracy of the
answers there are use all rows; oracles and what stands beside them use complete examples only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from m3router.data.scoring.mme import MmeSums
from m3router.router.metrics.paired_bootstrap import Estimate
from m3router.router.reports.error_groups import ErrorGroup
from m3router.router.text.words import Words

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class ScaleCounts:
    """One option on one dataset, over all answers there are.

    Attributes:
        scale: The option.
        answered: Answers with a score.
        errors: Generations that failed.
        missing: Examples without a row: never asked.
        accuracy: Mean score of the answers.
        cost: Mean cost of the answers, in the log's cost unit; None without answers.
        gflops: Mean GFLOPs of the language model where they are known; None elsewhere.
        fixed: Mean score over the complete examples.
        fixed_cost: Mean cost over the complete examples.
    """

    scale: str
    answered: int
    errors: int
    missing: int
    accuracy: Estimate
    cost: float | None
    gflops: float | None
    fixed: Estimate
    fixed_cost: Estimate


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The oracle under one rule, over the complete examples.

    Attributes:
        rule: A name in `m3router.router.metrics.oracles.RULES`.
        accuracy: Mean score.
        cost: Mean cost.
        corrected_accuracy: Corrected for chance; None where there is no correction, or where it
            is not above the best fixed option (`first_correct`) or the finest (`stable`).
        corrected_cost: The cost that goes with it.
        smallest: Examples by smallest sufficient option (K), and last the number of those where
            none suffices.
    """

    rule: str
    accuracy: Estimate
    cost: Estimate
    corrected_accuracy: Estimate | None
    corrected_cost: Estimate | None
    smallest: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """How often the answers of two options differ.

    Attributes:
        coarse: The cheaper option.
        fine: The other.
        answers: Examples with an answer recorded at both.
        differ: Of these, how many differ after trimming and ignoring case.
    """

    coarse: str
    fine: str
    answers: int
    differ: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """What going from one option to a finer one changes.

    Attributes:
        coarse: The cheaper option.
        fine: The other.
        scored: Examples with a score at both.
        right_to_wrong: Right at the coarser option, wrong at the finer one.
        wrong_to_right: The reverse.
        lost: `right_to_wrong` as a share of `scored`, with its interval.
        won: `wrong_to_right` as a share of `scored`.
    """

    coarse: str
    fine: str
    scored: int
    right_to_wrong: int
    wrong_to_right: int
    lost: Estimate
    won: Estimate


@dataclass(frozen=True, kw_only=True)
class OptionUsage:
    """What the answers of one option used, means over all of them; None where not known of all.

    Attributes:
        scale: The option.
        answered: Answers with a score.
        cost: In the log's cost unit.
        image_tokens: Tokens of the prompt that stand for the image.
        counted: Share of answers whose image tokens were counted in the prompt, in [0, 1].
        reported: Share of those that a server reported.
        derived: Share of those derived from a request without the image.
        cached: Share of all tokens of the prompts that a server had read before.
        seconds: Wall-clock time.
        attempts: Requests that were sent.
        price: Money, in the unit of the prices that were given.
        gflops: GFLOPs of the language model.
        tower_gflops: GFLOPs of vision tower and connector.
    """

    scale: str
    answered: int
    cost: float | None
    image_tokens: float | None
    counted: float
    reported: float
    derived: float
    cached: float | None
    seconds: float | None
    attempts: float | None
    price: float | None
    gflops: float | None
    tower_gflops: float | None


@dataclass(frozen=True, kw_only=True)
class Tie:
    """How often an option costs the same as the next one.

    Attributes:
        coarse: The option.
        fine: The next one.
        both: Questions with a cost at both.
        tied: Of these, how many cost the same.
        answers: Of those that tie, how many have an answer recorded at both.
        same: Of these, how many have the same answer after trimming and ignoring case.
    """

    coarse: str
    fine: str
    both: int
    tied: int
    answers: int
    same: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One dataset, or all together.

    Attributes:
        dataset: Its name; "all" for all together, which is the first part.
        examples: n.
        complete: How many of them are.
        images: Groups.
        scales: One entry per option.
        oracles: One entry per rule that can be applied: `matches_full` needs answers.
    """

    dataset: str
    examples: int
    complete: int
    images: int
    scales: tuple[ScaleCounts, ...]
    oracles: tuple[Oracle, ...]


@dataclass(frozen=True, kw_only=True)
class Expensive:
    """An example that cost much, summed over its options; what is not known is None."""

    id: str
    dataset: str
    question: str
    cost: float
    gflops: float | None
    text_tokens: float | None
    answer_tokens: float | None
    references: tuple[str, ...] | None = None
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class MmeScore:
    """MME's published score of one option; see :mod:`m3router.data.scoring.mme`.

    Attributes:
        scale: The option.
        sums: Accuracy + accuracy+ of each subtask, and their sums.
    """

    scale: str
    sums: MmeSums


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Everything that `m3router inspect` shows.

    Attributes:
        options: Cheapest first.
        cost_unit: What costs count.
        rules: The rules asked for.
        draws: Of the bootstrap.
        parts: All examples, then every dataset, largest first; only the first where there is
            a single dataset.
        pairs: Every two options, over all examples.
        steps: Neighbouring options, and last from the coarsest to the finest.
        causes: Why generations failed, most frequent first.
        expensive: The most expensive examples, by GFLOPs where known, else by cost.
        mme: MME's published scores, one entry per option; empty where there is none of its
            questions.
        words: That fit the log.
        usage: What answers used, one entry per option, over all examples.
        ties: Neighbouring options, over all examples.
    """

    options: tuple[str, ...]
    cost_unit: str
    rules: tuple[str, ...]
    draws: int
    parts: tuple[Part, ...]
    pairs: tuple[Pair, ...]
    steps: tuple[Step, ...]
    causes: tuple[ErrorGroup, ...]
    expensive: tuple[Expensive, ...]
    mme: tuple[MmeScore, ...] = ()
    words: Words = Words()
    usage: tuple[OptionUsage, ...] = ()
    ties: tuple[Tie, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-able mapping; an undefined number is None."""
        document = asdict(self)
        del document["words"]  # they are for sentences, which the tables make
        return document
