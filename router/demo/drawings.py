"""What the demo's page shows, as HTML: every word that comes from outside is escaped.

Images are inside the page as data URLs, so that none is left in a file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape
from PIL import Image

from m3router.data.videos import open_media
from m3router.router.demo.service import Comparison, Told
from m3router.router.demo.session_stats import Spending, saved
from m3router.router.text.familiarity import OUTSIDE, unfamiliar_sentence
from m3router.router.text.numbers import number
from m3router.router.visualize.token_grid import explained

_QUALITY = 90
_WIDEST = 900  # pixels of a preview
_THUMB = 160


def tokens(count: int) -> str:
    """A number of visual tokens, in words.

    >>> tokens(1), tokens(576)
    ('1 visual token', '576 visual tokens')
    """
    return f"{count} visual token" + ("s" if count != 1 else "")


def problem(message: str) -> str:
    """What is wrong, and what to do about it."""
    sentence = message[:1].upper() + message[1:]
    return str(Markup('<p class="m3-problem" role="alert">{}</p>').format(sentence))


def waiting(what: str) -> str:
    """What stands where answers will be."""
    return str(Markup('<p class="m3-pale m3-waiting">{}</p>').format(what))


def thumbnail(path: Path) -> str:
    """A small image of an example; its buttons say in words what it is about."""
    image = open_media(path)
    image.thumbnail((_THUMB, _THUMB))
    return str(Markup('<img src="{}" alt="">').format(data_url(image)))


def preview(image: Image.Image, name: str, *, frames: int = 0, outside: bool = False) -> str:
    """The image that will be asked about.

    Args:
        image: RGB.
        name: Of the file.
        frames: Most frames that a video's collage shows; 0 for an image.
        outside: Whether the model cannot read it.
    """
    what = f"{image.width} x {image.height} pixels"
    if frames:
        what = f"up to {frames} frames of the video, as the model sees them, {what}"
    shown = figure(image, alt=f"Your image, {name}", caption=f"{name}: {what}")
    return str(note(OUTSIDE if outside else "")) + shown


def note(words: str) -> Markup:
    """What is to be known before an answer is believed; nothing for ""."""
    return Markup('<p class="m3-note">{}</p>').format(words) if words else Markup("")


def outside(said: str, *, where: str) -> str:
    """What stands in place of an answer about an image that the model cannot read.

    Args:
        said: What the model said all the same.
        where: At which option, such as "scale 2 of 5".
    """
    return str(
        Markup(
            '<section class="m3-answer" role="status"><h2>Outside what this model can read</h2>'
            '{note}<p class="m3-pale">At {where} it said “{said}” all the same. That is no '
            "answer, and how sure the model was of it says nothing. Take an example, or start the "
            "demo with a run of a model that reads such images.</p></section>"
        ).format(note=note(OUTSIDE), where=where, said=said or "(nothing)")
    )


def answer(told: Told, scales: Sequence[int], *, how: str) -> str:
    """The answer and the scale that it was given at.

    Args:
        told: The answer.
        scales: The model's grid, coarsest first.
        how: Who chose the scale, such as "chosen by the router".
    """
    routed = told.routed
    said = routed.answer
    level = list(scales).index(routed.scale) + 1
    if routed.outside:
        return outside(said.text, where=f"scale {level} of {len(scales)}")
    extras = []
    if routed.peek_tokens:
        extras.append(f"The router looked at {tokens(routed.peek_tokens)} first.")
    if routed.earlier:
        tried = ", ".join(str(one.visual_tokens) for one in routed.earlier)
        extras.append(f"Answers from {tried} visual tokens looked wrong and were asked again.")
    spent = sum(routed.milliseconds.values())
    return str(
        Markup(
            '<section class="m3-answer" role="status"><h2>Answer</h2>{note}'
            '<p class="m3-said">{said}</p>'
            "<p><strong>Scale {level} of {levels}: {tokens}</strong>, {how}. "
            "The model is {sure:.0%} sure of its answer's first word. {extras}</p>"
            '<p class="m3-pale">{ms:.0f} ms</p></section>'
        ).format(
            note=note(unfamiliar_sentence(routed.familiarity)),
            said=said.text or "(nothing)",
            level=level,
            levels=len(scales),
            tokens=tokens(said.visual_tokens),
            how=how,
            sure=said.confidence,
            extras=" ".join(extras),
            ms=spent,
        )
    )


def chart(told: Told) -> str:
    """Bars of how likely each scale was thought to suffice; a table for who cannot see them."""
    routed = told.routed
    if routed.outside:
        return ""  # estimates of answers that are none
    if not routed.sufficiency:
        words = "You chose the scale, so the router was not asked which one would suffice."
        return str(Markup('<p class="m3-pale">{}</p>').format(words))
    bars = [
        Bar(name=str(scale), likely=likely, taken=scale == routed.scale)
        for scale, likely in routed.sufficiency.items()
    ]
    return bar_table(bars, heading="tokens", of="scale")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of a chart.

    Attributes:
        name: Of the option.
        likely: Probability that it suffices.
        taken: Whether its answer is given.
        cost: What it is expected to cost, in words; "" where its name says it.
    """

    name: str
    likely: float
    taken: bool
    cost: str = ""


def bar_table(bars: Sequence[Bar], *, heading: str, of: str) -> str:
    """Bars of how likely each option suffices; a table for who cannot see them.

    Args:
        bars: Coarsest first.
        heading: Of the names.
        of: What an option is called.
    """
    rows = Markup("").join(
        Markup(
            '<tr class="{here}"><th scope="row">{name}</th><td class="m3-track">'
            '<span class="m3-bar" style="width:{likely:.1f}%"></span></td>'
            "<td>{likely:.0f} %{mark}</td>{cost}</tr>"
        ).format(
            here="m3-here" if bar.taken else "",
            name=bar.name,
            likely=100 * bar.likely,
            mark=Markup(' <span class="m3-mark">taken</span>') if bar.taken else "",
            cost=Markup("<td>{}</td>").format(bar.cost) if bar.cost else "",
        )
        for bar in bars
    )
    costs = '<th scope="col">expected cost</th>' if any(bar.cost for bar in bars) else ""
    return str(
        Markup(
            '<table class="m3-bars"><caption>How likely each {of} suffices, as the router '
            'predicts it</caption><thead><tr><th scope="col">{heading}</th>'
            '<th scope="col"><span class="m3-unseen">bar</span></th>'
            '<th scope="col">suffices</th>{costs}</tr></thead><tbody>{rows}</tbody></table>'
        ).format(of=of, heading=heading, costs=Markup(costs), rows=rows)
    )


def grid(told: Told) -> str:
    """What the visual tokens keep of the image's detail, or where one of them looks."""
    count = tokens(told.routed.answer.visual_tokens)
    caption = f"What the model was given: {count} ({told.note}). {explained(told.note)}"
    return figure(told.image, alt=f"The image under a grid of {count}", caption=caption)


def savings(spent: Spending) -> str:
    """What the session cost so far."""
    if not spent.questions:
        return ""
    asked = f"{spent.questions} question{'s' if spent.questions > 1 else ''}"
    share = saved(spent.tokens, spent.finest_tokens)
    flops_share = saved(spent.flops, spent.finest_flops)
    return str(
        Markup(
            '<section class="m3-saved"><h2>Saved in this session</h2><dl>'
            "<div><dt>visual tokens</dt><dd><strong>{tokens}</strong> {used} instead of {finest}"
            "</dd></div><div><dt>language model</dt><dd><strong>{flops}</strong> {spent} instead "
            "of {most} GFLOPs</dd></div><div><dt>vision tower</dt><dd>{vision} GFLOPs, the same "
            'at every scale</dd></div></dl><p class="m3-pale">{asked}, against always asking at '
            "the finest scale. Questions at all scales are not counted.</p></section>"
        ).format(
            tokens=less(share),
            used=f"{spent.tokens:,}",
            finest=f"{spent.finest_tokens:,}",
            flops=less(flops_share),
            spent=number(spent.flops / 1e9),
            most=number(spent.finest_flops / 1e9),
            vision=number(spent.vision_flops / 1e9),
            asked=asked,
        )
    )


def comparison(compared: Comparison, question: str) -> str:
    """The answers at all scales, side by side."""
    is_outside = compared.told.routed.outside
    cards = Markup("").join(
        Markup(
            '<li class="m3-card{here}"><h3>Scale {level}: {tokens}</h3>{figure}'
            '<p class="m3-said">{said}</p><p class="m3-pale">{sure}{gflops} GFLOPs</p>'
            "{badge}</li>"
        ).format(
            here=" m3-here" if one.scale == compared.chosen else "",
            level=level,
            tokens=tokens(one.answer.visual_tokens),
            badge=Markup('<p class="m3-badge">the router takes this</p>')
            if one.scale == compared.chosen
            else "",
            figure=Markup(figure(one.image, alt=f"The image at scale {level}", caption=one.note)),
            said=one.answer.text or "(nothing)",
            sure="" if is_outside else f"{one.answer.confidence:.0%} sure, ",
            gflops=number(one.flops / 1e9),
        )
        for level, one in enumerate(compared.answers, start=1)
    )
    return str(
        Markup(
            '<section class="m3-all" role="status"><h2>At all scales: {question}</h2>'
            '{settled}<ol class="m3-cards">{cards}</ol></section>'
        ).format(
            question=question,
            settled=note(OUTSIDE) if is_outside else Markup("<p>{}</p>").format(_settled(compared)),
            cards=cards,
        )
    )


def _settled(compared: Comparison) -> str:
    first, last = compared.answers[0], compared.answers[-1]
    if compared.settled == first.scale:
        return "All scales answer the same: the coarsest is enough to say what the finest says."
    if compared.settled == last.scale:
        return "Only the finest scale says this; the one before it says something else."
    one = next(one for one in compared.answers if one.scale == compared.settled)
    return f"From {tokens(one.answer.visual_tokens)} on, the answer is that of the finest scale."


def less(share: float) -> str:
    """A share saved, in words; what the finest scale would not have spent is "more"."""
    return f"{abs(share):.0%} {'fewer' if share >= 0 else 'more'}:"


def figure(image: Image.Image, *, alt: str, caption: str) -> str:
    """An image with its description, for who cannot see it, and a caption."""
    return str(
        Markup(
            '<figure class="m3-figure"><img src="{}" alt="{}" width="{}" height="{}">'
            "<figcaption>{}</figcaption></figure>"
        ).format(data_url(image), alt, image.width, image.height, escape(caption))
    )


def data_url(image: Image.Image) -> str:
    """An image as text for an address, scaled down where it is wide."""
    shown = image.copy()
    shown.thumbnail((_WIDEST, _WIDEST))
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
