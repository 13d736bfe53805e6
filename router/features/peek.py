"""What the coarsest scale's own prefill shows of a question, before anything is answered."""

from __future__ import annotations

import numpy as np

from m3router.m3core.matryoshka.base import Peek

VERSION = "peek-1"


def peek_features(peek: Peek) -> np.ndarray:
    """Features of one peek.

    Returns:
        float32 vector: entropy of the first answer token in nats, its top probability, the margin
        between the two likeliest tokens; natural-log probabilities of the likeliest tokens (k);
        the logarithm of the prompt's tokens without the image's; states of the prompt's last
        token behind half of the layers (D) and behind all (D). Length k + 4 + 2 D.
    """
    odds = np.exp(peek.top_logprobs[:2].astype(np.float64))
    margin = odds[0] - odds[1] if len(odds) > 1 else odds[0]
    odds_of_first = np.array([peek.entropy, odds[0], margin])
    length = np.log([peek.text_tokens])
    parts = (odds_of_first, peek.top_logprobs, length, peek.middle, peek.last)
    return np.concatenate(parts).astype(np.float32)
