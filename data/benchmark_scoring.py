"""Rules of single benchmarks as lmms-eval has them, where they differ from the general metrics.

Each function repeats what lmms-eval (github.com/EvolvingLMMs-Lab/lmms-eval) computes for one
answer, odd or not, so that numbers are comparable. Its harness strips answers before it calls the
metrics ``exact_match`` and ``anls``; the models of this project strip theirs. MMMU's rule, which
NExT-QA shares, and EgoSchema's are in :mod:`data.letter_parsing`.
"""

from __future__ import annotations

import re
import statistics
import string
from collections.abc import Sequence

from data.vqa_text import normalize_evalai, tokenize_first

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LETTER_FIRST = re.compile(r"\s*([A-Z])\.")
_LETTERS = "ABCDE"
_BESIDE_LETTER = ("|.", "|,", "|:", "|)", "|).", "(|)", "(|).", ":|", ":|,", ":|.", ":|)", ":|).")
"""Words that name an option of MMBench, ``|`` standing for its letter, in order of trust."""


def score_vqav2(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Give the VQA soft accuracy of VQAv2 in lmms-eval.

    ``tasks/vqav2/utils.py``, ``vqav2_process_results``, with ``EvalAIAnswerProcessor``. Unlike the
    benchmark's own script (the metric ``vqa``) it normalises the answer always and first pulls it
    apart, but not the references: ``man's`` scores 0 against ``man's`` and ``mans``.

    Args:
        answer: What the model said.
        answers: One answer per annotator, usually ten.
        choices: Not used.

    Returns:
        A score in [0, 1].
    """
    said = normalize_evalai(tokenize_first(answer))
    references = [text.replace("\n", " ").replace("\t", " ").strip() for text in answers]
    if len(set(references)) > 1:
        said = normalize_evalai(said)
        references = [normalize_evalai(text) for text in references]
    return _soft_accuracy(said, references)


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


def score_gqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts without case and ASCII punctuation; white space counts.

    GQA in lmms-eval: ``exact_match`` with ``ignore_case`` and ``ignore_punctuation``
    (``tasks/gqa/gqa.yaml``; ``api/metrics.py``, ``exact_match_hf_evaluate``).

    Args:
        answer: What the model said.
        answers: Reference answers; one match is enough.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(_unpunctuated(answer) in {_unpunctuated(text) for text in answers})


def score_ai2d(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the letter before a full stop at the start, or else the whole answer, as GQA does.

    AI2D in lmms-eval: ``tasks/ai2d/utils.py``, ``MultiChoiceRegexFilter``, then ``exact_match``
    as for GQA. So ``(B)`` and ``b`` are ``B``; ``B dog`` is not.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    start = _LETTER_FIRST.match(answer)
    return score_gqa(start[1] if start else answer, answers)


def score_pope(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the whole answer without case and outer white space.

    POPE in lmms-eval: ``tasks/pope/utils.py``, ``pope_process_results``. Strict: ``Yes.`` and
    ``Yes, there is`` score 0.

    Args:
        answer: What the model said.
        answers: ``yes`` or ``no``.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(answer.lower().strip() in {text.lower().strip() for text in answers})


def score_seedbench(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the first letter without case, whatever follows it: ``because`` is ``B``.

    SEED-Bench in lmms-eval: ``tasks/seedbench/utils.py``, ``seed_process_result`` and
    ``seed_aggregation_result``, whose first versions minded the case.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(answer.strip()[:1].lower() in {text.strip().lower() for text in answers})


def score_scienceqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the bare letter without case, and nothing else: ``B.`` scores 0.

    ScienceQA in lmms-eval: ``tasks/scienceqa/utils.py``, ``sqa_process_results`` as it is since
    pull request 174 (July 2024). It means to read ``B.`` as well, but looks for a capital after it
    has lower-cased the answer (its issues 185 and 427). NOTE: for labels that should not hang on
    that, give the examples the metric ``choice``.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(answer.strip().lower() in {text.strip().lower() for text in answers})


def score_mmbench(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the one option that the answer names by letter, or else by text.

    MMBench in lmms-eval: ``tasks/mmbench/mmbench_evals.py``, ``can_infer``. NOTE: where that finds
    nothing, lmms-eval asks GPT, and without it guesses at random; here nothing scores 0. One
    question is scored by itself; ``CircularEval`` over its rotations is not.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: The choices' texts, first one ``A``.

    Returns:
        1.0 or 0.0.
    """
    return float(_mmbench_letter(answer.strip(), choices) in answers)


def _soft_accuracy(said: str, references: Sequence[str]) -> float:
    """The mean over annotators of min(1, matches among the others / 3)."""
    matches = [reference == said for reference in references]
    total = sum(matches)
    return float(statistics.mean(min(1.0, (total - match) / 3) for match in matches))


def _unpunctuated(text: str) -> str:
    """As NumPy's string functions do it: no longer than the text was, no NUL at the end."""
    return text.lower()[: len(text)].translate(_NO_PUNCTUATION).rstrip("\0")


def _mmbench_letter(text: str, choices: Sequence[str]) -> str:
    """The letter that a text names; empty when it names none or several."""
    words = text.split()
    named = _named("|", words)
    # A lone "A" in a longer text may be an article.
    if len(named) == 1 and not ("A" in words and len(words) > 3):
        return named[0]
    for pattern in _BESIDE_LETTER:
        named = _named(pattern, words)
        if len(named) == 1:
            return named[0]
    lowered = text.lower()
    told = [place for place, choice in enumerate(choices) if choice.lower() in lowered]
    return chr(ord("A") + told[0]) if len(told) == 1 else ""


def _named(pattern: str, words: Sequence[str]) -> list[str]:
    return [letter for letter in _LETTERS if pattern.replace("|", letter) in words]
