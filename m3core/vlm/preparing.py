"""What of an answer needs no model: pixels, the image's tokens in the prompt, and their number."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from m3router.data.errors import DataError, ImageError, ModelError
from m3router.m3core.vlm.families import Family, Options
from m3router.m3core.vlm.processors import UNREADABLE

_MARK = "\x00question\x00"
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
        ModelError: If the chat template does not put one image before the question.
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
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _MARK}]}]
        # Answers are short: a model that can think aloud first is asked not to.
        thinks = "enable_thinking" in str(processor.chat_template)
        self._template = processor.apply_chat_template(
            talk, add_generation_prompt=True, **({"enable_thinking": False} if thinks else {})
        )
        before, mark, self._after = self._template.partition(_MARK)
        if not mark or before.count(processor.image_token) != 1 or _MARK in self._after:
            raise ModelError(
                "the chat template does not put the image, once, before the question, so nothing "
                f"can be shared between questions; it writes {self._template[:200]!r}"
            )
        self.prompt = self._template.replace(_MARK, "{question}")
        begin = self.tokenizer.bos_token
        self._begins = bool(begin) and self._template.startswith(begin)

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

        Raises:
            DataError: If the question is empty, or names a token that stands for images.
        """
        text = question.strip()
        if not text:
            raise DataError("the question is empty; ask something about the image")
        special = (token.content for token in self.tokenizer.added_tokens_decoder.values())
        if not any(token in text for token in special):
            # As one text with what is around it: so the model was trained.
            return self._behind(prepared.tail + text + self._after)
        # A question that spells "<image>" or "<eos>" is text: it must not become that token.
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if self.image_id in ids:
            raise DataError(
                f"the question contains {self._placeholder!r}, which stands for an image; leave it "
                "out"
            )
        return [*self._behind(prepared.tail), *ids, *self._ids(self._after)]

    def _remember(self, size: tuple[int, int], option: str, counts: Counts) -> None:
        if len(self._counts) >= _MOST_COUNTS:
            self._counts.clear()
        self._counts[size, option] = counts

    def _ids(self, text: str, *, first: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=first)["input_ids"])

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
