"""``python -m tests.fuzz [images|bodies|artefacts ...] --seed S --cases N``."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.driver import TARGETS, available, child, run


def main() -> int:
    """Run targets one after the other; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000, help="of each target")
    parser.add_argument("--long", action="store_true", help="as many cases as `make fuzz`")
    parser.add_argument("--first", type=int, default=0, help="begin with this case of the seed")
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    told = parser.parse_args()
    names = told.targets or [name for name in TARGETS if available(name)]
    for name in names:
        if not available(name):
            parser.error(f"there is no target {name!r}; there are {', '.join(TARGETS)}")
    if told.child:
        return child(names[0], seed=told.seed, first=told.first, cases=told.cases, file=told.child)
    found = False
    for name in names:
        cases = TARGETS[name] if told.long else told.cases
        report = run(name, seed=told.seed, cases=cases, first=told.first)
        print(report.text(), flush=True)
        found |= bool(report.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
