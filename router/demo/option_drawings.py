"""What the demo's page shows of answers at options, as HTML; see :mod:`.drawings`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup
from PIL import Image

from m3router.m3core.options import Answer, Failure, Usage
from m3router.router.demo.drawings import Bar, bar_table, figure, less, note, outside
from m3router.router.demo.option_service import OptionComparison, OptionTold
from m3router.router.demo.session_stats import OptionSpending, saved
from m3router.router.text.familiarity import OUTSIDE, unfamiliar_sentence
from m3router.router.text.numbers import number
from m3router.router.text.usage import cost_text, usage_text
from m3router.router.visualize.token_grid import resized


def answer(told: OptionTold, options: Sequence[str], *, how: str) -> str:
    """The answer, the option that it was given at, and what it cost.

    Args:
        told: The answer.
        options: Names, coarsest first.
        how: Who chose the option, such as "chosen by you".
    """
    given = told.answer
    decision = given.decision
    place = list(options).index(given.option) + 1
    if given.outside:
        return outside(given.text, where=f"option {place} of {len(options)} ({given.option})")
    told_too = [
        *(f"{name} said “{one.text}”, which looked wrong." for name, one in given.earlier),
        *_failed(given.failed),
        decision.reason,
        decision.fallback,
        decision.guarantee,
    ]
    more = Markup("").join(
        Markup('<p class="m3-pale">{}</p>').format(one) for one in told_too if one
    )
    total = " in all" if given.earlier or given.failed else ""
    return str(
        Markup(
            '<section class="m3-answer" role="status"><h2>Answer</h2>{note}'
            '<p class="m3-said">{said}</p>'
            "<p><strong>Option {place} of {count}: {option}</strong>, {how}.{sure}</p>"
            '<p>Cost{total}: {usage}.</p>{more}<p class="m3-pale">{ms:,.0f} ms</p></section>'
        ).format(
            note=note(unfamiliar_sentence(decision.familiarity)),
            said=given.text or "(nothing)",
            place=place,
            count=len(options),
            option=given.option,
            how=how,
            sure=_sure(given.answer),
            usage=usage_text(given.usage, given.cost_unit) or "not known",
            total=total,
            more=more,
            ms=sum(given.milliseconds.values()),
        )
    )


def chart(told: OptionTold) -> str:
    """Bars of how likely each option was thought to suffice, and what each was to cost."""
    decision = told.answer.decision
    if decision.outside:
        return ""  # estimates of answers that are none
    bars = [
        Bar(
            name=name,
            likely=likely,
            taken=name == told.answer.option,
            cost=cost_text(decision.costs[name], decision.cost_unit),
        )
        for name, likely in decision.estimates.items()
    ]
    return bar_table(bars, heading="option", of="option")


def picture(image: Image.Image, usage: Usage, *, option: str) -> str:
    """The image with as many pixels as the model was given, where these are fewer."""
    alt, size = f"The image at the option {option}", f"{image.width} x {image.height} pixels"
    shown, (width, height) = resized(image, math.inf if usage.pixels is None else usage.pixels)
    if (width, height) == image.size:
        return figure(image, alt=alt, caption=f"The image, {size}")
    caption = f"What the model was given: about {width} x {height} of its {size}, enlarged"
    return figure(shown, alt=alt, caption=caption)


def savings(spent: OptionSpending, cost_unit: str) -> str:
    """What the session cost so far, against always asking the finest option."""
    if not spent.questions or spent.spent is None or spent.finest is None:
        return ""
    rows = [(cost_unit, spent.spent.cost, spent.finest.cost)]
    if cost_unit != "image tokens":
        rows.append(("image tokens", spent.spent.image_tokens, spent.finest.image_tokens))
    if cost_unit != "price":
        rows.append(("price", spent.spent.price, spent.finest.price))
    told = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, _against(used, finest))
        for name, used, finest in rows
        if used is not None
    )
    asked = f"{spent.questions} question{'s' if spent.questions > 1 else ''}"
    return str(
        Markup(
            '<section class="m3-saved"><h2>Saved in this session</h2><dl>{told}</dl>'
            '<p class="m3-pale">{asked}, against always asking at the finest option, whose costs '
            "are those expected where it was not asked. Questions at all options are not counted."
            "</p></section>"
        ).format(told=told, asked=asked)
    )


def comparison(compared: OptionComparison, question: str, cost_unit: str, *, routed: bool) -> str:
    """The answers at all options, side by side.

    Args:
        compared: The answers.
        question: What was asked.
        cost_unit: What costs count.
        routed: Whether the router chose, and not the visitor.
    """
    is_outside = compared.told.answer.outside
    settled = note(OUTSIDE) if is_outside else Markup("<p>{}</p>").format(_settled(compared))
    cards = Markup("").join(
        Markup('<li class="m3-card{here}"><h3>{name}</h3>{what}{badge}</li>').format(
            here=" m3-here" if name == compared.chosen else "",
            name=name,
            what=Markup(_card(one, compared.told, name, cost_unit)),
            badge=Markup('<p class="m3-badge">{}</p>').format(
                "the router takes this" if routed else "you chose this"
            )
            if name == compared.chosen
            else "",
        )
        for name, one in compared.answers.items()
    )
    return str(
        Markup(
            '<section class="m3-all" role="status"><h2>At all options: {question}</h2>'
            '{settled}<ol class="m3-cards">{cards}</ol></section>'
        ).format(question=question, settled=settled, cards=cards)
    )


def _card(one: Answer | Failure, told: OptionTold, option: str, cost_unit: str) -> str:
    if isinstance(one, Failure):
        return str(Markup('<p class="m3-problem">{}</p>').format(one.message))
    return str(
        Markup('{picture}<p class="m3-said">{said}</p><p class="m3-pale">{usage}{sure}</p>').format(
            picture=Markup(picture(told.image, one.usage, option=option)),
            said=one.text or "(nothing)",
            usage=f"{usage}." if (usage := usage_text(one.usage, cost_unit)) else "",
            sure="" if told.answer.outside else _sure(one),
        )
    )


def _settled(compared: OptionComparison) -> str:
    """From which option on the answers are that of the finest, in words."""
    names = list(compared.answers)
    texts = [one.text if isinstance(one, Answer) else None for one in compared.answers.values()]
    if texts[-1] is None:
        return "The finest option did not answer."
    first = next(place for place in range(len(texts)) if len(set(texts[place:])) == 1)
    if first == 0:
        return "All options answer the same: the coarsest is enough to say what the finest says."
    if first == len(texts) - 1:
        return "Only the finest option says this; the one before it says something else."
    return f"From {names[first]} on, the answer is that of the finest option."


def _failed(failed: tuple[str, Failure] | None) -> list[str]:
    if failed is None:
        return []
    return [f"{failed[0]} was asked next and failed: {failed[1].message}"]


def _sure(said: Answer) -> str:
    if said.confidence is None:
        return ""
    return f" The model is {said.confidence:.0%} sure of its answer's first word."


def _against(used: float, finest: float | None) -> str | Markup:
    if finest is None:
        return f"{number(used)}; that of the finest option is not known"
    return Markup("<strong>{share}</strong> {used} instead of {finest}").format(
        share=less(saved(used, finest)), used=number(used), finest=number(finest)
    )
