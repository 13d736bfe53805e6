"""What a log cannot teach or show, in sentences: said where it enters, before anything is trained.

A log of one option, of equal costs, of an option that was never right or of three groups is not
wrong, and nothing here refuses it. But numbers about it mean less than they seem to, or nothing.

Notation for shapes: N examples, K options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from m3router.data.errors import listed
from m3router.data.log.checks import scored_by_agreement
from m3router.data.log.oracle_log import OracleLog
from m3router.data.splits.split import FRACTIONS, SPLITS

_ROUNDING = 1e-9
FEW_GROUPS = 40
"""Groups below which the test split, a fifth of them, has next to nothing to tell."""
ENOUGH = 10
"""Answers below which nobody wonders that all are right, or all wrong."""


def log_warnings(log: OracleLog) -> list[str]:
    """Say what is degenerate about a log, one sentence each; none for most logs.

    Args:
        log: As it was labelled or imported, with its missing results.

    Returns:
        Sentences that name the options, datasets and numbers, and what to do.
    """
    if not len(log):
        return ["The log has no questions: label some, or import a table that holds rows."]
    return [*_options(log), *_costs(log), *_scores(log), *_missing(log), *_groups(log)]


def cost_warnings(log: OracleLog) -> list[str]:
    """Say between which options nothing can be saved, one sentence each."""
    return list(_costs(log))


def _options(log: OracleLog) -> Iterator[str]:
    if len(log.options) == 1:
        yield (
            f"There is one option, {log.options[0]}, so there is nothing to choose between: add "
            "the answers of another one."
        )


def same_options(log: OracleLog) -> list[list[str]]:
    """Options that cost the same and gave the same answer wherever both answered, in groups.

    Only where they gave as many answers as show it, `ENOUGH`.
    """
    answers = log.laid_out("answer")
    return _alike(log, lambda i, k: _both_said(answers, i, k))


def same_sentence(names: Sequence[str]) -> str:
    """What is wrong with options that change nothing, and what to do."""
    return (
        f"The options {', '.join(names)} cost the same and gave the same answer on every question: "
        "the option changes nothing. Check that the model or server honours it, or leave "
        f"{'all but one' if len(names) > 2 else 'one of them'} out and label again."
    )


def _both_said(answers: np.ndarray, i: int, k: int) -> bool:
    """Whether two options gave the same answers, and enough of them; answers are (N, K)."""
    pairs = [
        (one, other)
        for one, other in zip(answers[:, i], answers[:, k], strict=True)
        if isinstance(one, str) and isinstance(other, str)
    ]
    return len(pairs) >= ENOUGH and all(one == other for one, other in pairs)


def _costs(log: OracleLog) -> Iterator[str]:
    """Options between which nothing can be saved."""
    costs, same = log.costs, same_options(log)
    yield from map(same_sentence, same)
    known = costs[np.isfinite(costs)]
    if len(log.options) < 2 or not known.size:
        return
    if known.min() == known.max():
        cost = known[0]
        each = f"Every answer costs {_plain(cost)}" if cost else "Answers cost nothing"
        yield (
            f"{each}, whatever the option: choosing cannot save anything, only be right more "
            "often. Check the costs."
        )
        return
    ties = _alike(log, lambda i, k: True)
    for names in ties:
        if names not in same:
            yield (
                f"The options {', '.join(names)} cost the same on every question: between them "
                "only accuracy counts."
            )
    means = [column[np.isfinite(column)].mean() for column in costs.T if np.isfinite(column).any()]
    late = [k for k in range(1, len(means)) if means[k] < means[k - 1] * (1 - _ROUNDING)]
    if late and not ties and len(means) == len(log.options):
        first, after = late[0], late[0] - 1
        yield (
            f"The options are not in the order of their mean cost: {log.options[first]} costs "
            f"{_plain(means[first])} and {log.options[after]}, which stands before it, "
            f"{_plain(means[after])}. Rules that go by the order, such as 'stable', take the later "
            "one for the finer: check the costs, or put the options in another order."
        )


def _plain(value: float) -> str:
    """A cost with six digits at most, without a power of ten: 0.00001."""
    return np.format_float_positional(value, precision=6, fractional=False, trim="-")


def _alike(log: OracleLog, also: Callable[[int, int], bool]) -> list[list[str]]:
    """Options in groups of equal costs, those of two or more, where `also` holds of two."""
    groups: list[list[int]] = []
    for k in range(len(log.options)):
        for group in groups:
            both = np.isfinite(log.costs[:, [group[0], k]]).all(axis=1)
            tied = both.any() and (log.costs[both, group[0]] == log.costs[both, k]).all()
            if tied and also(group[0], k):
                group.append(k)
                break
        else:
            groups.append([k])
    return [[log.options[k] for k in group] for group in groups if len(group) > 1]


def _scores(log: OracleLog) -> Iterator[str]:
    """Options that were never or always right, and choices that never matter."""
    scores = log.scores
    known = scores[np.isfinite(scores)]
    if len(log) < ENOUGH or not known.size or scored_by_agreement(log.metadata):
        return  # by agreement, the finest option is right by definition
    if known.max() == 0:
        yield (
            f"No option is right on any of the {len(log)} questions: check the model, its answers "
            "and the metric. No router can help."
        )
        return
    if known.min() == 1:
        yield (
            f"Every option is right on every one of the {len(log)} questions: the cheapest, "
            f"{log.options[0]}, suffices. Take harder questions to learn from."
        )
        return
    whole = scores[np.isfinite(scores).all(axis=1)]
    if len(log.options) > 1 and len(whole) and (whole == whole[:, :1]).all():
        yield (
            "All options have the same score on every question, so that the choice never matters: "
            "use the cheapest, or check whether the answers are of different options."
        )
        return
    if not log.unknown.any():
        yield from _constants(log)


def _constants(log: OracleLog) -> Iterator[str]:
    """Options of one score everywhere."""
    found: dict[tuple[float, int], list[str]] = {}
    for k, option in enumerate(log.options):
        own = log.scores[np.isfinite(log.scores[:, k]), k]
        if len(own) >= ENOUGH and own.min() == own.max():
            found.setdefault((float(own[0]), len(own)), []).append(option)
    for (score, count), names in found.items():
        many = len(names) > 1
        them, their, are = ("them", "their", "are") if many else ("it", "its", "is")
        who = f"Option{'s' if many else ''} {', '.join(names)}"
        if score == 0:
            yield (
                f"{who} {are} not right on any of {their} {count} questions: check {their} "
                f"answers and their metric, or leave {them} out."
            )
        elif score == 1:
            yield (
                f"{who} {are} right on all of {their} {count} questions: no other option can be "
                "more accurate, only cheaper."
            )
        else:
            yield (
                f"{who} score{'' if many else 's'} {score:g} on all of {their} {count} questions, "
                f"so there is nothing about {them} to learn: check how "
                f"{'they were' if many else 'it was'} scored."
            )


def _missing(log: OracleLog) -> Iterator[str]:
    """Options without results, and logs without one complete question."""
    if log.unknown.any() or log.complete.all():
        return
    has = np.isfinite(log.scores) & np.isfinite(log.costs)
    counts = has.sum(axis=0)
    silent = [name for name, count in zip(log.options, counts, strict=True) if not count]
    if silent:
        many = "s" if len(silent) > 1 else ""
        yield (
            f"Option{many} {', '.join(silent)} {'have' if many else 'has'} no score on any of the "
            f"{len(log)} questions: label or score {'them' if many else 'it'}, or leave "
            f"{'them' if many else 'it'} out of the log."
        )
    elif not log.complete.any():
        shown = ", ".join(
            f"{name} {count}" for name, count in zip(log.options, counts, strict=True)
        )
        yield (
            f"No question has a result at every option (of {len(log)}: {shown}), so that nothing "
            "can be trained: label what is missing, or leave an option out of the log."
        )
    else:
        yield from _emptied(log)


def _emptied(log: OracleLog) -> Iterator[str]:
    """Datasets of which nothing is left without incomplete questions."""
    datasets = log.datasets.astype(str)
    kept = set(datasets[log.complete].tolist())
    lost = [name for name in dict.fromkeys(datasets.tolist()) if name not in kept]
    if lost:
        yield (
            f"No question of {'the dataset' if len(lost) == 1 else 'the datasets'} {listed(lost)} "
            "has a result at every option: without incomplete questions (--gaps drop) nothing is "
            "learned from them."
        )


def _groups(log: OracleLog) -> Iterator[str]:
    """Too few groups for a split, and datasets too small to be in each part."""
    groups = log.groups.astype(str)
    count = len(set(groups.tolist()))
    if count < len(SPLITS):
        yield (
            f"There {_are(count, 'group')} of questions, too few for a split into "
            f"{', '.join(SPLITS)}: label more, or check the groups."
        )
        return
    if count < FEW_GROUPS:
        tested = max(1, round(FRACTIONS[-1] * count))
        yield (
            f"There {_are(count, 'group')} of questions, of which about {tested} will be tested "
            "on: numbers from so few say little."
        )
    datasets = log.datasets.astype(str)
    names = sorted(set(datasets.tolist()))
    sizes = {name: len(set(groups[datasets == name].tolist())) for name in names}
    rare = [f"{name} {size}" for name, size in sizes.items() if size < len(SPLITS)]
    if len(names) > 1 and rare:
        yield (
            f"Of {len(names)} datasets, {len(rare)} {'has' if len(rare) == 1 else 'have'} fewer "
            f"than {len(SPLITS)} groups ({listed(rare)}), too few to be in every part of a split: "
            "what is said by dataset does not hold for them."
        )


def _are(count: int, what: str) -> str:
    return f"is {count} {what}" if count == 1 else f"are {count} {what}s"


LONE = 0.99
"""A benchmark whose groups are fewer than this share of its questions has groups."""
SEVERAL_QUESTIONS = (
    "amber", "chartqa", "docvqa", "gqa", "hallusionbench", "infovqa", "infographicvqa", "mme",
    "ocrvqa", "pope", "seedbench_img", "textvqa", "visualgenome", "vqav2",
)  # fmt: skip
"""Benchmarks, by the beginning of their names, that ask several questions about most images."""
FEWEST = 20
"""Questions below which a benchmark is a sample that need not hold an image twice."""


def lone_groups(
    groups: Sequence[str] | np.ndarray, datasets: Sequence[str] | np.ndarray
) -> list[str]:
    """Warn of benchmarks whose groups are obviously none: one image, yet every question alone.

    Tools save an image once per question, as VLMEvalKit does (``POPE/0.jpg``, ``POPE/1.jpg``), so
    that its name does not tell that six questions of POPE share it.

    Args:
        groups: The group of each example, shape (N,).
        datasets: Its dataset, shape (N,).

    Returns:
        A sentence for each dataset, empty where there is nothing to say.
    """
    seen: dict[str, list[str]] = {}
    for group, dataset in zip(groups, datasets, strict=True):
        seen.setdefault(str(dataset), []).append(str(group))
    told = []
    for dataset, names in seen.items():
        known = _bare(dataset).startswith(tuple(map(_bare, SEVERAL_QUESTIONS)))
        if known and len(names) >= FEWEST and len(set(names)) >= LONE * len(names):
            told.append(
                f"{dataset} asks several questions about an image, but its {len(names)} questions "
                f"are in {len(set(names))} groups: they do not tell which questions share an "
                "image, so a split may have one image on both sides, and results look better than "
                "they are. Give the benchmark's own image ids as groups (`m3router import table` "
                "with a column 'group'), or an official split (`train --split`)"
            )
    return told


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
