"""The same prompt for a vLLM server as for the model here.

vLLM makes a prompt from messages with a Jinja template and turns it into tokens whole; here, what
stands before and after the image is turned into tokens apart, and what a question spells is
always text (`m3router.m3core.matryoshka.answering`). The template in ``templates/vllm.jinja``
writes the beginning-of-sequence token and passes the parts of a message through as they are, with
:data:`PLACEHOLDER` for the image, which is what vLLM's LLaVA looks for
(vllm-project/vllm, ``vllm/model_executor/models/llava.py``, ``get_placeholder_str``). It reads a
message's content as a list of parts, which vLLM calls the content format "openai"
(``vllm/entrypoints/chat_utils.py``, ``_parse_chat_message_content_part``: texts stay whole and an
image of any kind becomes ``{"type": "image"}``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.m3core.matryoshka.answering import AnsweringModel
from m3router.m3core.matryoshka.base import MultiScaleModel

PLACEHOLDER = "<image>"
PROBE = "what is it?"
GLUES = ("", " ")
"""What may have to stand between a special token and a text, so that the text becomes the same
tokens as by itself: folders that `m3router convert` wrote before November 2026 put a blank before
the whole prompt, but none behind such a token; today's put one before each text."""


def chat_template() -> str:
    """The template that a vLLM server must be started with (``--chat-template``)."""
    return files(__package__).joinpath("templates/vllm.jinja").read_text(encoding="utf-8")


class ServerPrompt:
    """Prompts of one model, as messages for a vLLM server.

    Args:
        model: Its tokenizer must be the server's: both from one folder in Hugging Face's layout.

    Raises:
        MismatchError: If the model has no tokenizer and template, as the fake one.
        ModelError: If the server would read another prompt than the model here.
    """

    def __init__(self, model: MultiScaleModel) -> None:
        if not isinstance(model, AnsweringModel):
            raise MismatchError(
                f"the model {model.name} has no prompt that a vLLM server could read; serve a "
                "LLaVA-type model, or this one without --vllm"
            )
        self._tokenizer = model.tokenizer
        # Whether special tokens are text is a state of a tokenizer, and other threads use this
        # one: each way of reading has a tokenizer of its own.
        self._servers = copy.deepcopy(model.tokenizer)
        self._template = model.template
        image = model.tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        if image in (None, model.tokenizer.unk_token_id):
            raise ModelError(
                f"the tokenizer of {model.name} has no token {PLACEHOLDER}, which vLLM needs; "
                "write the model in Hugging Face's layout with `m3router convert`, and name that "
                "folder here and for vLLM"
            )
        self._image = int(image)
        glues = [glue for glue in GLUES if self._agree(PROBE, glue)]
        if not glues:
            raise ModelError(
                f"the tokenizer of {model.name} reads a prompt whole otherwise than its texts "
                "before and after the image, so vLLM would answer another prompt; serve it "
                "without --vllm"
            )
        self._glue = glues[0]

    def check(self, question: str) -> None:
        """Refuse a question that the server would read otherwise than the model here.

        Raises:
            DataError: If the question is empty or spells a special token: vLLM would take
                "<image>" for a second image, and "</s>" for an end.
        """
        if not self._agree(question, self._glue):
            raise DataError(
                "the question spells a special token of the model, such as <image> or </s>, "
                "which the server behind this one would not take for text; leave it out"
            )

    def messages(self, question: str, tokens: str) -> list[dict[str, Any]]:
        """What is sent.

        Args:
            question: What is asked.
            tokens: The image's visual tokens, see
                :func:`m3router.router.serve.backends.vllm.protocol.packed`.
        """
        before, after = self._texts(question, self._glue)
        parts: list[dict[str, Any]] = [{"type": "image_embeds", "image_embeds": tokens}]
        if before:
            parts.insert(0, {"type": "text", "text": before})
        return [{"role": "user", "content": [*parts, {"type": "text", "text": after}]}]

    def text(self, question: str) -> str:
        """The whole prompt as the server's template makes it."""
        return self._whole(question, self._glue)

    def _texts(self, question: str, glue: str) -> tuple[str, str]:
        before, after = self._template.before, self._template.text_after(question)
        return (glue + before if before else ""), glue + after

    def _whole(self, question: str, glue: str) -> str:
        before, after = self._texts(question, glue)
        return f"{self._tokenizer.bos_token}{before}{PLACEHOLDER}{after}"

    def _agree(self, question: str, glue: str) -> bool:
        """Whether the server reads the prompt as the model here does."""
        whole = self._whole(question, glue)
        served = self._servers(whole, add_special_tokens=False)["input_ids"]
        before, after = self._texts(question, "")
        here = [
            self._tokenizer.bos_token_id,
            *self._ids(before),
            self._image,
            *self._ids(after),
        ]
        return list(served) == here

    def _ids(self, text: str) -> Sequence[int]:
        if not text:
            return []
        found = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(found["input_ids"])
