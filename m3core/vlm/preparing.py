"""What of an answer needs no model: pixels, the image's tokens in the prompt, and their number."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError
from PIL import Image

from m3router.data.errors import DataError, ImageError, ModelError
from m3router.m3core.checkpoints.file_checks import UNREADABLE
from m3router.m3core.vlm.families import Family, Options

_MARK = "\x00?\x00"
_ODD = "What's <b>'A & ß'</b>?\n\n{{ x }} \\n"
"""A question that templates would change if they changed any."""
_MOST_COUNTS = 100_000
"""Sizes and options whose counts are kept."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What an image costs at an option.

    Attributes:
        image_tokens: All tokens that stand for the image in the prompt, markers included; what
            vLLM reports as ``multimodal_tokens.image``.
        visual_tokens: Those of them that come from the tower.
        views: Patches that the tower computes for each view.
        pixels: Pixels of all views.
    """

    image_tokens: int
    visual_tokens: int
    views: tuple[int, ...]
    pixels: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImage:
    """An image at an option, ready for the tower.

    Attributes:
        option: Name of the option.
        inputs: What the image processor made, by name of the model's argument.
        prefix: Ids of the prompt up to the image's last token.
        tail: What stands between there and the question.
        counts: What it costs.
    """

    option: str
    inputs: Mapping[str, Any] = field(repr=False)
    prefix: list[int] = field(repr=False)
    tail: str
    counts: Counts


class Preparer:
    """Makes prompts of images, options and questions.

    Args:
        processor: The family's own.
        family: Of the model.
        config: Of the model.
        options: Name -> keyword arguments of the image processor.

    Attributes:
        prompt: What is asked, with ``{question}`` where the question stands.

    Raises:
        ModelError: If the chat template does not put one image before the question, or changes
            the question.
    """

    def __init__(self, processor: Any, family: Family, config: Any, options: Options) -> None:
        self.tokenizer = processor.tokenizer
        self.image_id: int = config.image_token_id
        self.prompt = ""
        self._family = family
        self._side = _side(config.vision_config.patch_size)
        self._options = options
        self._processors = {
            name: _with_stored(processor, {k: v for k, v in one.items() if k in family.stored})
            for name, one in options.items()
        }
        self._placeholder = self.tokenizer.convert_ids_to_tokens(self.image_id)
        self._counts: dict[tuple[tuple[int, int], str], Counts] = {}
        chat = processor.chat_template
        self._chat: str = chat["default"] if isinstance(chat, Mapping) else chat
        self._template = self._written(_MARK)
        before, _, self._after = self._template.partition(_MARK)
        if self._template.count(_MARK) != 1 or before.count(processor.image_token) != 1:
            raise ModelError(
                "the chat template does not put the image, once, before the question, once, so "
                "nothing can be shared between questions; with {question} for a question it writes "
                f"{self._template.replace(_MARK, '{question}')[:200]!r}"
            )
        if self._written(_ODD) != self._template.replace(_MARK, _ODD):
            raise ModelError(
                "the chat template changes what is asked (upper case, escapes), so a question "
                "cannot be put behind an image that was read before; it must write it as it is"
            )
        self.prompt = self._template.replace(_MARK, "{question}")
        begin = self.tokenizer.bos_token
        self._begins = bool(begin) and self._template.startswith(begin)
        added = self.tokenizer.added_tokens_decoder.values()
        self._special = [token.content for token in added if token.special]

    def _written(self, question: str) -> str:
        """A prompt before the image's tokens are put into it.

        Raises:
            ModelError: If the template is not valid or refuses an image with a question.
        """
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        try:
            written: str = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": parts}],
                chat_template=self._chat,
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=False,  # answers are short: a model that can think first must not
            )
        except (TemplateError, *UNREADABLE) as error:
            raise ModelError(
                f"the chat template cannot write an image and a question: {error}; take the "
                "checkpoint's own"
            ) from error
        return written

    def prepare(self, image: Image.Image, option: str) -> PreparedImage:
        """Pixels, prompt and counts of an image at an option.

        Args:
            image: RGB.
            option: One of the options; must be known.

        Raises:
            ImageError: If the image processor refuses the image.
        """
        keywords = {
            name: value
            for name, value in self._options[option].items()
            if name not in self._family.stored
        }
        try:
            # Processors may change what they are given, so each call has values of its own.
            made = self._processors[option](
                images=[[image]],
                text=[self._template],
                images_kwargs=copy.deepcopy(keywords),
                return_tensors="pt",
                return_text_replacement_offsets=True,
            )
        except (*UNREADABLE, ZeroDivisionError) as error:
            raise ImageError(
                f"an image of {image.width} x {image.height} pixels cannot be prepared at option "
                f"{option!r}: {error}; leave it out, or choose another option"
            ) from error
        ((place,),) = made.pop("text_replacement_offsets")
        whole = self._template.replace(place["text"], place["replacement"], 1)
        before, _, _ = whole.partition(_MARK)
        head, _, tail = before.rpartition(self._placeholder)
        views = self._family.views(made, self._side)
        replaced = self._ids(place["replacement"])
        counts = Counts(
            image_tokens=len(replaced),
            visual_tokens=replaced.count(self.image_id),
            views=views.patches,
            pixels=views.pixels,
        )
        self._remember(image.size, option, counts)
        return PreparedImage(
            option=option,
            inputs={name: value for name, value in made.items() if name not in _TEXT},
            prefix=self._ids(head + self._placeholder, first=not self._begins),
            tail=tail,
            counts=counts,
        )

    def count(self, size: tuple[int, int], option: str) -> Counts:
        """What an image of a size costs at an option; it depends on nothing else.

        Args:
            size: Width and height in pixels.
            option: One of the options; must be known.

        Raises:
            ImageError: If the image processor refuses an image of this size.
        """
        known = self._counts.get((size, option))
        return known or self.prepare(Image.new("RGB", size), option).counts

    def question(self, prepared: PreparedImage, question: str) -> list[int]:
        """Ids of the prompt behind the image's last token.

        NOTE: A special token that a question spells, such as ``<|im_end|>``, stays text, while
        ``generate`` of transformers lets it end the turn, or asks for a second image.

        Raises:
            DataError: If the question is empty, or names a token that stands for images.
        """
        text = question.strip()
        if not text:
            raise DataError("the question is empty; ask something about the image")
        if any(token in text for token in self._special):
            # A question that spells "<image>" or "<eos>" is text: it must not become that token.
            ids = [*self._behind(prepared.tail), *self._plain(text), *self._ids(self._after)]
        else:
            # As one text with what is around it: so the model was trained.
            ids = self._behind(prepared.tail + text + self._after)
        if self.image_id in ids:
            raise DataError(
                f"the question contains {self._placeholder!r}, which stands for an image; leave it "
                "out"
            )
        return ids

    def _remember(self, size: tuple[int, int], option: str, counts: Counts) -> None:
        if len(self._counts) >= _MOST_COUNTS:
            self._counts.clear()
        self._counts[size, option] = counts

    def _ids(self, text: str, *, first: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=first)["input_ids"])

    def _plain(self, text: str) -> list[int]:
        """Ids of a text in which no special token is recognised."""
        given = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(given["input_ids"])

    def _behind(self, text: str) -> list[int]:
        """Ids of a text that stands behind the image's last token."""
        return self._ids(self._placeholder + text)[1:]


_TEXT = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"}


def _side(patch: Any) -> int:
    return int(patch if isinstance(patch, int) else patch[0])


def _with_stored(processor: Any, values: Mapping[str, Any]) -> Any:
    """A processor whose image processor has these attributes."""
    if not values:
        return processor
    changed = copy.copy(processor)
    changed.image_processor = copy.copy(processor.image_processor)
    for name, value in values.items():
        setattr(changed.image_processor, name, value)
    return changed
