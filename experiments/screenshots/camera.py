"""A headless Chromium that takes pictures of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError

WIDTHS = {390: 844, 768: 1024, 1280: 900, 1920: 1080}
"""Width of a window to its height, in pixels: a phone, a tablet, a laptop, a desk."""
SCHEMES = ("light", "dark")
LONGEST = 12_000
"""Pixels of a page from top to bottom in one picture; Chromium draws no more than 16 384."""
PATIENCE = 60_000  # milliseconds for anything that a page does

Visit = Callable[[Any], None]
"""What is done on a page before its picture is taken; gets Playwright's page."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A page in one state.

    Attributes:
        name: Part of the file's name.
        title: What it shows.
        address: Where it is.
        visit: What to do there first.
        whole: Whether the picture goes on below the window's edge.
        paper: Whether it is printed too.
        slow: Whether ``visit`` takes long: it is then done once for all widths, and the window
            is resized.
    """

    name: str
    title: str
    address: str
    visit: Visit | None = None
    whole: bool = True
    paper: bool = False
    slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of a shot.

    Attributes:
        shot: The shot.
        files: (width, scheme) to the picture's name.
        printed: Name of the PDF, or "".
        faults: What went wrong or looks wrong: errors on the page, a page wider than its window.
    """

    shot: Shot
    files: dict[tuple[int, str], str]
    printed: str
    faults: list[str]


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser: that of the system, else Playwright's own.

    Raises:
        DataError: Where there is none.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise DataError("screenshots need Playwright: pip install 'm3router[dev]'") from None
    arguments = ["--disable-gpu", "--hide-scrollbars"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium refuses root in its sandbox
        arguments.append("--no-sandbox")
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=arguments
            )
        except Error as error:
            raise DataError(
                "screenshots need Chromium: install it as `chromium`, or run `playwright install "
                f"chromium` ({str(error).splitlines()[0]})"
            ) from error
        try:
            yield browser
        finally:
            browser.close()


def take(
    browser: Any,
    shot: Shot,
    folder: Path,
    *,
    widths: Sequence[int] = tuple(WIDTHS),
    schemes: Sequence[str] = SCHEMES,
) -> Taken:
    """Take the pictures of one shot.

    Args:
        browser: As :func:`chromium` gives it.
        shot: What to take.
        folder: Where the files go.
        widths: Of the window, in :data:`WIDTHS`.
        schemes: Colour schemes that the visitor prefers.

    Returns:
        The files; what cannot be done on the page is among the faults, the rest is still taken.
    """
    taken = Taken(shot=shot, files={}, printed="", faults=[])
    for scheme in schemes:
        for group in [widths] if shot.slow else [[width] for width in widths]:
            _visit(browser, taken, folder, widths=group, scheme=scheme)
    if not shot.paper:
        return taken
    name = f"{shot.name}.pdf"
    with _page(browser, taken, width=1280, scheme="light") as page:
        page.pdf(path=str(folder / name), prefer_css_page_size=True, print_background=False)
    return Taken(shot=shot, files=taken.files, printed=name, faults=taken.faults)


def _visit(browser: Any, taken: Taken, folder: Path, *, widths: Sequence[int], scheme: str) -> None:
    shot = taken.shot
    with _page(browser, taken, width=widths[-1], scheme=scheme) as page:
        for width in widths:
            if len(widths) > 1:
                page.set_viewport_size({"width": width, "height": WIDTHS[width]})
            page.wait_for_timeout(200)  # for what is drawn anew when the window changes
            wide, tall = page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
            )
            if wide > width:
                _note(taken, f"{width} px, {scheme}: the page is {wide} px wide")
            name = f"{shot.name}-{width}-{scheme}.png"
            height = min(max(tall, WIDTHS[width]), LONGEST) if shot.whole else WIDTHS[width]
            page.screenshot(
                path=str(folder / name),
                full_page=shot.whole,
                clip={"x": 0, "y": 0, "width": width, "height": height},
                animations="disabled",
            )
            taken.files[width, scheme] = name


@contextmanager
def _page(browser: Any, taken: Taken, *, width: int, scheme: str) -> Iterator[Any]:
    """The shot's page after its visit."""
    from playwright.sync_api import Error

    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]},
        color_scheme=scheme,
        has_touch=width == min(WIDTHS),
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE)
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: _note(taken, f"error in a script: {error}"))
        page.goto(taken.shot.address)
        if taken.shot.visit is not None:
            try:
                taken.shot.visit(page)
            except Error as error:
                _note(taken, f"{width} px, {scheme}: {str(error).splitlines()[0]}")
        yield page
    finally:
        context.close()


def _note(taken: Taken, fault: str) -> None:
    if fault not in taken.faults:
        taken.faults.append(fault)
