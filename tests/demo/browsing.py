"""A headless Chromium that notes what should not happen."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
NEEDED = "M3ROUTER_NEEDS_BROWSER"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
DESKTOP, PHONE = (1280, 900), (390, 844)

CONTRASTS = """() => {
  const parse = text => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const ground = element => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
  };
  const light = rgb => {
    const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.map(c => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const texts = [...element.childNodes].filter(node => node.nodeType === 3);
    const words = texts.map(node => node.data).join('').trim();
    const style = getComputedStyle(element);
    const seen = element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
    if (!words || !seen) continue;
    if (['SCRIPT', 'STYLE'].includes(element.tagName) || element.disabled) continue;
    const under = ground(element);
    const pair = [light(over(parse(style.color), under)), light(under)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < (large ? 3 : 4.5)) found.push([words.slice(0, 40), ratio.toFixed(2)]);
  }
  return found;
}"""
"""Texts whose contrast is below WCAG 2.2's level AA (1.4.3), each with its contrast."""


def chromium():
    """A running Chromium, or a skip; a failure where one is asked for."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright is not installed")
    if not Path(CHROMIUM).is_file():
        _missing(f"there is no Chromium at {CHROMIUM}")
    driver = sync_playwright().start()
    return driver, driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


def _missing(why: str) -> None:
    if os.environ.get(NEEDED):
        pytest.fail(f"{why}, and {NEEDED} is set")
    pytest.skip(why)


class Visitor:
    """One browser with the demo's page open, and everything suspicious that it noticed."""

    def __init__(self, browser, address: str, size: tuple[int, int] = DESKTOP, **options) -> None:
        self.address = address
        self.noticed: list[str] = []
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, has_touch=size == PHONE, **options
        )
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.page.on("request", self._request)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.noticed.append(f"error {error}"))
        self.page.on("dialog", lambda dialog: self.noticed.append(f"dialog {dialog.message}"))
        self.open()

    def open(self) -> None:
        self.page.goto(self.address)
        self.page.get_by_role("button", name="Ask", exact=True).wait_for()

    def _request(self, request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.noticed.append(f"request {request.url}")

    def _console(self, message) -> None:
        if message.type == "error":
            self.noticed.append(f"console {message.text}")

    def close(self) -> None:
        self.context.close()

    def upload(self, path: Path) -> None:
        """Choose a file, in place of one that is there."""
        clear = self.page.locator("#m3-upload").get_by_label("Clear")
        if clear.count():
            clear.click()
        self.page.locator("#m3-upload input[type=file]").set_input_files(str(path))
        self.page.locator("#m3-preview, #m3-problem").get_by_text(path.name).first.wait_for()

    def question(self, words: str) -> None:
        self.page.get_by_label("Question", exact=True).fill(words)

    def ask(self, button: str = "Ask") -> None:
        """Press a button, and wait until what it gives is there."""
        with self.page.expect_response(re.compile("queue/join")):
            self.page.get_by_role("button", name=button, exact=True).click()
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is being done."""
        self.page.wait_for_timeout(100)
        busy = """document.querySelector('[data-testid="status-tracker"]:not(.hide)')"""
        self.page.wait_for_function(f"!{busy}", polling=50)  # each frame is much to draw

    def text(self, place: str) -> str:
        return re.sub(r"\s+", " ", self.page.locator(f"#m3-{place}").inner_text())

    def overflows(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
