"""The result in plain sentences, a verdict first: whether routing pays here, or why not.

`label` has a log alone and says what there is to gain; `evaluate`, `advise` and the report say what
the router gains of it, in five sentences (`advice`). All refuse to praise savings over answers that
are no better than guesses.

Notation for shapes: n complete examples, K options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from m3router.data.log.oracle_log import OracleLog
from m3router.data.splits.split import FRACTIONS
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.documents import Document
from m3router.router.evaluation.price_curves import curve_prices, curve_rows
from m3router.router.metrics import choices, hull
from m3router.router.metrics.curves import Curves, curves
from m3router.router.metrics.paired_bootstrap import SHARE, Columns, Pair
from m3router.router.policies.guarantee import (
    CONFIDENCE,
    LOSSES,
    certifiable_loss,
    least_images,
)
from m3router.router.policies.guarantee_text import told_in
from m3router.router.text import numbers
from m3router.router.text.words import Words, words_in, words_of

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
SIMPLE = (*LOOKUPS, "nearest neighbours", "calibrated cascade")
"""Baselines that a reader would try first."""
AHEAD, LEVEL_WITH, BEHIND, UNSURE = (
    "ahead of",
    "not clearly ahead of",
    "behind",
    "too close, with so few images, to be told apart from",
)


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


def verdict_of(log: OracleLog) -> Verdict:
    """`log_verdict` of the examples of a log that every option answered."""
    whole = np.asarray(log.complete)
    return log_verdict(
        log.scores[whole],
        log.costs[whole],
        log.groups[whole],
        options=log.options,
        chance=log.chance[whole],
        words=words_of(log),
    )


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
    there = "There is" if (headroom["low"] or 0) > 0 else "There may be"
    return Verdict(
        HEADROOM,
        f"{there} something to gain: an oracle that always chose well would have "
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
    common = _before_routing(fixed, costs, document["options"], chance, images, words, test=True)
    if common is not None:
        return common
    headroom, gain = found["headroom"], found["aiq_minus_fixed"]
    if headroom["high"] is not None and headroom["high"] < NOTHING:
        return _no_headroom(headroom)
    if gain["low"] is None:
        return _too_few(images, "whether the router gains anything", words, test=True)
    how_much = (
        f"at equal mean cost the router has {_points(gain)} of accuracy over mixing fixed options "
        "at random, averaged over all budgets"
    )
    if gain["low"] <= 0 < gain["high"]:
        if (gain["high"] - gain["low"]) / 2 > BROAD or images < FEW_IMAGES:
            return _too_few(images, f"whether routing pays: {how_much}", words, test=True)
        return Verdict(DOES_NOT_PAY, f"Routing does not clearly pay here: {how_much}.")
    if gain["high"] <= 0:
        return Verdict(DOES_NOT_PAY, f"Routing does not pay here: {how_much}.")
    name, lookup = _best_lookup(document)
    if lookup is not None and lookup["high"] is not None and lookup["high"] >= 0:
        return Verdict(
            LOOKUP,
            f"A lookup is as good: {how_much}, but so has the {name}, by nearly as much (it less "
            f"the router: {_points(lookup)}), and it reads "
            f"{_read_by(name, words)}.",
        )
    return Verdict(PAYS, f"Routing pays: {how_much}.")


def sentences(document: Document, *, run: str = "RUN") -> list[str]:
    """The five sentences of `advice`, with what to be careful about behind the first."""
    first, *others = advice(document, run=run)
    return [text for text in (first, *document.get("warnings", ()), *others) if text]


def advice(document: Document, *, run: str = "RUN") -> list[str]:
    """What an evaluation says, in five sentences.

    Whether routing pays against mixing fixed options at equal cost; what it saves against the best
    fixed option, and loses; how it compares with simple baselines; what is certified, or why
    nothing is; and what to do next.

    Args:
        document: see `m3router.router.evaluation.evaluate.evaluate`.
        run: the run folder, as it is typed in commands.

    Returns:
        Five sentences; the first is empty where an evaluation from before has no verdict.
    """
    return [
        str(_verdict_of(document)["text"]),
        against_best_fixed(document),
        against_baselines(document),
        certificate(document, run=run),
        next_step(document, run=run),
    ]


def against_best_fixed(document: Document) -> str:
    """What the router saves against the best fixed option, at which loss."""
    rows = {row["kind"]: row for row in document["rows"]}
    best, unit = rows["best_fixed"], document["cost_unit"]
    if _verdict_of(document)["kind"] in (CANNOT, NO_HEADROOM):
        right, spent = _right(best["accuracy"]), _spent(best["cost"], unit)
        return (
            f"The best fixed option, {document['best_fixed']}, answers {right} with {spent} per "
            "answer."
        )
    saved = document["metrics"]["saved_at_99"]
    goal, share = saved["row"], saved["calibrated"]
    if saved["policy"]["fallback"]:
        option = saved["policy"].get("reference", document["options"][-1])
        return (
            "No policy kept 99 % of the best fixed accuracy on the calibration split, so the "
            f"router falls back to one option, {option}."
        )
    less = (
        f": {numbers.percent(share['value'])} % saved ({_ends(share)})"
        if share["value"] is not None
        else f"; {share.get('reason', 'what that saves is not known')}"
    )
    missed = goal["accuracy"]["value"] < 0.99 * best["accuracy"]["value"]
    images = int(document["n"]["test_groups"])
    told = "Told to keep 99 % of the best fixed option's accuracy"
    if _verdict_of(document)["kind"] == TOO_FEW:
        few = words_in(document).of(f"{images} test image{'' if images == 1 else 's'}")
        told = f"On {few}, too few to rely on, and told{told.removeprefix('Told')}"
    return (
        f"{told}, the router answers "
        f"{numbers.percent(goal['accuracy']['value'])} % right "
        f"({numbers.percent(goal['minus_best_fixed']['value'], signed=True)} points, "
        f"{_ends(goal['minus_best_fixed'], signed=True, level=_level(document))}) with "
        f"{_spent(goal['cost'], unit)} per answer instead of "
        f"{numbers.number(best['cost']['value'])}{less}"
        f"{'; that is less accuracy than it was told to keep' if missed else ''}."
    )


def _spent(cost: Estimate, unit: str) -> str:
    """A mean cost with its unit, or as a cost where it has none."""
    value = numbers.number(cost["value"])
    return f"{unit} {value}" if unit in ("cost", "price", "rank") else f"{value} {unit}"


def _right(accuracy: Estimate) -> str:
    """An accuracy with its interval, in words."""
    spread = "" if accuracy["low"] is None else f" ({_ends(accuracy)})"
    return f"{numbers.percent(accuracy['value'])} % right{spread}"


def against_baselines(document: Document) -> str:
    """How the router compares with what a few lines of code would do, averaged over budgets."""
    if _verdict_of(document)["kind"] in (CANNOT, NO_HEADROOM):
        return "So no lookup, nearest neighbours or cascade has anything to gain here either."
    told: dict[str, list[str]] = {}
    missing: list[str] = []
    for name in SIMPLE:
        method = document["baselines"].get(name, {})
        ahead = (method.get("metrics") or {}).get("aiq_minus_router")
        if ahead is None or ahead["value"] is None:
            missing.append(f"{_article(name)}{name}")
            continue
        behind = {
            "value": -ahead["value"],
            "low": None if ahead["high"] is None else -ahead["high"],
            "high": None if ahead["low"] is None else -ahead["low"],
        }
        told.setdefault(_standing(behind), []).append(f"{_article(name)}{name} ({_gap(behind)})")
    if not told:
        return "No simple baseline can be compared with the router on this log."
    parts = [
        f"{how} {_and(told[how])}" for how in (AHEAD, LEVEL_WITH, BEHIND, UNSURE) if how in told
    ]
    left = f"; {_and(missing)} cannot be tried on this log" if missing else ""
    return (
        f"Against simple baselines, in points averaged over all budgets, the router is "
        f"{'; it is '.join(parts)}{left}."
    )


def _standing(behind: Estimate) -> str:
    """What the router is to a baseline that is so far behind it."""
    low, high = behind["low"], behind["high"]
    if low is None or high is None:
        return UNSURE
    if low > 0:
        return AHEAD
    return BEHIND if high < 0 else LEVEL_WITH


def _gap(one: Estimate) -> str:
    value = numbers.percent(one["value"], signed=True)
    return value if one["low"] is None else f"{value}, {_ends(one, signed=True)}"


def _article(name: str) -> str:
    return "" if name.endswith("s") else "a "


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def certificate(document: Document, *, run: str = "RUN") -> str:
    """What a policy or cascade of the run guarantees; else why nothing is, and what it takes."""
    if _verdict_of(document)["kind"] in (CANNOT, NO_HEADROOM):
        return "Nothing is certified, since a fixed option needs no certificate."
    rows = [row for row in document["rows"] if row["kind"] == "router"]
    rows += [row for row in document.get("escalation", {}).get("rows", ()) if row.get("policy")]
    words, images = words_in(document), _images_of(document, "calibrate")
    for row in rows:
        if sentence := told_in(row["policy"]):
            spent = _spent(row["cost"], document["cost_unit"])
            return f"{sentence.removesuffix('.')}; on the test split it spends {spent} per answer."
    tried = [row["policy"] for row in rows if _asked_for(row["policy"])]
    if tried:
        return _not_certified(tried[0], images, words)
    if images is None:
        return f"Nothing is certified: no guarantee was asked for ({_calibrate(run, 0.01)})."
    has = words.of(f"{images} image{'' if images == 1 else 's'}")
    loss = certifiable_loss(images)
    if loss is not None:
        return (
            f"Nothing is certified so far: the {has} of the calibration split may be enough for a "
            f"loss of at most {_in_points(loss)} ({_calibrate(run, loss)})."
        )
    least = {one: least_images(one) for one in (LOSSES[-1], LOSSES[0])}
    whole = _images_of(document)
    in_all = [numbers.round_up(one * (whole or 5 * images) / images) for one in least.values()]
    return words.of(
        f"Nothing can be certified: with {numbers.percent(CONFIDENCE, digits=0)} % confidence a "
        f"loss of at most {_in_points(LOSSES[-1])} takes {least[LOSSES[-1]]} images in the "
        f"calibration split even if nothing is lost, and it has {images}; that is about "
        f"{in_all[0]:,} labelled images in all, and about {in_all[1]:,} for "
        f"{_in_points(LOSSES[0])}."
    )


def _asked_for(policy: Mapping[str, Any]) -> bool:
    """Whether a guarantee was asked for that could not be given."""
    return bool(policy.get("fallback")) and bool({"max_loss", "max_regret"} & set(policy["knob"]))


def _not_certified(policy: Mapping[str, Any], images: int | None, words: Words) -> str:
    """That no cheaper policy is certified, and what that would take."""
    knob, loss = policy["knob"], "max_loss" in policy["knob"]
    what = "a loss" if loss else "a regret"
    share = float(knob["max_loss" if loss else "max_regret"])
    most = _in_points(share) if loss else f"{100 * share:g} %"
    confidence = numbers.percent(float(knob.get("confidence", CONFIDENCE)), digits=0)
    where = "" if images is None else words.of(f" on {images} images")
    takes = words.of(str(policy["reason"]).removesuffix(".").partition(". ")[2])
    return (
        f"Nothing cheaper than {policy['reference']} is certified with {confidence} % confidence "
        f"to have {what} of at most {most}{where}{takes and ': '}{takes[:1].lower()}{takes[1:]}."
    )


def _calibrate(run: str, loss: float) -> str:
    return f"m3router calibrate {run} --max-loss {100 * loss:g}% --policy certified"


def _in_points(loss: float) -> str:
    return f"{100 * loss:g} point{'' if loss == 0.01 else 's'}"


def next_step(document: Document, *, run: str = "RUN") -> str:
    """What to do after reading the rest."""
    kind, best = _verdict_of(document)["kind"], document["best_fixed"]
    if kind == CANNOT:
        return "Next: check the model, its prompt and the metric before anything else is labelled."
    if kind == NO_HEADROOM:
        return f"Next: ask every question at one option, {best}{_cheaper(document)}."
    if kind == LOOKUP:
        return (
            "Next: use the lookup, the best option of each dataset or kind of question within your "
            f"budget, and come back when more is labelled (m3router study learning-curve {run} "
            "says whether that would help)."
        )
    if kind == PAYS:
        return (
            f"Next: say what you can spend or lose (m3router calibrate {run} --budget COST or "
            f"--max-loss-observed 1%), then use it ({_serve(document, run)})."
        )
    words = words_in(document)
    if kind == DOES_NOT_PAY:
        return f"Next: {_instead(document)}{best}{_cheaper(document)}; {_more(document)}."
    whole, needed = _images_of(document), images_to_tell(document)
    has = "" if whole is None else f" instead of {whole}"
    return (
        words.of("Next: label more images, ")
        + f"about {needed:,} in all{has}, and run this again; until then ask at the best fixed "
        f"option, {best}."
    )


def _instead(document: Document) -> str:
    """What to do where the router does not pay: a lookup may, all the same."""
    for name in LOOKUPS:
        gain = (document["baselines"].get(name, {}).get("metrics") or {}).get("aiq_minus_fixed")
        if gain is not None and gain["low"] is not None and gain["low"] > 0:
            return f"use {_article(name)}{name}, which pays here ({_points_inside(gain)}), or "
    return "ask every question at one option, "


def _more(document: Document) -> str:
    """What may change the verdict."""
    blocks = document.get("provenance", {}).get("router", {}).get("blocks", {"image": 0})
    if "image" in blocks or not words_in(document).images:
        return "more labels may change the verdict"
    return "features of the images (--images and --encoder) or more labels may change the verdict"


def _cheaper(document: Document) -> str:
    """The cheapest option that is not clearly less accurate than the best, if it is another one."""
    best = document["best_fixed"]
    fixed = [row for row in document["rows"] if row["kind"] == "fixed"]
    options = dict(zip(document["options"], fixed, strict=True))
    level = [
        (row["cost"]["value"], option, row)
        for option, row in options.items()
        if row["minus_best_fixed"]["high"] is not None and row["minus_best_fixed"]["high"] >= 0
    ]
    whole = options[best]["cost"]["value"]
    if not level or not min(level, key=lambda one: one[0])[0] < whole:
        return ""
    spent, option, row = min(level, key=lambda one: one[0])
    behind = row["minus_best_fixed"]
    return (
        f" or {option}, which costs {numbers.percent(spent / whole, digits=0)} % of {best} and is "
        f"not clearly less accurate ({numbers.percent(behind['value'], signed=True)} points, "
        f"{_ends(behind, signed=True)})"
    )


def _serve(document: Document, run: str) -> str:
    """The command that routes live requests."""
    log = document.get("provenance", {}).get("log", {})
    if "source" in log or "endpoint" in log:  # the model is somebody else's
        return f"m3router serve {run} --upstream URL --options OPTIONS.toml"
    return f"m3router serve {run}"


def images_to_tell(document: Document) -> int:
    """About how many labelled images, in all parts, tell whether routing pays; two digits.

    An interval narrows with the root of the images; wanted is one that is no wider to either side
    than the gain seen, or than `BROAD` where that is smaller, and no fewer than `FEW_IMAGES`.
    """
    images, gain = int(document["n"]["test_groups"]), document["metrics"]["aiq_minus_fixed"]
    needed = float(FEW_IMAGES)
    if gain["low"] is not None and gain["high"] is not None:
        half = (gain["high"] - gain["low"]) / 2
        needed = max(needed, images * (half / max(abs(gain["value"]), BROAD)) ** 2)
    whole = _images_of(document) or round(images / FRACTIONS[-1])
    return max(numbers.round_up(needed * whole / max(images, 1)), numbers.round_up(1.1 * whole))


def _images_of(document: Document, part: str | None = None) -> int | None:
    """Images of a part, or of all; None where an evaluation does not tell."""
    sizes = document.get("provenance", {}).get("sizes", {})
    parts = sizes if part is None else [part] if part in sizes else []
    return sum(int(sizes[one]["pictures"]) for one in parts) or None


def _verdict_of(document: Document) -> Mapping[str, str]:
    """The verdict; evaluations from before there were verdicts have none."""
    found: Mapping[str, str] = document.get("verdict", {"kind": "", "text": ""})
    return found


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
    *,
    test: bool = False,
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
            f"The model cannot answer these questions at any option, so that no router can help: "
            f"{right}{guess}.",
        )
    if all(one["low"] is None or one["low"] <= max(chance, 0.0) for one in fixed):
        what = f"whether the model can answer these questions: {right}{guess}"
        return _too_few(images, what, words, test=test)
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


def _read_by(lookup: str, words: Words) -> str:
    """What a lookup reads of a request."""
    if lookup == "question-type lookup":
        return "nothing but what kind of question it is"
    return f"no {'image' if words.images else 'question'}"


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


def _too_few(images: int, what: str, words: Words, *, test: bool = False) -> Verdict:
    kind = "test image" if test else "image"
    few = f"{images} {kind}s are" if images != 1 else f"1 {kind} is"
    return Verdict(TOO_FEW, f"{words.of(few)} too few to tell {what}.")


def _no_headroom(headroom: Estimate) -> Verdict:
    return Verdict(
        NO_HEADROOM,
        f"There is no headroom: even an oracle would have only {_points(headroom)} of accuracy "
        "over mixing fixed options at random, averaged over all budgets.",
    )


def _points(one: Estimate) -> str:
    """A difference in points with its interval."""
    value = numbers.percent(one["value"], signed=True, digits=2)
    return f"{value} points ({_ends(one, signed=True, digits=2)})"


def _points_inside(one: Estimate) -> str:
    """The same within brackets."""
    value = numbers.percent(one["value"], signed=True, digits=2)
    return f"{value} points, {_ends(one, signed=True, digits=2)}"


def _ends(one: Estimate, *, signed: bool = False, digits: int = 1, level: str = "") -> str:
    """An interval inside a sentence, in words where there is none."""
    ends = numbers.interval(one, signed=signed, digits=digits)
    if ends == numbers.MISSING:
        return "no interval is known"
    return f"{level} % interval {ends}" if level else ends


def _level(document: Document) -> str:
    return f"{100 * float(document['bootstrap']['level']):.0f}"
