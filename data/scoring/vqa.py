"""The soft accuracy of VQA v2, TextVQA and VizWiz, and how answers are normalised for it.

Implements ``processPunctuation`` and ``processDigitArticle`` of
``PythonEvaluationTools/vqaEvaluation/vqaEval.py`` in github.com/GT-Vision-Lab/VQA (Antol et al.,
ICCV 2015; Goyal et al., CVPR 2017), with their quirks:

* A punctuation mark becomes a space, unless it stands beside a space somewhere in the text, or a
  comma stands between two digits anywhere in it: then *every* occurrence is removed.
* Colons, apostrophes and a few more marks are not punctuation.
* A full stop is removed when no digit follows it, so the one of ``3.`` goes and that of ``.5``
  stays. At most 32 are removed, because ``re.UNICODE`` (= 32) is passed where the count belongs.
* ``none`` is the number 0, number words end at ten, and an article that stands alone vanishes.
* Contractions are looked up in lower case, so those of the table with a capital never match.

Pythia's ``EvalAIAnswerProcessor``, which lmms-eval scores TextVQA and VizWiz with, repeats the two
with a change to commas, and does more before: see :func:`tokenize_first`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from m3router.data.texts import on_clean_texts

_PUNCTUATION = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-") + (
    (">", "<", "@", "`", ",", "?", "!")
)
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = int(re.UNICODE)
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_COMMAS_IN_NUMBER = re.compile(r"\d,+\d")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
} | {"none": "0"}

_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock
oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've wasn't
we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's
who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
"""Contractions that are looked up without their one apostrophe."""

_CONTRACTED_TWICE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've
someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
"""Contractions with two apostrophes, looked up with either one of them left out."""

_CONTRACTED_OTHERWISE = {
    "twas": "'twas",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _contractions() -> dict[str, str]:
    """Build the table of the benchmark from its rules."""
    table = {word.replace("'", ""): word for word in _CONTRACTED.split()}
    for word in _CONTRACTED_TWICE.split():
        head, middle, tail = word.split("'")
        table[f"{head}{middle}'{tail}"] = word
        table[f"{head}'{middle}{tail}"] = word
    return table | _CONTRACTED_OTHERWISE


_CONTRACTIONS = _contractions()


def strip_punctuation(text: str, *, comma: re.Pattern[str] = _COMMA_IN_NUMBER) -> str:
    """Remove or blank punctuation; ``processPunctuation`` of the benchmark.

    Args:
        text: Any text.
        comma: Where this is found, every mark is removed rather than blanked.

    >>> strip_punctuation("t-shirt, red."), strip_punctuation("1,000 t-shirts")
    ('t shirt red', '1000 tshirts')
    """
    remove_all = comma.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if remove_all or beside_space else " ")
    return _PERIOD.sub("", cleaned, count=_MOST_PERIODS)


def normalize_words(text: str) -> str:
    """Lower-case, spell numbers as digits, drop articles, restore apostrophes.

    This is ``processDigitArticle`` of the benchmark.

    >>> normalize_words("The dog doesnt have two")
    "dog doesn't have 2"
    """
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def normalize(text: str) -> str:
    """Apply both, punctuation first, as the benchmark does."""
    return normalize_words(strip_punctuation(text))


def normalize_evalai(text: str) -> str:
    """Apply both as lmms-eval does; several commas between two digits count there too.

    >>> normalize("1,,2-3"), normalize_evalai("1,,2-3")
    ('1 2 3', '123')
    """
    return normalize_words(strip_punctuation(text, comma=_COMMAS_IN_NUMBER))


def tokenize_first(text: str) -> str:
    """What ``EvalAIAnswerProcessor.__call__`` does before the two: ``word_tokenize`` and lines.

    Lower case, no comma or question mark, and ``'s`` apart.

    >>> tokenize_first("The man's 1,000 hats?")
    "the man 's 1000 hats"
    """
    lowered = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return lowered.replace("\n", " ").replace("\t", " ").strip()


@on_clean_texts
def score_vqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Give the VQA soft accuracy: the mean over annotators of min(1, matches among others / 3).

    VQA v2's own script: ``PythonEvaluationTools/vqaEvaluation/vqaEval.py``, ``evaluate``
    (github.com/GT-Vision-Lab/VQA, master). Its oddity, on purpose by its authors (issue 14
    there, December 2022): when all annotators gave the same text, *nothing* is normalised, not even
    case, so ``Black.`` scores 0 against ten times ``black``. lmms-eval normalises there too since
    August 2025 (its pull request 794), and gives 1.

    Args:
        answer: What the model said.
        answers: One answer per annotator, usually ten.
        choices: Not used.

    Returns:
        A score in [0, 1].
    """
    said = _one_line(answer)
    references = [_one_line(text) for text in answers]
    if len(set(references)) > 1:
        said = normalize(said)
        references = [normalize(text) for text in references]
    return _soft_accuracy(said, references)


@on_clean_texts
def score_textvqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Give the VQA soft accuracy of TextVQA and VizWiz in lmms-eval.

    ``tasks/textvqa/utils.py``, ``textvqa_process_results``, the same as
    ``tasks/vizwiz_vqa/utils.py``: answer and references all pass ``EvalAIAnswerProcessor``.

    Args:
        answer: What the model said.
        answers: One answer per annotator, usually ten.
        choices: Not used.

    Returns:
        A score in [0, 1].
    """
    references = [normalize_evalai(tokenize_first(text)) for text in answers]
    return _soft_accuracy(normalize_evalai(tokenize_first(answer)), references)


def _soft_accuracy(said: str, references: Sequence[str]) -> float:
    """The mean over annotators of min(1, matches among the others / 3)."""
    matches = [reference == said for reference in references]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
