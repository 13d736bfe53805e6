"""Gradio's chat page, `gr.load_chat(URL)`, in a headless Chromium."""

from __future__ import annotations

from pathlib import Path

import gradio

from tests.clients.driving import Asked
from tests.demo.browsing import chromium


def asked_in_a_browser(asked: Asked, image: Path, picture: Path) -> list[str]:
    """Two messages, the first with an image.

    Args:
        asked: The server and its model, and the question.
        image: A file.
        picture: Where the page at the end is shown as a PNG.

    Returns:
        The two answers as the page shows them.
    """
    chat = gradio.load_chat(asked.base_url, model=asked.model, file_types=["image"])
    _, address, _ = chat.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    driver, browser = chromium()
    try:
        page = browser.new_page(viewport={"width": 900, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(address)
        box = page.get_by_role("textbox").first
        box.wait_for()
        page.locator("input[type=file]").first.set_input_files(str(image))
        page.locator(".thumbnail-item img, .thumbnails img, .thumbnail-image").first.wait_for()
        told = []
        for words in (asked.question, "And the other?"):
            box.fill(words)
            box.press("Enter")
            answers = page.locator(".bot.message, [data-testid=bot]")
            answers.nth(len(told)).wait_for()
            page.get_by_role("button", name="Stop").wait_for(state="hidden")
            told.append(answers.nth(len(told)).inner_text().strip())
        page.screenshot(path=picture)
        return told
    finally:
        browser.close()
        driver.stop()
        chat.close()
