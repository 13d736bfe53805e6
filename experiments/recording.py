"""What experiments keep of a run: where it came from, and an evaluation without its curves."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LEFT_OUT = ("curve", "ends", "shares", "mixing", "policy")


def provenance(command: str, *, seed: int) -> dict[str, Any]:
    """The command, its seed, today's date and the commit it ran from ("unknown" elsewhere)."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    return {
        "command": command,
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": found.stdout.strip() or "unknown",
    }


OWN = ("verdict", "n", "best_fixed", "mixed", "rows", "metrics")
OTHERS = ("escalation", "ablations", "baselines", "oracles")


def kept(document: dict[str, Any], *, others: bool = True) -> dict[str, Any]:
    """What of an evaluation is recorded: everything but curves and single questions.

    Args:
        document: see `m3router.router.evaluation.evaluate.evaluate`.
        others: whether to keep what the router is compared with.
    """
    wanted = OWN + OTHERS if others else OWN
    return {key: _without_curves(document[key]) for key in wanted if key in document}


def _without_curves(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_curves(one) for key, one in value.items() if key not in LEFT_OUT}
    if isinstance(value, list):
        return [_without_curves(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value
