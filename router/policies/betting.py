"""Bets on images one after the other, each bet placed before the image is seen.

Notation for shapes: G images in an order that labels have no part in, L bettors.

The loss of an image is given as its excess e <= 1: how far its summed losses are above the target,
as a share of the most that they can be (`m3router.router.policies.risk_bounds.Losses.excess`). A
bettor stakes a share b in [0, 1] of the wealth, which image g multiplies by 1 - b e_g. While the
risk is above the target, the mean of e is above 0 and no strategy gains on average, however b is
chosen from what was seen before; so the wealth reaches 1 / delta with probability at most delta.
How b is chosen decides the power alone, never the validity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, pdtrik

Array = npt.NDArray[np.float64]

TRUNCATED = 0.75
"""Largest share that `agrapa` stakes: c of Waudby-Smith and Ramdas, who name 1/2 and 3/4."""
MOST_EVENTS = 1e4
"""Expected events from which on smaller ones make no difference: the normal law holds."""
_LOG_EVENTS = np.linspace(np.log(1e-3), np.log(MOST_EVENTS), 400)
_ODDS = np.linspace(-14.0, 14.0, 281)
_STEP, _CELL = _LOG_EVENTS[1] - _LOG_EVENTS[0], _ODDS[1] - _ODDS[0]


@dataclass(frozen=True)
class Shape:
    """How losses are expected to fall while the risk is at the target; see `deadline`.

    Attributes:
        spread: (L,) second moment of an image's losses, as excess above that of no loss.
        jump: (L,) size of one event of loss, as excess, in (0, 1]; there are spread / jump**2 such
            events an image.
        growth: (L,) logarithm of what a lossless image multiplies the wealth by when all of it is
            staked.
    """

    spread: Array
    jump: Array
    growth: Array


def deadline(excess: Array, shape: Shape, *, delta: float) -> Array:
    """Final wealth, as a share of the 1 / delta that is aimed at, of bets that know the deadline.

    With r images to go and a share w of the goal in hand, the stake is the one that hedges a claim
    worth 1 if the goal is reached: in a market where losses come as a Poisson process of the given
    rate and jump, w = P(at most k events to come), and one event is to cost what lowers k by one.
    For losses of 0 or 1 this retraces the binomial test; for many small losses it is the strategy
    of Browne (Reaching goals by a deadline, Adv. Appl. Prob. 31, 1999, 551-577) for a Brownian
    motion, whose power is that of a z-test. Voracek and Orabona (STaR-Bets, 2025, arXiv:2505.22422)
    recalculate bets from the target and the time left in the same spirit. Nothing in the argument
    for validity rests on the Poisson process: it shapes the bets only.

    The stake is at least the one with which no further loss leads to the goal.

    Args:
        excess: (G, L) of each image, at most 1.
        shape: for each bettor.
        delta: probability of reaching the goal although the risk is above the target.

    Returns:
        (L,) at least 1 where the goal was reached, and kept from there on.
    """
    images, bettors = excess.shape
    jump = np.maximum(shape.jump, np.sqrt(images * shape.spread / MOST_EVENTS))
    rate = np.log(shape.spread / jump**2)
    wealth, at = np.full(bettors, delta), np.arange(bettors)
    had, ahead, growth, gain = wealth, excess, shape.growth, np.expm1(shape.growth)
    for place in range(images):
        left = images - place
        stake = had * _share_lost(np.log(left) + rate, had) / jump
        needed = (np.exp((1 - left) * growth) - had) / gain
        stake = np.minimum(np.maximum(stake, needed), had)
        live = (had > 0) & (had < 1)
        had = np.where(live, had - stake * ahead[place], had)
        if place % 32 == 31 and live.mean() < 0.75:  # the others are settled
            wealth[at] = had
            at, had, ahead = at[live], had[live], ahead[:, live]
            jump, rate, growth, gain = jump[live], rate[live], growth[live], gain[live]
            if not len(at):
                break
    wealth[at] = had
    return wealth


def agrapa(excess: Array, level: Array) -> Array:
    """Largest wealth along the way of the bets of Waudby-Smith and Ramdas.

    Estimating means of bounded random variables by betting, 2020, arXiv:2010.09686, the bets that
    they call aGRAPA: for X in [0, 1] and a mean m that is refuted from below, lambda_t = (m -
    mu_{t-1}) / (sigma2_{t-1} + (m - mu_{t-1})^2), here between 0 and c / (1 - m), with the
    regularised estimates mu_t = (1/2 + sum X_i) / (t + 1) and sigma2_t = (1/4 + sum (X_i -
    mu_i)^2) / (t + 1), as in their own code (github.com/gostevehoward/confseq,
    betting_strategies.py, lambda_aKelly).

    Args:
        excess: (G, L) of each image, at most 1.
        level: (L,) m: the target on the scale where losses go from 0 to 1.
    """
    x = level + excess * (1 - level)
    t = np.arange(1, len(x) + 1)[:, None]
    mean = (0.5 + np.cumsum(x, axis=0)) / (t + 1)
    spread = (0.25 + np.cumsum((x - mean) ** 2, axis=0)) / (t + 1)
    below = level - np.vstack([np.full((1, x.shape[1]), 0.5), mean[:-1]])
    spread = np.vstack([np.full((1, x.shape[1]), 0.25), spread[:-1]])
    bets = np.clip(below / (spread + below**2), 0.0, TRUNCATED / (1 - level))
    wealth = np.cumsum(np.log1p(-bets * (x - level)), axis=0)
    best: Array = np.exp(np.clip(wealth.max(axis=0), 0.0, 700.0))  # no overflow
    return best


def _share_lost(log_events: Array, wealth: Array) -> Array:
    """Share of the wealth that one event is to cost, by the table of `_hedges`."""
    # called for every image: np.clip takes three times as long on arrays as short as these
    row = (log_events - _LOG_EVENTS[0]) / _STEP + 0.5
    row = np.minimum(np.maximum(row, 0), len(_LOG_EVENTS) - 1)
    kept = np.minimum(np.maximum(wealth, 1e-6), 1 - 1e-6)
    along = (np.log(kept / (1 - kept)) - _ODDS[0]) / _CELL
    column = along.astype(np.intp)
    place = row.astype(np.intp) * len(_ODDS) + column
    table = _hedges()
    low = table[place]
    share: Array = low + (along - column) * (table[place + 1] - low)
    return share


@lru_cache(maxsize=1)
def _hedges() -> Array:
    """1 - P(Poisson <= k - 1) / w, where P(Poisson <= k) = w, over events expected and odds of w.

    k is real: P(Poisson <= k) is the regularised incomplete gamma function Q(k + 1, events).
    """
    events, wealth = np.exp(_LOG_EVENTS)[:, None], 1 / (1 + np.exp(-_ODDS))[None]
    bold = wealth <= np.exp(-events)  # not even no event at all is as unlikely
    at = pdtrik(np.where(bold, 0.5, wealth), np.broadcast_to(events, bold.shape))
    after = gammaincc(np.maximum(at, 1e-12), events)
    share: Array = np.where(bold, 1.0, np.clip(1 - after / wealth, 0.0, 1.0)).ravel()
    return share
