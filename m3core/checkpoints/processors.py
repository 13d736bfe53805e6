"""What plain transformers needs to ask a written checkpoint as this project asks it.

``AutoProcessor`` wants ``processor_config.json`` beside tokenizer and image processor; the chat
template writes the prompt that the checkpoint was trained with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import (
    BaseImageProcessor,
    CLIPImageProcessorPil,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    PreTrainedTokenizerBase,
)

from m3core.checkpoints.llama_tokenizer import FAST, prefix_every_text
from m3core.checkpoints.weights import read_json
from m3core.models.preprocessing import PAD
from m3core.prompts import PromptTemplate

PROCESSORS = {"llava": "LlavaProcessor", "llava_next": "LlavaNextProcessor"}
_CHAT = """\
{%- set told = namespace(tail='') -%}
{%- for message in messages -%}
  {%- set said = namespace(text='', images=0) -%}
  {%- if message.content is string -%}
    {%- set said.text = message.content -%}
  {%- else -%}
    {%- for part in message.content -%}
      {%- if part.type == 'text' -%}
        {%- set said.text = said.text + ('\\n' if said.text else '') + part.text -%}
      {%- else -%}
        {%- set said.images = said.images + 1 -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {%- set images = said.images + said.text.count(@image) -%}
    {%- set text = said.text.replace(@image, '') | trim -%}
    {%- if images > (1 if loop.first else 0) -%}
      {{- raise_exception('this prompt takes one image, in the first message') -}}
    {%- elif not loop.first and @again_known -%}
      {{- @again_head + text -}}
      {%- set told.tail = @again_tail -%}
    {%- elif loop.first and images -%}
      {{- @first_head + text -}}
      {%- set told.tail = @first_tail -%}
    {%- elif loop.first and @blind_known -%}
      {{- @blind_head + text -}}
      {%- set told.tail = @blind_tail -%}
    {%- else -%}
      {{- raise_exception('this prompt takes one question about one image') -}}
    {%- endif -%}
  {%- elif message.role == 'assistant' -%}
    {{- told.tail + ' ' + (said.text | trim) + eos_token -}}
  {%- else -%}
    {{- raise_exception('this prompt has no place for the role ' + message.role) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- told.tail -}}{%- endif -%}
"""
_SHARED = ("image_mean", "image_std", "resample", "rescale_factor")


def stock_image_processor(
    family: str, config: Any, own: BaseImageProcessor, *, aspect: str
) -> BaseImageProcessor:
    """The image processor with which plain transformers shows images as this project does.

    Args:
        family: ``llava`` or ``llava_next``.
        config: Of the model, in the Hugging Face layout.
        own: What this project normalises with.
        aspect: One of :data:`m3core.models.preprocessing.ASPECTS`; not heeded where crops are
            cut.
    """
    side = config.vision_config.image_size
    common: dict[str, Any] = {name: getattr(own, name) for name in _SHARED}
    common["crop_size"] = {"height": side, "width": side}
    if family == "llava_next":
        return LlavaNextImageProcessorPil(
            size={"shortest_edge": side},
            image_grid_pinpoints=config.image_grid_pinpoints,
            **common,
        )
    if aspect == PAD:
        size = {"height": side, "width": side}
        return LlavaImageProcessorPil(do_pad=True, do_center_crop=False, size=size, **common)
    return CLIPImageProcessorPil(size={"shortest_edge": side}, do_center_crop=True, **common)


def write_processor(
    folder: Path,
    *,
    family: str,
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: BaseImageProcessor,
    template: PromptTemplate,
) -> None:
    """Write tokenizer, image processor, processor and chat template.

    Args:
        folder: Holds the model's config already.
        family: ``llava`` or ``llava_next``.
        config: Of the model.
        tokenizer: Its tokenizer.
        image_processor: From :func:`stock_image_processor`.
        template: The prompt it was trained with.
    """
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    # A name that versions 4 and 5 of transformers know: read tokenizer.json as it is.
    _write(settings, read_json(settings) | {"tokenizer_class": "PreTrainedTokenizerFast"})
    _write(folder / FAST, prefix_every_text(read_json(folder / FAST)))
    image = tokenizer.convert_ids_to_tokens(config.image_token_index)
    processor = {
        "processor_class": PROCESSORS[family],
        "image_token": image,
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": 1,  # CLIP's class token, which "default" drops
    }
    _write(folder / "processor_config.json", processor)
    beginning = "" if begins else "{{ bos_token }}"
    (folder / "chat_template.jinja").write_text(
        beginning + chat_template(template, image=image), encoding="utf-8"
    )


def chat_template(template: PromptTemplate, *, image: str = "<image>") -> str:
    """A Jinja template for one image with its first question, and further questions behind it.

    Args:
        template: The prompt.
        image: The image token.
    """
    forms = {
        "first": template.before + image + template.after,
        "blind": template.alone,
        "again": template.again,
    }
    text = _CHAT.replace("@image", json.dumps(image))
    for name, form in forms.items():
        head, _, tail = (form or "").partition("{question}")
        text = text.replace(f"@{name}_head", json.dumps(head)).replace(
            f"@{name}_tail", json.dumps(tail)
        )
        text = text.replace(f"@{name}_known", "true" if form else "false")
    return text


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
