"""Gradio's `load_chat`: the function that its page calls for each message."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio
from asking import Asked, run


def said(
    asked: Asked, history: list[Any] | None = None, *, images: int = 1, **settings: Any
) -> dict[str, Any]:
    """One message with files, as the page hands it over."""
    chat = gradio.load_chat(
        asked["base_url"], model=asked["model"], file_types=["image"], **settings
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.png"
        file.write_bytes(base64.b64decode(asked["image"].partition(",")[2]))
        message = {"text": asked["question"], "files": [str(file)] * images}
        got = chat.fn(message, history or [])
        if isinstance(got, Iterator):
            pieces = list(got)
            return {"text": pieces[-1] if pieces else "", "pieces": len(pieces)}
        return {"text": got}


EARLIER = [
    {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Ask me about an image."}]},
]

run(
    {
        "whole": lambda asked: said(asked, streaming=False),
        "streamed": lambda asked: said(asked),
        "history": lambda asked: said(asked, EARLIER),
        "images": lambda asked: said(asked, images=2),
        "words": lambda asked: said(asked, images=0),
    }
)
