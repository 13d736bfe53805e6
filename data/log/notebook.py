"""What a notebook shows of an oracle log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m3router.data.cards import card, soft, table

if TYPE_CHECKING:
    from m3router.data.log.oracle_log import OracleLog


def log_card(log: OracleLog) -> str:
    """What a notebook shows of a log."""
    rows = []
    for place, option in enumerate(log.options):
        scores, costs = log.scores[:, place], log.costs[:, place]
        known = scores[np.isfinite(scores)]
        paid = costs[np.isfinite(costs)]
        rows.append(
            [
                option,
                f"{100 * known.mean():.1f}" if len(known) else "–",
                f"{paid.mean():,.4g}" if len(paid) else "–",
                len(log) - len(known),
            ]
        )
    model = log.metadata.get("model", log.metadata.get("source", "an unknown model"))
    groups = len(set(log.groups))
    return card(
        "Oracle log",
        f"{_counted(len(log), 'example')} in {_counted(groups, 'group')} (images, as a rule), "
        f"answered by {model} at {_counted(len(log.options), 'option')}",
        table(["option", "accuracy %", f"mean {log.cost_unit}", "missing"], rows),
        soft(".frame has all rows, .scores and .costs are arrays (example, option)"),
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
