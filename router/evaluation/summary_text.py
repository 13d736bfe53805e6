"""The result in plain sentences, a verdict first: whether routing pays here, or why not.

`label` has a log alone and says what there is to gain; `evaluate` and the report say what the
router gains of it. Both refuse to praise savings over answers that are no better than guesses.

Notation for shapes: n complete examples, K options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from m3router.router.estimators.base import Floats
from m3router.router.evaluation.documents import Document
from m3router.router.evaluation.price_curves import curve_prices, curve_rows
from m3router.router.metrics import choices, hull
from m3router.router.metrics.curves import Curves, curves
from m3router.router.metrics.paired_bootstrap import SHARE, Columns, Pair
from m3router.router.text import numbers
from m3router.router.text.words import Words, words_in

Estimate = Mapping[str, float | None]

FEW_IMAGES = 100
"""Images below which a reader is warned."""
NOTHING = 0.005
"""Gain in accuracy, averaged over budgets, that is not worth a router."""
BROAD = 0.02
"""Half a width of an interval of gains above which "not clearly better" is not "no better"."""
CANNOT, NO_HEADROOM, TOO_FEW, LOOKUP, PAYS, DOES_NOT_PAY, HEADROOM = (
    "cannot answer",
    "no headroom",
    "too few to tell",
    "lookup is as good",
    "routing pays",
    "routing does not pay",
    "headroom",
)
LOOKUPS = ("dataset lookup", "question-type lookup")


@dataclass(frozen=True)
class Verdict:
    """What to conclude.

    Attributes:
        kind: one of the names above.
        text: the same in a sentence or two, with the numbers.
    """

    kind: str
    text: str

    def to_dict(self) -> dict[str, str]:
        """As a JSON-able mapping."""
        return asdict(self)


def log_verdict(
    scores: Floats,
    costs: Floats,
    groups: np.ndarray,
    *,
    options: Sequence[str],
    chance: Floats,
    seed: int = 0,
    words: Words | None = None,
) -> Verdict:
    """What there is to gain by choosing, before anything is learned.

    Args:
        scores: (n, K) in [0, 1].
        costs: (n, K).
        groups: (n,) image of each example.
        options: names, cheapest first.
        chance: (n,) probability that a blind guess is right.
        seed: of the bootstrap.
        words: that fit the log; None says images and scales.
    """
    words = words or Words()
    if not len(scores):
        return Verdict(TOO_FEW, "No example has an answer at every option.")
    columns = Columns(groups, draws=500, seed=seed)
    for k, option in enumerate(options):
        columns.add(f"fixed/{option}", scores[:, k], bounds=SHARE)
    fixed = [columns.estimate(f"fixed/{option}").to_dict() for option in options]
    guessed = float(np.mean(chance))
    common = _before_routing(fixed, costs, options, guessed, columns.images, words)
    if common is not None:
        return common
    headroom = _headroom(columns, scores, costs)
    if headroom["high"] is None:
        return _too_few(columns.images, "whether choosing could gain anything", words)
    if headroom["high"] < NOTHING:
        return _no_headroom(headroom)
    best = int(choices.best_fixed(scores, costs))
    return Verdict(
        HEADROOM,
        f"There is something to gain: an oracle that always chose well would have "
        f"{_points(headroom)} of accuracy over mixing options at random, averaged over all "
        f"budgets, lucky guesses included. The best fixed option is {options[best]}, with "
        f"{numbers.percent(fixed[best]['value'])} % right. How much of that a router gets, "
        "`train` and `evaluate` say.",
    )


def evaluation_verdict(document: Document, *, chance: float) -> Verdict:
    """Whether the router of an evaluation is worth using.

    Args:
        document: with "rows", "metrics" and "baselines".
        chance: mean probability that a blind guess is right.
    """
    fixed = [row["accuracy"] for row in document["rows"] if row["kind"] == "fixed"]
    costs = np.array([[row["cost"]["value"] for row in document["rows"] if row["kind"] == "fixed"]])
    found, images = document["metrics"], int(document["n"]["test_groups"])
    words = words_in(document)
    common = _before_routing(fixed, costs, document["options"], chance, images, words)
    if common is not None:
        return common
    headroom, gain = found["headroom"], found["aiq_minus_fixed"]
    if headroom["high"] is not None and headroom["high"] < NOTHING:
        return _no_headroom(headroom)
    if gain["low"] is None:
        return _too_few(images, "whether the router gains anything", words)
    how_much = (
        f"at equal mean cost the router has {_points(gain)} of accuracy over mixing fixed options "
        "at random, averaged over all budgets"
    )
    if gain["low"] <= 0 < gain["high"]:
        if (gain["high"] - gain["low"]) / 2 > BROAD or images < FEW_IMAGES:
            return _too_few(images, f"whether routing pays: {how_much}", words)
        return Verdict(DOES_NOT_PAY, f"Routing does not clearly pay here: {how_much}.")
    if gain["high"] <= 0:
        return Verdict(DOES_NOT_PAY, f"Routing does not pay here: {how_much}. Use a fixed option.")
    name, lookup = _best_lookup(document)
    if lookup is not None and lookup["high"] is not None and lookup["high"] >= 0:
        return Verdict(
            LOOKUP,
            f"A lookup is as good: {how_much}, but so is the {name}, by nearly as much (it less "
            f"the router: {_points(lookup)}). Use the lookup; it reads no "
            f"{'image' if words.images else 'question'}.",
        )
    return Verdict(PAYS, f"Routing pays: {how_much}.")


def sentences(document: Document) -> list[str]:
    """The verdict and what stands behind it, in plain sentences."""
    # Evaluations from before there were verdicts have none.
    verdict = document.get("verdict", {"kind": "", "text": ""})
    told = [text for text in (verdict["text"], *document.get("warnings", ())) if text]
    if verdict["kind"] in (CANNOT, NO_HEADROOM):
        return told
    rows = {row["kind"]: row for row in document["rows"]}
    saved, unit = document["metrics"]["saved_at_99"], document["cost_unit"]
    goal, share, best = saved["row"], saved["calibrated"], rows["best_fixed"]
    if saved["policy"]["fallback"]:
        option = saved["policy"].get("reference", document["options"][-1])
        told.append(
            "No policy kept 99 % of the best fixed accuracy on the calibration split, so it "
            f"falls back to one option, {option}."
        )
    else:
        less = (
            f": {numbers.percent(share['value'])} % saved ({_ends(share)})"
            if share["value"] is not None
            else f"; {share.get('reason', 'what that saves is not known')}"
        )
        told.append(
            f"Told to keep 99 % of the best fixed option's accuracy, the router answers "
            f"{numbers.percent(goal['accuracy']['value'])} % right "
            f"({numbers.percent(goal['minus_best_fixed']['value'], signed=True)} points, "
            f"{_ends(goal['minus_best_fixed'], signed=True, level=_level(document))}) with "
            f"{numbers.number(goal['cost']['value'])} {unit} per answer instead of "
            f"{numbers.number(best['cost']['value'])}{less}."
        )
        if goal["accuracy"]["value"] < 0.99 * best["accuracy"]["value"]:
            told.append("That is less accuracy than it was told to keep.")
    return told


def few_images(images: int, words: Words | None = None) -> list[str]:
    """A warning where there are few test images, or groups."""
    if images >= FEW_IMAGES:
        return []
    many, wide = ("", "there are no intervals") if images == 1 else ("s", "intervals are wide")
    told = (
        f"Only {images} test image{many}: {wide}, and shares of a gap are not given. From "
        f"{FEW_IMAGES} images on, numbers settle."
    )
    return [(words or Words()).of(told)]


def answers_nothing(fixed: Sequence[Estimate], *, chance: float) -> bool:
    """Whether no option is clearly better than a blind guess, and this is clear.

    Args:
        fixed: accuracy of each option, with its interval.
        chance: mean probability that a blind guess is right.
    """
    return all(
        one["low"] is not None
        and one["high"] is not None
        and (one["low"] <= chance or one["low"] <= 0)
        and one["high"] <= chance + 0.1
        for one in fixed
    )


def _before_routing(
    fixed: Sequence[Estimate],
    costs: Floats,
    options: Sequence[str],
    chance: float,
    images: int,
    words: Words,
) -> Verdict | None:
    """What can be said from the fixed options alone; None where a router is worth a thought."""
    if len(options) == 1:
        return Verdict(NO_HEADROOM, f"There is one option, {options[0]}: nothing to choose.")
    most = max(fixed, key=lambda one: one["value"] or 0.0)
    right = f"{numbers.percent(most['value'])} % right at best ({_ends(most)})"
    guess = f"; a blind guess has {numbers.percent(chance)} %" if chance > 0 else ""
    if answers_nothing(fixed, chance=chance):
        return Verdict(
            CANNOT,
            f"The model cannot answer these questions at any option: {right}{guess}. Check "
            "the model, its prompt and the metric; no router can help.",
        )
    if all(one["low"] is None or one["low"] <= max(chance, 0.0) for one in fixed):
        what = f"whether the model can answer these questions: {right}{guess}"
        return _too_few(images, what, words)
    means = costs.mean(axis=0)
    if not means.max() > means.min():
        best = options[int(np.argmax([one["value"] or 0.0 for one in fixed]))]
        return Verdict(
            NO_HEADROOM,
            f"All options cost the same ({numbers.number(float(means[0]))}), so that nothing can "
            f"be saved: use the most accurate one, {best}.",
        )
    return None


def _headroom(columns: Columns, scores: Floats, costs: Floats) -> dict[str, float | None]:
    """AIQ of the raw oracle less that of mixing fixed options."""
    cost, accuracy = curve_rows(scores, scores, costs, curve_prices(scores, costs, points=64))
    columns.add("oracle-cost", cost)
    columns.add("oracle-accuracy", accuracy)
    columns.add("fixed-cost", costs)
    columns.add("fixed-accuracy", scores)
    means, mixed = costs.mean(axis=0), hull.worth_mixing(scores, costs)
    low, high = float(means.min()), float(means.max())

    def area(name: str, kept: Any = slice(None)) -> Pair:
        pair = columns.pair(f"{name}-cost")
        return pair.then(
            lambda x, y: Curves.area(curves(x[..., kept], y[..., kept]), low, high),
            columns.pair(f"{name}-accuracy"),
        )

    gap = area("oracle").then(np.subtract, area("fixed", mixed))
    return columns.estimated(gap).to_dict()


def _best_lookup(document: Document) -> tuple[str, Estimate | None]:
    """The lookup of the largest AIQ, and its difference to the router."""
    found = {
        name: arm["metrics"]["aiq_minus_router"]
        for name, arm in document["baselines"].items()
        if name in LOOKUPS and arm.get("metrics")
    }
    known = {name: one for name, one in found.items() if one["value"] is not None}
    if not known:
        return "", None
    name = max(known, key=lambda one: known[one]["value"])
    return name, known[name]


def _too_few(images: int, what: str, words: Words) -> Verdict:
    few = f"{images} images are" if images != 1 else "1 image is"
    return Verdict(TOO_FEW, f"{words.of(few)} too few to tell {what}.")


def _no_headroom(headroom: Estimate) -> Verdict:
    return Verdict(
        NO_HEADROOM,
        f"There is no headroom: even an oracle would have only {_points(headroom)} of accuracy "
        "over mixing fixed options at random, averaged over all budgets. Use a fixed option.",
    )


def _points(one: Estimate) -> str:
    """A difference in points with its interval."""
    value = numbers.percent(one["value"], signed=True, digits=2)
    return f"{value} points ({_ends(one, signed=True, digits=2)})"


def _ends(one: Estimate, *, signed: bool = False, digits: int = 1, level: str = "") -> str:
    """An interval inside a sentence, in words where there is none."""
    ends = numbers.interval(one, signed=signed, digits=digits)
    if ends == numbers.MISSING:
        return "no interval is known"
    return f"{level} % interval {ends}" if level else ends


def _level(document: Document) -> str:
    return f"{100 * float(document['bootstrap']['level']):.0f}"
