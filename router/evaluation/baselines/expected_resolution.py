"""CARES's rule: predict the sufficient resolution, round its expectation up; one point.

Kimhi et al., arXiv 2510.19496. The label of an example is the least resolution r_k whose score u_k
is at least 0.85 and after which no resolution gains more than 0.1; the finest where there is none
(published code: mkimhi/CARES, src/data_prep/gen_training_data.py, `get_best_resolution`). A
classifier of the label is trained; at inference the expected resolution, sum_k p_k r_k over its
softmax, is rounded up to the next that the model can read (src/inference).

NOTE: the code asks for an ANLS of 0.85, which is 0.85 of the peak of an answerable example; here
the peak is the example's own best score, so that soft metrics have a label too.

NOTE: the published classifier reads a small vision-language model's middle layer, and is trained
with label smoothing; here it is a penalised multinomial logistic regression on the features that
our router reads.

NOTE: a resolution is the side of the image. Pixels and image tokens grow with its square, so the
side of an option is the square root of its mean pixels, of its image tokens where a log has no
pixels, and of its cost where it has neither, or they are the same at every option. It only matters
up to a factor.

Notation for shapes: N examples, K options.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from m3router.router.estimators.base import Floats
from m3router.router.evaluation.baselines.classes import class_probabilities
from m3router.router.evaluation.methods import Chosen, Known

ENOUGH = 0.85  # of the peak
LATER_GAIN = 0.1


def sufficient_resolution(scores: Floats) -> npt.NDArray[np.intp]:
    """The label (N,) of scores (N, K), options by rising resolution.

    >>> sufficient_resolution(np.array([[0, 1, 1], [0, 0, 0], [0.9, 0.8, 1.0], [0.87, 0.9, 1.0]]))
    array([1, 2, 0, 1])
    """
    scores = np.asarray(scores, dtype=np.float64)
    peak = scores.max(axis=1, keepdims=True)
    later = np.maximum.accumulate(scores[:, ::-1], axis=1)[:, ::-1]
    fits = (scores >= ENOUGH * peak) & (later - scores <= LATER_GAIN + 1e-12) & (peak > 0)
    return np.where(fits.any(axis=1), np.argmax(fits, axis=1), scores.shape[1] - 1)


def rounded_up(p: Floats, sides: Floats) -> npt.NDArray[np.intp]:
    """The least option (N,) whose side is at least the expected one.

    Args:
        p: (N, K) probabilities of the options.
        sides: (K,) sides of the options.

    >>> rounded_up(np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.5, 0.0, 0.5]]), np.arange(1, 4))
    array([0, 1, 1])
    """
    expected = np.asarray(p) @ np.asarray(sides)
    enough = np.asarray(sides)[None, :] >= expected[:, None] * (1 - 1e-9)
    # Where sides do not rise with the option, the smallest that is enough.
    return np.argmin(np.where(enough, np.asarray(sides)[None, :], np.inf), axis=1)


def fit(known: Known) -> Chosen:
    """Learn the sufficient resolution.

    Raises:
        NotLearnableError: without features.
    """
    learnt = known.learnt
    labels = np.zeros(len(known.scores), dtype=np.intp)
    labels[learnt] = sufficient_resolution(known.scores[learnt])
    p = class_probabilities(known, labels)
    sides = np.sqrt(known.sizes[learnt].mean(axis=0))
    return Chosen(
        about="Predicts the sufficient resolution and rounds its expectation up.",
        choice=rounded_up(np.nan_to_num(p, nan=0.0), sides),
        options=len(known.options),
        reads=tuple(known.blocks),
    )
