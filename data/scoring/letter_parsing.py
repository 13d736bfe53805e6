"""The reading of long answers by MMMU's own script, and by lmms-eval for NExT-QA and EgoSchema.

All search an answer for an option's letter, then for its text. NOTE: where nothing is found,
the originals choose an option at random; here that scores 0, so that a score depends on the answer
alone. On n options the originals credit 1/n of such answers on average.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from m3router.data.texts import on_clean_texts

_ENDS = ",.!?;:'"
_FEWEST_WORDS = 6
"""An option's text is searched for in answers of at least so many words."""

_BRACKETS = (("({})", "({})"),)
_OFFICIAL = (*_BRACKETS, (" {} ", " {} "))
_LOOSE = (("{} ", " {} "), ("{}.", " {} "))
"""Ways to name an option: what shows that a letter is named, and what is looked for to place it."""

_BEFORE_KEY = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""Numbers with thousands separators, in scientific notation, and plain ones."""


@on_clean_texts
def score_mmmu(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Score an answer as MMMU does: by letter when there are choices, else by text or number.

    MMMU's own script (github.com/MMMU-Benchmark/MMMU, ``eval/eval_utils.py``):
    ``parse_multi_choice_response``, ``parse_open_response`` and ``eval_open``. It looks for
    ``(B)``, then for ``B`` between blanks, then in answers of six words or more for an option's
    text. NOTE: where it would now choose at random, ``B.`` and a letter at the end of a word are
    looked for as lmms-eval does (``tasks/_task_utils/mmmu_mcq_utils.py``), so ``B. dog`` is B.

    An open answer is right when what follows its key words *contains* a reference, or when one of
    its numbers equals it to two decimals.

    Args:
        answer: What the model said.
        answers: The letters of right choices, or reference answers.
        choices: The choices' texts, first one ``A``; empty for an open question.

    Returns:
        1.0 or 0.0; no option named scores 0, see the NOTE of this module.
    """
    if choices:
        text = _padded(answer)
        letter = _lettered(text, choices, _OFFICIAL) or _last_told(text, choices)
        return float((letter or _lettered(text, choices, _LOOSE)) in answers)
    references = [value for text in answers for value in _normalized(text)]
    said = [value for text in _key_texts(answer) for value in _normalized(text)]
    return float(any(_says(value, references) for value in said))


@on_clean_texts
def score_nextqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Score an answer as lmms-eval does for NExT-QA: by the letter named last, else by text.

    NExT-QA in lmms-eval: ``tasks/nextqa/utils.py``, ``parse_multi_choice_response``. It is MMMU's
    rule, but all letters are looked for before any text: ``(B)``, a letter at the end of a word,
    ``B.``.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: The choices' texts, first one ``A``.

    Returns:
        1.0 or 0.0; no option named scores 0, see the NOTE of this module.
    """
    text = _padded(answer)
    letter = _lettered(text, choices, _BRACKETS + _LOOSE) or _last_told(text, choices)
    return float(letter in answers)


@on_clean_texts
def score_egoschema(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Score an answer as EgoSchema does: by the option that is named first.

    EgoSchema in lmms-eval: ``tasks/egoschema/utils.py``, ``parse_multi_choice_response``. Unlike
    MMMU's it looks for ``(A)``, ``A `` and ``A.`` at once, and takes the earliest of their last
    places.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: The options as the dataset has them, each with its letter (``A. C cooks``).

    Returns:
        1.0 or 0.0; no option named scores 0, see the NOTE of this module.
    """
    return float(_first_named(_padded(answer), choices) in answers)


def _padded(answer: str) -> str:
    for mark in _ENDS:
        answer = answer.strip(mark)
    return f" {answer} "


def _letters(choices: Sequence[str]) -> list[str]:
    return [chr(ord("A") + place) for place in range(len(choices))]


def _told(text: str, choices: Sequence[str]) -> dict[str, int]:
    """Letters of the choices whose text is found in a long text, with its last place."""
    if len(text.split()) < _FEWEST_WORDS:
        return {}
    lowered = text.lower()
    places = {
        letter: lowered.rfind(choice.lower())
        for letter, choice in zip(_letters(choices), choices, strict=True)
    }
    return {letter: place for letter, place in places.items() if place >= 0}


def _lettered(text: str, choices: Sequence[str], ways: Sequence[tuple[str, str]]) -> str:
    """The letter named last, by the first of the ways that finds any; empty for none.

    Of several at the same place, or at none, the first choice counts.
    """
    for found, placed in ways:
        named = [letter for letter in _letters(choices) if found.format(letter) in text]
        if named:
            return max(named, key=lambda letter: text.rfind(placed.format(letter)))
    return ""


def _last_told(text: str, choices: Sequence[str]) -> str:
    told = _told(text, choices)
    return max(told, key=lambda letter: told[letter], default="")


def _first_named(text: str, choices: Sequence[str]) -> str:
    """The letter named first, by the last place of each way to name it; empty for none."""
    ways = ("({})", "{} ", "{}.")
    named = [
        (text.rfind(way.format(letter)), letter)
        for way in ways
        for letter in _letters(choices)
        if way.format(letter) in text
    ]
    if named:
        return min(named, key=lambda found: found[0])[1]
    told = _told(text, choices)
    return min(told, key=lambda letter: told[letter], default="")


def _key_texts(answer: str) -> list[str]:
    """What follows the key words of each line, the shortest for each, and the numbers in it.

    MMMU lower-cases before it splits sentences at capitals, so that lines alone are split.
    """
    whole = answer.strip().strip(".").lower()
    lines = whole.split("\n")
    keys = []
    for number, line in enumerate(lines, start=1):
        marks = (*_BEFORE_KEY, "=") if number == len(lines) else _BEFORE_KEY
        shortest = ""
        for mark in marks:
            if mark in line:
                tail = line.split(mark)[-1].strip()
                shortest = tail if not shortest or len(tail) < len(shortest) else shortest
        if shortest and shortest not in _TRIVIAL:
            keys.append(shortest)
    keys = keys or [whole]
    return keys + [number for key in keys for kind in _NUMBERS for number in kind.findall(key)]


def _normalized(text: str) -> list[str | float]:
    """A number rounded to two decimals, or lower-cased text; a single letter with a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lowered = text.lower()
    return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]


def _says(value: str | float, references: Sequence[str | float]) -> bool:
    if isinstance(value, float):
        return value in references
    return any(isinstance(text, str) and text in value for text in references)
