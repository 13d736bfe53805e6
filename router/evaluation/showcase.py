"""Held-out examples that show what a policy does."""

from __future__ import annotations

import numpy as np

from m3router.data.log.parts import part_rows
from m3router.router.runs.calibration_data import labelled
from m3router.router.runs.run import Run


def held_out(run: Run, *, policy: str = "default", count: int = 3) -> list[tuple[str, str]]:
    """Test examples about different images, from cheaply to expensively routed.

    Args:
        run: must hold a router and the policy.
        policy: its name.
        count: most examples.

    Returns:
        (image path, question) pairs, cheapest choice first.

    Raises:
        DataError: when a part of the run is missing or damaged.
        MismatchError: when parts of the run do not belong together.
    """
    run = run.opened()
    router = run.router()
    log = run.log()
    split = run.split(log)
    rows = part_rows(log, split, "test", gaps=router.metadata["gaps"])
    part = labelled(router, run.features(log), log, rows)
    choice = run.policies(router, split)[policy].choose(part.p, part.costs)
    options = np.unique(choice)
    wanted = options[np.unique(np.linspace(0, len(options) - 1, count).round().astype(int))]
    picked: list[int] = []
    seen: set[str] = set()
    for option in [*wanted, *options, *options]:
        for place in np.flatnonzero(choice == option):
            image = str(log.images[rows[place]])
            if len(picked) < count and image not in seen:
                picked.append(int(place))
                seen.add(image)
                break
    picked.sort(key=lambda place: int(choice[place]))
    return [(str(log.images[rows[one]]), str(log.questions[rows[one]])) for one in picked]
