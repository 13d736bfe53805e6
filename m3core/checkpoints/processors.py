"""What plain transformers needs to ask a written checkpoint as this project asks it.

``AutoProcessor`` wants ``processor_config.json`` beside tokenizer and image processor; the chat
template writes the prompt that the checkpoint was trained with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import BaseImageProcessor, PreTrainedTokenizerBase

from m3router.m3core.checkpoints.llama_tokenizer import FAST, prefix_every_text
from m3router.m3core.checkpoints.places import read_json
from m3router.m3core.matryoshka.prompts import PromptTemplate

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


def shared_settings(own: BaseImageProcessor, side: int) -> dict[str, Any]:
    """Arguments that plain transformers' image processors take over from a project's own one.

    Args:
        own: What this project normalises with.
        side: Pixels along one side of what the tower takes.
    """
    return {name: getattr(own, name) for name in _SHARED} | {
        "crop_size": {"height": side, "width": side}
    }


def write_processor(
    folder: Path,
    *,
    processor_class: str,
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: BaseImageProcessor,
    template: PromptTemplate,
) -> None:
    """Write tokenizer, image processor, processor and chat template.

    Args:
        folder: Holds the model's config already.
        processor_class: Name of the processor in transformers.
        config: Of the model.
        tokenizer: Its tokenizer.
        image_processor: With which plain transformers shows images as this project does.
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
        "processor_class": processor_class,
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
