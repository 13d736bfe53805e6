"""AVG-LLaVA's rule: the best scale is the one of least answer loss; no budget, one point.

Lan et al., arXiv 2410.02745, section 3.3 (RGLF), and the published code (DeepLearnXMU/AVG-LLaVA,
llava/model/language_model/llava_llama.py): the frozen model's cross-entropy of the reference
answer at every granularity, the index of the smallest as the router's label, the router's argmax
at inference.

NOTE: the published router is a transformer layer on the visual and the instruction tokens, trained
with cross-entropy and a rank loss; here it is a multinomial logistic regression, trained with
cross-entropy, on the features that our router reads. The rule is compared, not the network.

NOTE: a log of generated answers does not hold the reference's loss. Where the answer is right it
is -logprob, the answer being the reference; where it is wrong the reference has at most what the
answer left over, so that its loss is at least -log(1 - exp(logprob)), and that bound is taken.
Soft scores mix the two by the score. In a log of reference answers the score is the probability of
answering rightly, and its negative logarithm is the loss.

Notation for shapes: N examples, K options.
"""

from __future__ import annotations

import numpy as np

from m3router.data.errors import NotLearnableError
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.baselines.classes import class_probabilities
from m3router.router.evaluation.methods import Chosen, Known

FLOOR = 1e-9  # of probabilities, so that logarithms stay finite


def answer_loss(scores: Floats, logprob: Floats, *, references: bool) -> Floats:
    """Loss (N, K) of the reference answer in nats, from scores and log-probabilities (N, K)."""
    if references:
        return np.asarray(-np.log(np.maximum(scores, FLOOR)))
    right = -np.maximum(logprob, np.log(FLOOR))
    left_over = np.maximum(-np.expm1(np.minimum(logprob, 0.0)), FLOOR)
    return np.asarray(scores * right + (1 - scores) * -np.log(left_over))


def fit(known: Known) -> Chosen:
    """Learn the option of least loss.

    Raises:
        NotLearnableError: without features or log-probabilities.
    """
    known.need_features()
    learnt = known.learnt
    if not known.references and not np.isfinite(known.logprob[learnt]).all():
        raise NotLearnableError("the log has no log-probabilities")
    labels = np.zeros(len(known.scores), dtype=np.intp)
    loss = answer_loss(known.scores[learnt], known.logprob[learnt], references=known.references)
    labels[learnt] = np.argmin(loss, axis=1)
    p = class_probabilities(known, labels)
    return Chosen(
        about="Predicts the option of least answer loss, and takes it whatever it costs.",
        choice=np.argmax(np.nan_to_num(p, nan=0.0), axis=1),
        options=len(known.options),
        reads=tuple(known.blocks),
    )
