"""The embedded checkpoint with what ``transformers serve`` needs beside it.

Facts, from the source of transformers 5.23: ``cli/serving/model_manager.py`` loads an
``AutoProcessor`` and takes a model as one of images only if that is no mere tokenizer;
``models/llava/processing_llava.py`` repeats the image token ``(side / patch)^2 +
num_additional_image_tokens`` times, less one for the strategy "default";
``cli/serving/chat_completion.py`` writes the prompt by the processor's chat template. Without
torchvision, ``CLIPImageProcessorPil`` is taken. Continuous batching is for models without images
only (``cli/serving/utils.py``, ``use_continuous_batching``): here, requests run one by one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from m3router.data.errors import DataError
from m3router.m3core.checkpoints.places import embedded_folder
from m3router.m3core.matryoshka.prompts import get_template


def write_checkpoint(folder: Path) -> Path:
    """Copy the checkpoint and add a processor and a chat template with our prompt.

    Args:
        folder: Created; must not exist.

    Returns:
        The folder.

    Raises:
        DataError: If the prompt has a text before the image, which the template here has not.
    """
    source = embedded_folder()
    shutil.copytree(source, folder)
    config = json.loads((source / "config.json").read_text())
    prompt = get_template(config["matryoshka"]["prompt"])
    if prompt.before:
        raise DataError(f"the prompt {prompt.name!r} has a text before the image; add it here")
    vision = config["vision_config"]
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": vision["patch_size"],
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
        "num_additional_image_tokens": 1,  # CLIP's class token, which the strategy drops
    }
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(chat_template(prompt.after))
    return folder


def chat_template(after: str) -> str:
    """A Jinja template for one question about one image.

    Args:
        after: Text behind the image, with ``{question}``.
    """
    asked = after.replace("{question}", "{{ part.text | trim }}")
    return (
        "{{ bos_token }}"
        "{% for part in messages[0].content if part.type == 'image' %}<image>{% endfor %}"
        "{% for part in messages[0].content if part.type == 'text' %}" + asked + "{% endfor %}"
    )
