"""`python -m m3router`, and the program `m3router` itself."""

import os
import sys
from importlib import import_module


def run() -> None:
    """Run the program; Ctrl-C while it is still being imported ends it without a traceback."""
    if not (sys.stderr and sys.stderr.isatty()):
        # Libraries' bars are noise in a log file; tqdm reads this once, where it is imported.
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        import_module("m3router.router.cli.main").app(prog_name="m3router")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
