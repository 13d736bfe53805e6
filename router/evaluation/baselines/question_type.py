"""What kind of question is asked, read from its words alone; simple on purpose.

The first rule that matches gives the type. The rules follow the usual question types of visual
question answering (how many, yes/no, what colour; Antol et al., ICCV 2015, section 4), with one
for reading text, which is what needs detail.
"""

from __future__ import annotations

import re

import numpy as np

OTHER = "other"
RULES: tuple[tuple[str, str], ...] = (
    ("count", r"\bhow many\b|\bhow much\b|\bnumber of\b|\bcount\b"),
    (
        "read",
        r"\b(text|word|words|written|write|read|reads|say|says|said|spell|spelled|sign|label|"
        r"letter|letters|digit|digits|number|title|name|brand|logo|caption|plate|tag|price|date|"
        r"entry)\b",
    ),
    ("compare", r"\b(most|least|\w+est|more|less|fewer|\w+er than|than|same|compare|difference)\b"),
    ("colour", r"\bcolou?rs?\b"),
    ("yes or no", r"^(is|are|was|were|does|do|did|can|could|has|have|had|will|would|should)\b"),
    ("where", r"^where\b|\b(left|right|above|below|behind|position|located)\b"),
    ("who", r"^(who|whose)\b"),
    ("when", r"^(when|what time|what year)\b"),
    ("why or how", r"^(why|how)\b"),
    ("kind", r"\b(kind|type|shape|sort|animal|object)\b"),
    ("what or which", r"^(what|which)\b"),
)
"""Type -> pattern that is looked for in the lower-case question, in this order."""

_COMPILED = tuple((name, re.compile(pattern)) for name, pattern in RULES)


def question_type(question: str) -> str:
    """The type of a question, one of the names in `RULES` or "other".

    >>> question_type("How many shapes are there?"), question_type("What colour is the bar?")
    ('count', 'colour')
    >>> question_type("What number is on the purple tag?"), question_type("Is there a dog?")
    ('read', 'yes or no')
    >>> question_type("Prove the theorem.")
    'other'
    """
    text = question.strip().lower()
    return next((name for name, pattern in _COMPILED if pattern.search(text)), OTHER)


def question_types(questions: np.ndarray) -> np.ndarray:
    """Types (N,) of questions; equal questions are looked at once."""
    texts, place = np.unique(np.asarray(questions, dtype=str), return_inverse=True)
    each = np.array([question_type(text) for text in texts], dtype=object)
    return np.asarray(each[place.reshape(-1)], dtype=str)
