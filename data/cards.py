"""Cards: small HTML by which notebooks show an object (``_repr_html_``).

Every text is escaped, so that a question with a tag in it is a text. Colours are the notebook's own
or half transparent, so that a card can be read on white and on black; there are no scripts, no
style sheets and nothing is fetched.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LINE = "1px solid rgba(128,128,128,.35)"
_BLUE = "rgba(0,114,178,.75)"
_GREY = "rgba(128,128,128,.45)"
_LONGEST = 400
"""Letters of a text that are shown."""


class Html(str):
    """A piece of HTML that is made here, and is not escaped again."""

    def __format__(self, how: str) -> str:
        """The HTML itself."""
        return str(self)


def escaped(text: Any) -> Html:
    """A text as it is shown, cut where it is very long; what is HTML stays.

    >>> print(escaped("<script>alert(1)</script>"))
    &lt;script&gt;alert(1)&lt;/script&gt;
    """
    if isinstance(text, Html):
        return text
    plain = str(text)
    plain = plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"
    return Html(html.escape(plain))


def card(title: str, *parts: str) -> str:
    """One card.

    Args:
        title: Its first line.
        parts: Below it, each as :func:`escaped`; empty ones are left out.
    """
    inner = "".join(f"<div style='margin:.35em 0'>{escaped(one)}</div>" for one in parts if one)
    return (
        f"<div style='border:{_LINE};border-radius:6px;padding:.6em .9em;margin:.3em 0;"
        f"max-width:52em;line-height:1.4;overflow-x:auto'><strong>{escaped(title)}</strong>"
        f"{inner}</div>"
    )


def soft(text: Any) -> Html:
    """A text of less weight."""
    return Html(f"<span style='opacity:.75'>{escaped(text)}</span>")


def strong(text: Any) -> Html:
    """A text of more weight."""
    return Html(f"<strong>{escaped(text)}</strong>")


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]], *, numbers: bool = True) -> Html:
    """A table: the first column holds names, the others `numbers`, or texts too."""

    def cells(row: Sequence[Any], tag: str) -> str:
        sides = ["left", *["right" if numbers else "left"] * (len(row) - 1)]
        style = (
            "padding:.15em .7em;border:0;background:transparent;color:inherit;"
            f"border-bottom:{_LINE}"
        )
        return "".join(
            f"<{tag} style='text-align:{side};{style}'>{escaped(one)}</{tag}>"
            for side, one in zip(sides, row, strict=True)
        )

    lines = [f"<tr style='background:transparent'>{cells(row, 'td')}</tr>" for row in rows]
    return Html(
        "<table style='border-collapse:collapse;margin:0;color:inherit;font-size:inherit'>"
        f"<thead><tr>{cells(header, 'th')}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def bars(values: Mapping[str, float], *, chosen: str = "") -> Html:
    """Shares in [0, 1] as bars, one a line; the chosen one stands out."""
    rows = []
    for name, value in values.items():
        share = min(max(float(value), 0.0), 1.0) if np.isfinite(value) else 0.0
        bar = Html(
            f"<div style='width:12em;height:.8em;border:{_LINE};border-radius:2px'>"
            f"<div style='width:{100 * share:.1f}%;height:100%;"
            f"background:{_BLUE if name == chosen else _GREY}'></div></div>"
        )
        told = f"{100 * value:.0f} %" if np.isfinite(value) else "–"
        rows.append([strong(f"{name} ◀") if name == chosen else name, bar, told])
    return table(["option", "probability that it answers correctly", ""], rows)
