"""What an answer really costs when the router itself looked at the coarsest option first.

Notation for shapes: N examples, K options, cheapest first by name.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from m3router.router.estimators.base import Floats

PEEK = "peek"
"""The feature block that is read from the coarsest option's own prefill."""


def routed_costs(costs: Floats, blocks: Iterable[str]) -> npt.NDArray[np.float64]:
    """Costs (N, K) of answering at each option behind a router that reads these blocks.

    A router that peeks has run the coarsest option's prefill before it decides. Where the coarsest
    option is chosen, that prefill is the answer's own and costs nothing more; anywhere else it is
    thrown away, and its cost is added. The same holds for tokens and for FLOPs, for which the
    coarsest answer's decoding makes this an upper bound.

    Args:
        costs: (N, K) of the options by themselves, tokens or FLOPs; NaN where unknown.
        blocks: Names of the feature blocks that the router reads.
    """
    total = np.array(costs, dtype=np.float64)
    if PEEK in set(blocks):
        total[:, 1:] += total[:, :1]
    return total
