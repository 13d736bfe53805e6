"""Open-ended video questions (MSVD-QA, MSRVTT-QA, ActivityNet-QA): yes or no, and a score to 5.

The protocol is that of Video-ChatGPT (Maaz et al., ACL 2024): github.com/mbzuai-oryx/Video-ChatGPT,
``quantitative_evaluation/evaluate_activitynet_qa.py`` (commit 69ea1db). Its text is taken from
lmms-eval, ``lmms_eval/tasks/activitynetqa/utils.py`` (commit 0863814, Apache-2.0), which is the
same; IG-VLM uses it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from m3router.data.sources.benchmarks.base import SHORT
from m3router.m3core.judging.protocols.base import MOST_LETTERS, Grade, Protocol, mean, number_in

HIGHEST = 5.0
_PRED = re.compile(r"""['"]pred['"]\s*:\s*(?:'([^']*)'|"([^"]*)")""")
_SCORE = re.compile(r"""['"]score['"]\s*:\s*(['"]?)\s*([\d.+-]+)\s*\1\s*[,}]""")
_SYSTEM = (
    "You are an intelligent chatbot designed for evaluating the correctness of generative outputs "
    "for question-answer pairs. Your task is to compare the predicted answer with the correct "
    "answer and determine if they match meaningfully. Here's how you can accomplish the task:"
    "------"
    "##INSTRUCTIONS: "
    "- Focus on the meaningful match between the predicted answer and the correct answer.\n"
    "- Consider synonyms or paraphrases as valid matches.\n"
    "- Evaluate the correctness of the prediction compared to the answer."
)
_PROMPT = (
    "Please evaluate the following video-based question-answer pair:\n\n"
    "Question: {question}\n"
    "Correct Answer: {reference}\n"
    "Predicted Answer: {answer}\n\n"
    "Provide your evaluation only as a yes/no and score where the score is an integer value "
    "between 0 and 5, with 5 indicating the highest meaningful match. "
    "Please generate the response in the form of a Python dictionary string with keys 'pred' and "
    "'score', where value of 'pred' is  a string of 'yes' or 'no' and value of 'score' is in "
    "INTEGER, not STRING."
    "DO NOT PROVIDE ANY OTHER OUTPUT TEXT OR EXPLANATION. Only provide the Python dictionary "
    "string. "
    "For example, your response should look like this: {'pred': 'yes', 'score': 4.8}."
)


def bare_question(question: str) -> str:
    """The question without the instruction that :mod:`m3router.data.sources` added to it.

    >>> bare_question("who sings? Answer the question using a single word or phrase.")
    'who sings?'
    """
    return question.strip().removesuffix(SHORT.strip()).rstrip()


def parse_dictionary(reply: str) -> Grade | None:
    """Read ``{'pred': 'yes', 'score': 4}``; yes is 1, no is 0.

    As the published script, ``pred`` is yes where it holds that word, and the score is cut to a
    whole number. NOTE: nothing is evaluated, so that either kind of quotes will do, and what stands
    around the braces, such as a code fence, is passed over.

    Args:
        reply: What the judge said.

    Returns:
        None where there is no such dictionary, it is neither yes nor no, or the score is not in
        [0, 5].

    >>> parse_dictionary("{'pred': 'yes', 'score': 4.8}").numbers
    {'yes': 1.0, 'score': 4.0}
    """
    start, end = reply.find("{"), reply.rfind("}") + 1
    inside = reply[start:end] if 0 <= start < end else ""
    preds, scores = _PRED.findall(inside[:MOST_LETTERS]), _SCORE.findall(inside[:MOST_LETTERS])
    if len(preds) != 1 or len(scores) != 1:
        return None
    said, score = "".join(preds[0]).lower(), number_in(scores[0][1])
    if score is None or not 0 <= score <= HIGHEST or not ("yes" in said or "no" in said):
        return None
    yes = float("yes" in said)
    return Grade(score=yes, numbers={"yes": yes, "score": float(int(score))})


def summarize(verdicts: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """Accuracy in percent, and the mean score from 0 to 5, as published.

    Args:
        verdicts: Data set and numbers of each.
    """
    if not verdicts:
        return {}
    return {
        "accuracy": 100 * mean([numbers["yes"] for _, numbers in verdicts]),
        "score": mean([numbers["score"] for _, numbers in verdicts]),
    }


VIDEO_QA = Protocol(
    name="video-qa",
    source="github.com/mbzuai-oryx/Video-ChatGPT, "
    "quantitative_evaluation/evaluate_activitynet_qa.py, commit 69ea1db; text from "
    "github.com/EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/activitynetqa/utils.py, commit "
    "0863814, Apache-2.0",
    judge="gpt-3.5-turbo",
    system=_SYSTEM,
    prompt=_PROMPT,
    question=bare_question,
    parse=parse_dictionary,
    summary=summarize,
    max_tokens=256,
    deviations=(
        "The temperature is 0; the published script leaves it to the server.",
        "A reply that cannot be read is an error; the published script asks until it can be read.",
    ),
)
