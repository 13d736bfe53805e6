"""Take pictures of every page that a person sees.

    python -m experiments.screenshots [--quickstart quickstart] [--out screenshots] [--only log ...]

Writes PNG files at 390, 768, 1280 and 1920 pixels, light and dark, the report and the log page as
PDF, and index.html that shows all of them. Needs a finished quickstart, Chromium and the extra
`dev`. Exit status 1 where a page has a fault: an error in a script, something that cannot be
pressed, a page wider than its window.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.screenshots.camera import SCHEMES, WIDTHS, Taken, chromium, take
from experiments.screenshots.contact import write_index
from experiments.screenshots.pages import GROUPS, Material
from m3router.data.errors import M3RouterError


def main(arguments: list[str]) -> int:
    """Take what is asked for; see the module."""
    parser = argparse.ArgumentParser(prog="python -m experiments.screenshots")
    parser.add_argument("--quickstart", type=Path, default=Path("quickstart"))
    parser.add_argument("--out", type=Path, default=Path("screenshots"))
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--widths", nargs="+", type=int, choices=list(WIDTHS), default=list(WIDTHS))
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    asked = parser.parse_args(arguments)
    work = asked.out / "made"
    try:
        material = Material.of(asked.quickstart, work)
        work.mkdir(parents=True, exist_ok=True)
        taken: list[Taken] = []
        with chromium() as browser:
            for name in asked.only:
                with GROUPS[name](material) as shots:
                    for shot in shots:
                        print(f"{shot.title} …", flush=True)
                        taken.append(
                            take(
                                browser,
                                shot,
                                asked.out,
                                widths=asked.widths,
                                schemes=asked.schemes,
                            )
                        )
                        for fault in taken[-1].faults:
                            print(f"  {fault}", flush=True)
    except M3RouterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written: {write_index(asked.out, taken)}")
    return 1 if any(one.faults for one in taken) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
