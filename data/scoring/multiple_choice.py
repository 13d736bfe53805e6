r"""Which option a free answer to a multiple-choice question names: by letter, or by its text.

Models are asked for a letter and give ``B``, ``(b)``, ``**B**``, ``\boxed{B}``, ``B: a dog``,
``The answer is B.`` or a page of reasoning. What an answer says is read in steps, the surest
first; the first step that names an option decides, and a step that names two names none. The
article of ``A dog``, the ``I`` of ``I think`` and the ``T`` of ``T-shirt`` are not letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m3router.data.texts import clean, on_clean_texts, plain, widths_folded

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


_GONE = "\x00"
"""Stands for each letter of an option's text where only letters are looked for."""


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Find which option an answer names.

    The steps: the whole answer is an option's text; what is boxed; what is called the final
    answer; what follows "the answer is"; a first or last line that holds nothing else; a letter
    that begins the answer; letters anywhere; the text of one option anywhere.

    Args:
        text: What the model said.
        choices: The options' texts, first one ``A``; may be empty, then any letter names one.

    Returns:
        0 for ``A``; None where no option, several, or one that does not exist is named.
    """
    reader = _reader(choices)
    text = widths_folded(clean(text))
    body, boxed = unmarked(text)
    for whole in (text, body, body.strip("()")):
        place = reader.by_text(whole)
        if place is not None:
            return place
    named = next((found for found in reader.steps(body, boxed) if found), set())
    place = named.pop() if len(named) == 1 else None
    return place if place is not None and reader.has(place) else None


def read_reference(text: str, choices: Sequence[str]) -> int | None:
    """Find which option a reference names: by its text, or by a letter at its beginning.

    Args:
        text: A reference answer, such as ``B``, ``(b)``, ``B. dog``, ``Answer: B`` or ``dog``.
        choices: As for :func:`read_choice`.

    Returns:
        0 for ``A``; None where it names no option.
    """
    reader = _reader(choices)
    text = widths_folded(clean(text))
    place = reader.by_text(text)
    match = REFERENCE.match(text)
    if place is None and match is not None:
        place = _index(match[1] or match[2])
    return place if place is not None and reader.has(place) else None


@on_clean_texts
def score_choice(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    r"""Compare the chosen option of a multiple-choice question.

    No benchmark's rule: it reads what people would, by letter (``B``, ``**B**``, ``[b]``,
    ``\boxed{B}``, ``B: dog``, ``The answer is B.``, ``B`` before or behind an explanation) or by
    the option's text; see :func:`read_choice`. An answer that names
    two options, or one that does not exist, is wrong.

    Args:
        answer: What the model said.
        answers: Letters or texts of right choices.
        choices: The choices' texts, first one ``A``; may be empty when letters are used.

    Returns:
        1.0 or 0.0.
    """
    right = {read_reference(text, choices) for text in answers} - {None}
    return float(read_choice(answer, choices) in right)


def _reader(choices: Sequence[str]) -> _Reader:
    bare = tuple(unmarked(widths_folded(clean(choice)))[0] for choice in choices)
    return _Reader(bare, tuple({plain(a), plain(b)} for a, b in zip(choices, bare, strict=True)))


@dataclass(frozen=True)
class _Reader:
    """Reads texts whose markup is gone, for one list of options.

    Attributes:
        choices: The options' texts without markup.
        forms: What each option's text may be, plainly: with and without its markup.
    """

    choices: tuple[str, ...]
    forms: tuple[set[str], ...]

    def has(self, place: int) -> bool:
        return not self.choices or place < len(self.choices)

    def by_text(self, text: str) -> int | None:
        """The option whose text this is."""
        wanted = plain(text)
        told = (place for place, forms in enumerate(self.forms) if wanted in forms)
        return next(told, None) if wanted else None

    def steps(self, body: str, boxed: Sequence[str]) -> Iterator[set[int]]:
        """What each step names, the surest step first."""
        yield {one for text in boxed for one in self._told(text)}
        yield self._stated(FINAL, body)
        yield self._stated(STATED, body) | _called_right(body)
        lines = [line for line in body.splitlines() if line.strip()]
        yield {one for line in (*lines[:1], *lines[-1:]) for one in self._alone(line)}
        yield self._leading(body)
        yield self._mentioned(body)
        yield self._texts_within(body)

    def _stated(self, statement: re.Pattern[str], body: str) -> set[int]:
        """What follows each place where something is said to be the answer."""
        tails = [body[match.end() :] for match in statement.finditer(body)]
        return {one for tail in tails for one in self._told(tail)}

    def _told(self, tail: str) -> set[int]:
        """What the beginning of a text names, where a statement says that it names something."""
        tail = tail.lstrip()
        end = SENTENCE_END.search(tail)
        sentence = (tail[: end.start()] if end else tail).strip(" ,:()\"'")
        # A capital "A" is not an article here: it would be the letter.
        for said in (tail, sentence, re.sub(r"^(?:[Tt]he|[Aa]n|a)\s+", "", sentence)):
            place = self.by_text(said)
            if place is not None:
                return {place}
        match = LEADING.match(tail)
        if match is None:
            return set()
        letter, behind = match[1] or match[2], tail[match.end() :]
        small_verb = letter == "a" and NO_NOUN.match(behind)
        if not (match[1] or small_verb or _names(letter, behind)) or DENIED_BEHIND.match(behind):
            return set()
        joined = re.match(r"\s*(?:[/,&]|or\b|and\b)\s*(?=\(?[A-Za-z]\b)", behind)
        others = self._told(behind[joined.end() :]) if joined else set()
        return {_index(letter)} | others

    def _alone(self, line: str) -> set[int]:
        """What a line holds when it holds nothing else: a letter, or an option's text."""
        place = self.by_text(line)
        if place is not None:
            return {place}
        match = LONE.fullmatch(line)
        if match is not None:
            place = _index(match[1])
            # An answer that was cut off may end in the "I" of a sentence.
            return set() if match[1] == "I" and not self.has(place) else {place}
        match = LEADING.match(line)
        if match is None:
            return set()
        place = _index(match[1] or match[2])  # as in "B. dog"
        return {place} if self.by_text(line[match.end() :].lstrip(" .:)-")) == place else set()

    def _leading(self, body: str) -> set[int]:
        """The letter that begins an answer, and others that are listed beside it."""
        match = LEADING.match(body)
        if match is None:
            return set()
        letter, behind = match[1] or match[2], body[match.end() :]
        if letter in "Ii" and re.match(r"\s*[,;]", behind):
            return set()
        closed = match[1] or (CLOSED.match(behind) and not ABBREVIATED.match(behind))
        if not (closed or BECAUSE.match(behind)) or DENIED_BEHIND.match(behind):
            return set()
        rest = self._without_texts(behind)
        # "B, C" and "B. No, C." name two; the C of "B. Vitamin C." only ends a sentence.
        ends = re.match(r"\s*,", behind) or HEDGED.search(rest)
        others = {
            place
            for place, end, listed in _letters(rest)
            if listed or (ends and CLOSED.match(rest, end))
        }
        return {_index(letter)} | others

    def _mentioned(self, body: str) -> set[int]:
        """All letters in an answer, those inside of options' texts left out."""
        rest, named, sure = self._without_texts(body), set(), False
        for place, end, listed in _letters(rest):
            closed = listed or CLOSED.match(rest, end) or JOINED.match(rest, end)
            if closed or self.has(place):
                named.add(place)
                sure = sure or bool(closed)
        # "B cat" names neither when the cat is A.
        return named if sure or not named else named | self._texts_within(body)

    def _without_texts(self, body: str) -> str:
        for choice in sorted(self.choices, key=len, reverse=True):
            if len(plain(choice)) > 1:
                body = _within(choice).sub(lambda match: _GONE * len(match[0]), body)
        return body

    def _texts_within(self, body: str) -> set[int]:
        """The options whose texts an answer holds as whole words; the longer covers the shorter."""
        named, rest = set(), body
        for place, choice in sorted(enumerate(self.choices), key=lambda one: -len(one[1])):
            pattern = _within(choice)
            if any(not _is_denied(rest, match.start()) for match in pattern.finditer(rest)):
                named.add(place)
            rest = pattern.sub(lambda match: _GONE * len(match[0]), rest)
        # Within a sentence, or first of all, "A" may be the letter before another option's text.
        if named and re.search(rf"(?:\A|[^.!?\s]\s+)A\s+[\w{_GONE}]", rest):
            named.add(0)
        return named


def _called_right(body: str) -> set[int]:
    """The letters of which an answer says that they are correct, as in "B is correct"."""
    return {place for place, end, _ in _letters(body) if CALLED_RIGHT.match(body, end)}


def _is_denied(body: str, place: int) -> bool:
    """Whether a denial stands before a place, in its sentence."""
    before = body[max(0, place - NEAR) : place]
    return DENIED.search(SENTENCE_END.split(before)[-1]) is not None


def _names(letter: str, behind: str) -> bool:
    """Whether a letter without brackets names an option, from what stands behind it."""
    if ABBREVIATED.match(behind):
        return False
    if CLOSED.match(behind):
        return True
    if letter in "Iia":
        return False
    return (letter.isupper() and letter != "A") or NO_NOUN.match(behind) is not None


def _letters(body: str) -> Iterator[tuple[int, int, bool]]:
    """Letters that name an option and are not denied: place, where they end, whether listed.

    Listed are those in brackets, and those before a mark as in a list of options.
    """
    for match in LETTER.finditer(body):
        before = body[max(0, match.start() - NEAR) : match.start()]
        behind = body[match.end() : match.end() + NEAR]
        letter, listed = match[1] or match[2], match[1] is not None
        if not listed:
            called = NAMED.search(before) is not None
            if letter.islower():
                if not (SMALL_AFTER.search(before) and CLOSED.match(behind)):
                    continue
            elif not (_names(letter, behind) or called) or (letter == "I" and not called):
                continue
            listed = _is_listed(before, behind)
        if not (DENIED_BEFORE.search(before) or DENIED_BEHIND.match(behind)):
            yield _index(letter), match.end(), listed


def _is_listed(before: str, behind: str) -> bool:
    """Whether a letter stands as in ``A. cat B. dog``, ``A: cat, B: dog`` or ``, B``.

    The ``C`` of ``vitamin C. It`` does not: a sentence ends there.
    """
    if re.match(r"\s*[):]", behind):
        return True
    if re.match(rf"\.\s*(?:[a-z\d{_GONE}]|\Z)", behind):
        return re.search(r"[a-z]\s\Z", before) is None or behind.rstrip() != "."
    return re.search(r"\A\W*(?:or|and)?\W*\Z", before) is not None and bool(CLOSED.match(behind))


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")


def _within(choice: str) -> re.Pattern[str]:
    """An option's text as whole words; ``5`` is not within ``-5``, ``0.5``, ``5,000`` or ``5%``."""
    words = r"\s+".join(map(re.escape, plain(choice).split())) or r"(?!)"
    return re.compile(rf"(?<![\w\-])(?<!\d[.,]){words}(?![\w%]|[.,]\d)", re.IGNORECASE)
