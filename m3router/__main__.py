"""`python -m m3router`: the same as `m3router`, for launchers that start modules."""

from m3router.router.cli.main import app

if __name__ == "__main__":
    app(prog_name="m3router")
