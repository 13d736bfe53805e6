"""Tables as LaTeX, from the very rows that the CSV files hold.

A table needs `booktabs`. Columns NAME, NAME_low and NAME_high become one column, with the interval
in small print; numbers are rounded to four significant digits. Every text is escaped: nothing in a
log can command TeX.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m3router.data.manifest import atomic_write_text

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "[": "{[}",  # after a row's end an option would begin
    "]": "{]}",
    "*": "{*}",
    "×": r"$\times$",
}
_LIGATURE = re.compile(r"[-`',?!](?=[-`',])")
_BREAK = "\N{ZERO WIDTH NON-JOINER}"
NONE = "--"
LONGEST = 80


def escape(text: str) -> str:
    r"""A text that TeX prints and does not obey; ligatures are broken, other letters kept.

    NOTE: characters that pdfTeX's default encoding may lack (other than Latin ones) become "?".

    >>> escape("50 % of a_b & {c}")
    '50 \\% of a\\_b \\& \\{c\\}'
    """
    flat = " ".join(text.split())
    flat = flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "..."
    known = "".join(letter if _known(letter) else "?" for letter in flat)
    apart = _LIGATURE.sub(r"\g<0>" + _BREAK, known)
    return "".join(_SPECIAL.get(letter, letter) for letter in apart).replace(_BREAK, "{}")


def _known(letter: str) -> bool:
    if letter.isascii() or letter in _SPECIAL:
        return letter.isprintable()
    return unicodedata.name(letter, "").startswith("LATIN")


def cell(value: Any) -> str:
    """One cell: numbers with four significant digits, texts escaped, None as a dash."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    return escape(str(value))


def _number(value: float) -> str:
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if "e" in text:
        digits, power = text.split("e")
        return rf"${digits}\cdot 10^{{{int(power)}}}$"
    return f"${text}$" if value < 0 else text


def latex_table(table: Table, *, caption: str, label: str) -> str:
    r"""A `table` environment with `booktabs` rules; put `\usepackage{booktabs}` before it.

    Args:
        table: header and rows, as for CSV.
        caption: plain text.
        label: letters, digits and "-"; referred to as tab:LABEL.
    """
    header, rows = table
    spread = [name for name in header if {f"{name}_low", f"{name}_high"} <= set(header)]
    ends = {f"{name}_{end}" for name in spread for end in ("low", "high")}
    shown = [name for name in header if name not in ends]
    lines = []
    for row in rows:
        values = dict(zip(header, row, strict=True))
        lines.append([_with_interval(values, name, name in spread) for name in shown])
    texts = {name for name in shown if any(isinstance(r[header.index(name)], str) for r in rows)}
    align = "".join("l" if name in texts else "r" for name in shown)
    body = [" & ".join(escape(name.replace("_", " ")) for name in shown) + r" \\"]
    body += [r"\midrule", *(" & ".join(line) + r" \\" for line in lines)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]', '-', label)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _with_interval(values: Mapping[str, Any], name: str, spread: bool) -> str:
    text = cell(values[name])
    low, high = (values[f"{name}_{end}"] for end in ("low", "high")) if spread else (None, None)
    if low is None and high is None:
        return text
    return rf"{text} {{\footnotesize [{cell(low)}, {cell(high)}]}}"


def write_latex(
    tables: Mapping[str, Table], folder: Path, *, captions: Mapping[str, str]
) -> list[Path]:
    """Write those tables that have a caption, file stem -> text, as STEM.tex; returns the paths."""
    paths = []
    for stem, caption in captions.items():
        if stem in tables:
            path = folder / f"{stem}.tex"
            text = latex_table(tables[stem], caption=caption, label=stem)
            atomic_write_text(path, text)
            paths.append(path)
    return paths
