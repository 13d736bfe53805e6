"""Draws the gallery: `python -m experiments.gallery scenes=RUN imported=RUN receipts=RUN`.

Each run folder must hold an evaluation. Its report is written anew, opened in Chromium, and what
is seen first becomes `docs/images/gallery/NAME.webp`, small enough for the repository. The pages
themselves, with all that makes them interactive, are megabytes; docs/gallery.md says how each is
made.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image

from m3router.router.runs.run import Run
from m3router.router.stages.reporting import report_stage

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images" / "gallery"
SHOWN = 880
"""Pixels that a picture is wide."""


def draw(runs: dict[str, Path], folder: Path, *, browser: str | None) -> list[Path]:
    """Picture of the first screen of each run's report.

    Args:
        runs: name of the picture -> run folder.
        folder: receives `NAME.webp`.
        browser: Chromium's program; None for the one that playwright brings.
    """
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 960})
        for name, root in runs.items():
            page.goto(report_stage(Run(root)).resolve().as_uri())
            page.wait_for_timeout(1500)  # until the plot is drawn
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                size = (SHOWN, round(SHOWN * shot.height / shot.width))
                small = shot.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            path = folder / f"{name}.webp"
            small.save(path, quality=80, method=6)
            written.append(path)
        chromium.close()
    return written


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args(arguments)
    runs = {name: Path(root) for name, _, root in (one.partition("=") for one in asked.runs)}
    for path in draw(runs, asked.folder, browser=asked.browser):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
