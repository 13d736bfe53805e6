"""What a page's address says, so that it can be kept or sent to somebody.

The question, who chooses and what, and which example: never an image or what its file is called.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from m3router.router.demo.answering import LONGEST_QUESTION
from m3router.router.demo.handlers import AUTO, BUDGET, FIXED
from m3router.router.demo.views import BudgetRange
from m3router.router.text.numbers import plain

QUESTION, OPTION, WITHIN, SAMPLE = "question", "option", "budget", "sample"
_MOST_FIELDS = 32
_SHOWN = 60  # characters of a wrong value that are repeated


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What an address asks for, as far as this page has it.

    Attributes:
        question: "" for none.
        mode: `AUTO`, `BUDGET` or `FIXED`.
        place: Of the option, from 0; read in `FIXED` only.
        budget: Mean cost; None outside of `BUDGET`.
        sample: Which example; "" for none.
        ignored: What the address asked for that the page does not have, sentences.
    """

    question: str = ""
    mode: str = AUTO
    place: int = 0
    budget: float | None = None
    sample: str = ""
    ignored: tuple[str, ...] = ()


def read_address(
    query: str, *, options: Sequence[str], budgets: BudgetRange | None, samples: Collection[str]
) -> Shared:
    """Read an address.

    Args:
        query: What follows its path, such as "?question=What+is+it%3F&option=144".
        options: Names, coarsest first.
        budgets: Those that can be chosen; None for none.
        samples: The examples.

    >>> read_address("?option=9&question=Why%3F", options=("1", "9"), budgets=None, samples=())
    Shared(question='Why?', mode='One scale', place=1, budget=None, sample='', ignored=())
    """
    try:
        pairs = parse_qsl(query.removeprefix("?"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        return Shared(ignored=("The address has too many fields, and is not read.",))
    asked = dict(reversed(pairs))  # the first of several of one name counts
    found, ignored = Shared(), []
    question = asked.get(QUESTION, "")
    if len(question) <= LONGEST_QUESTION:
        found = replace(found, question=question)
    else:
        ignored.append(f"Its question has more than {LONGEST_QUESTION} characters.")
    if SAMPLE in asked:
        if asked[SAMPLE] in samples:
            found = replace(found, sample=asked[SAMPLE])
        else:
            ignored.append(f"There is no example {_shown(asked[SAMPLE])} here.")
    if OPTION in asked:
        if asked[OPTION] in options:
            found = replace(found, mode=FIXED, place=options.index(asked[OPTION]))
        elif asked[OPTION].casefold() != AUTO.casefold():
            ignored.append(
                f"This run has no option {_shown(asked[OPTION])}; it has {', '.join(options)}."
            )
    elif WITHIN in asked:
        budget = _number(asked[WITHIN])
        if budgets is None:
            ignored.append("Budgets cannot be set for this run.")
        elif budget is None or not budgets.least <= budget <= budgets.most:
            ignored.append(
                f"The budget must be a number from {plain(budgets.least)} to "
                f"{plain(budgets.most)}, not {_shown(asked[WITHIN])}."
            )
        else:
            found = replace(found, mode=BUDGET, budget=budget)
    if OPTION in asked and WITHIN in asked:
        ignored.append("It names an option and a budget; the budget is not read.")
    return replace(found, ignored=tuple(ignored))


def writing_script(options: Sequence[str]) -> str:
    """A script that writes what is chosen into the address, without asking the server.

    Its arguments are the question, the mode, the option's place from 1, the budget and the example.
    What Gradio itself reads from the address stays.
    """
    return f"""(question, mode, level, budget, sample) => {{
  if (!window.m3Restored) return;
  const options = {json.dumps(list(options))}, said = new URLSearchParams();
  if (question) said.set({QUESTION!r}, question);
  if (mode === {FIXED!r}) said.set({OPTION!r}, options[level - 1]);
  if (mode === {BUDGET!r}) said.set({WITHIN!r}, budget);
  if (sample) said.set({SAMPLE!r}, sample);
  for (const [name, value] of new URLSearchParams(location.search))
    if (name.startsWith('__')) said.set(name, value);
  const query = said.toString();
  history.replaceState(history.state, '', location.pathname + (query && '?' + query));
}}"""


READING_SCRIPT = "() => [window.location.search]"
"""A script that gives `read_address` its query."""

RESTORED_SCRIPT = "() => { window.m3Restored = true; }"
"""A script after which the address may be written; before, it is yet to be read."""


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
