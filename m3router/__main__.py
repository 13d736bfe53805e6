"""`python -m m3router`, and the program `m3router` itself."""

import sys


def run() -> None:
    """Run the program; Ctrl-C while it is still being imported ends it without a traceback."""
    try:
        from m3router.router.cli.main import app

        app(prog_name="m3router")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
