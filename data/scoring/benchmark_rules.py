"""Rules of single benchmarks, where they differ from the general metrics.

Each function repeats what the benchmark's own script computes for one answer, or lmms-eval
(github.com/EvolvingLMMs-Lab/lmms-eval) where there is no such script, odd or not, so that numbers
are comparable; docs/benchmarks.md says which, and of what date. MMMU's, NExT-QA's and EgoSchema's
rules are in :mod:`m3router.data.scoring.letter_parsing`, VQAv2's is in
:mod:`m3router.data.scoring.vqa`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from m3router.data.texts import on_clean_texts

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LETTER_FIRST = re.compile(r"\s*([A-Z])\.")
_MMBENCH_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_MMBENCH_LAST = 5
"""A letter names an option of MMBench only among so few last words, less one."""
_MMBENCH_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MMBENCH_FAILED = "Failed to obtain answer via API"
_NO_OPTION = "Z"


@on_clean_texts
def score_gqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts without case and ASCII punctuation; white space within counts.

    GQA in lmms-eval: ``exact_match`` with ``ignore_case`` and ``ignore_punctuation``
    (``tasks/gqa/gqa.yaml``; ``api/metrics.py``, ``exact_match_hf_evaluate``). GQA's own script
    compares texts as they are, and leaves their preparation to its users.

    Args:
        answer: What the model said.
        answers: Reference answers; one match is enough.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(_unpunctuated(answer) in {_unpunctuated(text) for text in answers})


@on_clean_texts
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


@on_clean_texts
def score_pope(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Read an answer as no where its first sentence holds the word no or not, else as yes.

    POPE's own script (``evaluate.py`` of github.com/AoiDolphin/POPE, the same as
    ``llava/eval/eval_pope.py`` of LLaVA). Its oddities: whatever is not no is yes, ``NO`` and an
    empty answer among it; words are split at blanks alone.

    Args:
        answer: What the model said.
        answers: ``yes`` or ``no``.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    read = "no" if {"No", "not", "no"} & set(words) else "yes"
    return float(read in {text.lower() for text in answers})


@on_clean_texts
def score_mme(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Read yes or no from the first four characters.

    MME's own tool (``eval_tool/calculation.py``, ``parse_pred_ans``). Its oddities: ``Know`` is
    no, ``N.`` and ``y`` are neither. MME's sums over such scores are in
    :mod:`m3router.data.scoring.mme`.

    Args:
        answer: What the model said.
        answers: ``yes`` or ``no``.
        choices: Not used.

    Returns:
        1.0 or 0.0; an answer that is neither scores 0.
    """
    start = answer.lower()[:4]
    read = next((word for word in ("yes", "no") if word in start), "other")
    return float(read in {text.lower() for text in answers})


@on_clean_texts
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
    return float(answer[:1].lower() in {text.lower() for text in answers})


@on_clean_texts
def score_scienceqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the bare letter without case, or a capital and full stop at the beginning.

    ScienceQA in lmms-eval: ``tasks/scienceqa/utils.py``, ``sqa_process_results`` as it is since
    July 2025 (its pull request 723): ``b``, ``B.`` and ``B. dog`` are B, ``b.`` and ``(B)`` are
    nothing.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    right = {text.lower() for text in answers}
    if answer.lower() in right:
        return 1.0
    return float(answer[:1].isupper() and answer[1:2] == "." and answer[0].lower() in right)


@on_clean_texts
def score_mmbench(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the one option that the answer names by letter, or else by text.

    VLMEvalKit, by MMBench's own authors (github.com/open-compass/VLMEvalKit,
    ``vlmeval/utils/matching_util.py``, ``can_infer``): ``**B**``, ``[B]``, ``B: dog`` and ``The
    answer is B`` are B, if the letter is among the last four words. NOTE: where it would ask GPT,
    this scores 0, as its ``exact_matching`` does; a question here stands alone, so that
    CircularEval over its rotations is not.

    Args:
        answer: What the model said.
        answers: The letters of right choices.
        choices: The choices' texts, first one ``A``.

    Returns:
        1.0 or 0.0.
    """
    return float(_mmbench_letter(answer, choices) in answers)


def _unpunctuated(text: str) -> str:
    """As NumPy's string functions do it: no longer than the text was, no NUL at the end."""
    return text.lower()[: len(text)].translate(_NO_PUNCTUATION).rstrip("\0")


def _mmbench_letter(text: str, choices: Sequence[str]) -> str:
    """The letter that a text names; empty when it names none or several."""
    if any(refusal in text for refusal in _MMBENCH_REFUSALS):
        return ""
    letters = string.ascii_uppercase[: len(choices)]
    words = text.translate(_MMBENCH_MARKS).split()
    named = [letter for letter in letters if letter in words]
    if _MMBENCH_FAILED not in text:
        if len(named) == 1 and words.index(named[0]) > len(words) - _MMBENCH_LAST:
            return named[0]
        if not named and _NO_OPTION in words:
            return ""
    lowered = text.lower()
    if len(lowered) > 2 * sum(map(len, choices)):
        return ""
    pairs = zip(letters, choices, strict=False)
    told = [letter for letter, choice in pairs if choice.lower() in lowered]
    return told[0] if len(told) == 1 else ""
