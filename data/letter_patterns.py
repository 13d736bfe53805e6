"""The patterns by which :mod:`data.choice_reading` finds letters in answers, and their markup."""

from __future__ import annotations

import re

# --- Markup ----------------------------------------------------------------------------------

_LATEX_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mathtt|operatorname|bf|rm)"
    r"\s*\{([^{}]*)\}"
)
_BRACED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"  # braces within braces, thrice
_BOXED = re.compile(rf"\\(?:boxed|fbox|framebox)\s*{_BRACED}|<answer>(.*?)</answer>", re.S | re.I)
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.S | re.I)
_TAG = re.compile(r"</?[a-z][^<>]{0,40}>")
_MATHS = re.compile(r"\$\$?|\\[()\[\]]")
_MARKS = re.compile(r"\*+|`+|~~|(?<!\w)_+|_+(?!\w)|^[ \t]*(?:#+|>)[ \t]*", re.M)
_OPENING = "(\\[{<\"'\u2018\u201c\u300c\u300e\u3010*_`$"
_CLOSING = ")\\]}>\"'\u2019\u201d\u300d\u300f\u3011*_`$"
_WRAPPED = re.compile(
    rf"(?<!\w)[{_OPENING}]{{1,6}}\s?([A-Za-z])\s?[.:)]?\s?[{_CLOSING}]{{1,6}}(?!\w)"
)
"""A letter alone between brackets, quotes, asterisks or dollars; it becomes ``(B)``."""


def unmarked(text: str) -> tuple[str, list[str]]:
    r"""Take LaTeX, Markdown, HTML and thoughts before the answer off.

    Args:
        text: What a model said.

    Returns:
        The text, each letter that stands alone between marks as ``(B)``; and what was boxed.

    >>> unmarked(r"**B.** a `dog`, so \boxed{\text{B}}")
    ('(B) a dog, so (B)', ['B'])
    """
    text = _THOUGHT.sub("", text)
    told = ""
    while told != text:
        told, text = text, _LATEX_TEXT.sub(r"\1", text)
    boxed = [_plainly(match[1] or match[2] or "") for match in _BOXED.finditer(text)]
    return _plainly(_BOXED.sub(lambda match: f"({match[1] or match[2] or ''})", text)), boxed


def _plainly(text: str) -> str:
    text = _WRAPPED.sub(r"(\1)", _TAG.sub(" ", text))
    text = _MARKS.sub("", _MATHS.sub("", text))
    return _WRAPPED.sub(r"(\1)", text).strip()


# --- Letters ---------------------------------------------------------------------------------

_EAST = "\u3040-\u30ff\u4e00-\u9fff"  # is written without blanks around a letter
LETTER = re.compile(
    rf"(?<![\w\x00])\(([A-Za-z])\)|(?:(?<![\w'\u2019.\-])|(?<=[{_EAST}]))([A-Za-z])"
    rf"(?:(?![\w'\u2019+#\-])|(?=[{_EAST}])|(?=-\s))"
)
"""A letter in brackets, or bare: not that of ``T-shirt``, ``I'm``, ``C++`` or ``B12``."""
LEADING = re.compile(
    r"[^\w(]*(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+)?"
    rf"(?:\(([A-Za-z])\)|([A-Za-z])(?:(?![\w'\u2019+#]|-\w)|(?=[{_EAST}])))"
)
LONE = re.compile(
    r"[^\w+#'\u2019]*(?:(?:option|choice|letter|answer)\s+)?([A-Za-z])[^\w+#'\u2019]*", re.I
)
ABBREVIATED = re.compile(r"\.\w(?!\w)")
"""What follows the first letter of ``U.S.`` or ``a.m.``"""
CLOSED = re.compile(
    rf"\s*(?:$|[\n.,:;!?)\]/|&…—–→({_EAST}]|->|=>|-\s|and/or\b|[A-Z](?![\w'\u2019\-]))"
)
"""What cannot follow an article."""
NO_NOUN = re.compile(
    r"\s+(?:because|since|as|is|was|would|seems|appears|looks|due|but|or|and|nor|vs|could|should)\b"
)
"""Words that may stand behind the letter A, but not behind an article."""
JOINED = re.compile(r"\s+(?:or|and|nor|vs)\b", re.I)
BECAUSE = re.compile(r"\s+(?:because|since|as|due)\b", re.I)
NAMED = re.compile(r"\b(?:option|choice|letter)s?\s+\Z", re.I)
SMALL_AFTER = re.compile(
    r"\b(?:option|choice|letter|answer|choose|pick|select|with|say|think|believe|it\s+is"
    r"|it['\u2019]s|so|thus|hence|therefore|be)[,:]?\s+\Z",
    re.I,
)
"""What makes a small letter behind it one that names an option."""
HEDGED = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|also|actually|no,|wait,?|rather)\s+(?:it\s+(?:is|could\s+be)\s+)?"
    r"(?:be\s+)?(?:option\s+)?\(?[A-Za-z]\)?\s*(?:[.,;!?]|\Z)",
    re.I,
)

# --- Denials ---------------------------------------------------------------------------------

_NOT = r"(?:\bnot|n['\u2019]t|\bcannot|\bnever|\bneither|\bnor|\bthan|\binstead\s+of|\bexcept)"
_IS = r"(?:is|was|are|seems|looks|would\s+be|must\s+be|can|could|does|do)"
DENIED_BEFORE = re.compile(
    rf"{_NOT}\s+(?:be\s+|is\s+)?(?:an?\s+|the\s+)?(?:(?:options?|choices?|answer|letter)\s+)?"
    r"(?:\(?[a-z]\)?\s*(?:,|/|or\b|and\b|nor\b)\s*)*\Z",
    re.I,
)
"""Also before the second letter of ``not A or B``."""
DENIED_BEHIND = re.compile(
    rf"(?:\s+{_IS}\s*(?:\bnot\b|n['\u2019]t\b)|\s+cannot\b|\s+can['\u2019]t\b"
    rf"|\s+(?:{_IS}\s+)?(?:clearly\s+|obviously\s+)?(?:wrong|incorrect|false)\b)",
    re.I,
)
DENIED = re.compile(
    r"\b(?:not|never|neither|nor|without|except|than|instead\s+of)\b|n['\u2019]t\b", re.I
)

# --- Statements ------------------------------------------------------------------------------

_STATES = (
    r"(?:\s+(?:is|was|will\s+be|would\s+be|should\s+be|must\s+be|has\s+to\s+be)\b|\s*[:=]"
    r"|\s+[-–—→]\s)\s*:?\s*"
    r"(?:(?:that|option|choice|letter|clearly|probably|likely|definitely|simply|most)\s+)*"
)
STATED = re.compile(
    r"\b(?:answer|ans|solution|(?:correct|right|best)\s+(?:option|choice|letter|one))\b"
    rf"(?:[^.\n:=]{{0,60}}?){_STATES}"
    r"|\u7b54\u6848(?:\u662f|\u4e3a|\u70ba|:)+\s*",
    re.I,
)
"""What says that an answer follows, in English and Chinese."""
CALLED_RIGHT = re.compile(
    r"\s+(?:is|was|must\s+be|would\s+be)\s+(?:clearly\s+)?(?:the\s+)?(?:correct|right|best|answer)\b",
    re.I,
)
"""What says of the letter before it that it is the answer."""
FINAL = re.compile(rf"\bfinal\s+(?:answer|choice)\b(?:[^.\n:=]{{0,40}}?){_STATES}", re.I)
NEAR = 80
"""How many characters before and behind a letter say what it means."""
SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n|;")
REFERENCE = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?"
    r"(?:\(([a-z])\)|([a-z])(?=[.):,]|\s*$))",
    re.I,
)
