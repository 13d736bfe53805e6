"""Write ``docs/sessions/``: ``python -m experiments.sessions [--check] [NAME...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.sessions.compare import differences
from experiments.sessions.record import recorded
from experiments.sessions.sessions import SESSIONS

PAGES = Path(__file__).resolve().parents[2] / "docs" / "sessions"


def main() -> int:
    """Record the sessions, or say what a page shows that is not said any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *SESSIONS], default=[])
    parser.add_argument("--check", action="store_true", help="compare only; write nothing")
    given = parser.parse_args()
    stale = 0
    for name in given.names or SESSIONS:
        place, text = PAGES / f"{name}.md", recorded(SESSIONS[name])
        if not given.check:
            place.parent.mkdir(exist_ok=True)
            place.write_text(text, encoding="utf-8")
            continue
        found = differences(place.read_text(encoding="utf-8") if place.is_file() else "", text)
        stale += len(found)
        sys.stdout.writelines(f"{place.name}: {one}\n" for one in found)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
