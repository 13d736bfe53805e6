"""Write a checkpoint once in the Hugging Face layout, so that any tool can load it.

Every tensor keeps its bits and its number format. As in the published Hugging Face LLaVA, the
tokenizer gets ``<image>`` and ``<pad>`` and the embeddings are padded to a multiple of 64. Plain
transformers (``AutoProcessor``, ``LlavaForConditionalGeneration``) gives the same ids and, at the
finest scale, the same answers. NOTE: it joins LLaVA-NeXT's crops by ``spatial_unpad`` alone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from transformers import GenerationConfig, PreTrainedTokenizerBase

from data.errors import ModelError
from m3core.checkpoints.layouts import Checkpoint, recognise
from m3core.checkpoints.loading import (
    DTYPES,
    STOCK,
    VOCABULARY_KEYS,
    Contents,
    read_contents,
)
from m3core.checkpoints.parts import load_image_processor, load_tokenizer
from m3core.checkpoints.places import resolve
from m3core.checkpoints.processors import stock_image_processor, write_processor
from m3core.checkpoints.translation import IMAGE_TOKEN
from m3core.checkpoints.weights import Tensors
from m3core.prompts import get_template

PAD_TOKEN = "<pad>"
MULTIPLE = 64
"""Embedding rows are padded to a multiple of this (llava-hf: 32 000 becomes 32 064)."""


def convert(source: str, destination: Path, *, dtype: str | None = None) -> Path:
    """Write a LLaVA or LLaVA-NeXT checkpoint in the Hugging Face layout.

    The new rows of the embeddings are the mean of the old ones. A mean of logits never exceeds
    the largest, so that plain Hugging Face code does not choose a padding token either; this
    project cuts the rows off again when it loads the folder.

    Args:
        source: Folder or hub id, in either layout.
        destination: A new folder.
        dtype: Number format of all tensors; by default each keeps its own.

    Returns:
        The folder.

    Raises:
        ModelError: If the checkpoint is not complete, its family has no Hugging Face layout, the
            number format is unknown, or the destination is not empty.
    """
    check_destination(destination, dtype=dtype)
    checkpoint = recognise(resolve(source))
    if checkpoint.family not in STOCK:
        raise ModelError(
            f"{checkpoint.folder} is of the family {checkpoint.family!r}, for which Hugging Face "
            f"has no layout; convert writes {' and '.join(STOCK)}. Load it as it is"
        )
    write_stock(destination, checkpoint, read_contents(checkpoint), dtype=dtype)
    return destination


def check_destination(destination: Path, *, dtype: str | None) -> None:
    """Refuse what cannot be written, before any work is done for it.

    Raises:
        ModelError: If the number format is unknown, or the destination is not empty.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ModelError(f"{destination} is there and not empty; name a new folder")


def write_stock(
    destination: Path, checkpoint: Checkpoint, contents: Contents, *, dtype: str | None
) -> None:
    """Write contents of a family that Hugging Face knows, in its layout.

    Args:
        destination: A new folder.
        checkpoint: Where tokenizer and image processor are.
        contents: Config, which is changed in place, and tensors.
        dtype: Number format of all tensors; None keeps each tensor's own.
    """
    config = contents.config
    settings = dict(getattr(config, "matryoshka", None) or {})
    tokenizer = load_tokenizer(
        checkpoint, rows=config.text_config.vocab_size, image_token=config.image_token_index
    )
    processor = load_image_processor(checkpoint, config.vision_config, contents.tower)
    tensors = dict(contents.tensors)
    if checkpoint.layout == "original":
        _add_tokens(tokenizer, config)
        tensors = _padded(tensors, config)
    if dtype is not None:
        tensors = {
            key: tensor.to(DTYPES[dtype]) if tensor.is_floating_point() else tensor
            for key, tensor in tensors.items()
        }
    with whole_folder(destination) as work:
        config.architectures = [STOCK[checkpoint.family][1].__name__]
        config.dtype = str(tensors[VOCABULARY_KEYS[0]].dtype).removeprefix("torch.")
        config.save_pretrained(work)
        GenerationConfig.from_model_config(config).save_pretrained(work)
        kept = {key: tensor.contiguous() for key, tensor in tensors.items()}
        save_torch_state_dict(kept, work, metadata={"format": "pt"})
        write_processor(
            work,
            family=checkpoint.family,
            config=config,
            tokenizer=tokenizer,
            image_processor=stock_image_processor(
                checkpoint.family, config, processor, aspect=checkpoint.aspect
            ),
            template=get_template(settings.get("prompt", "vicuna-1")),
        )


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """Write beside the destination and rename, so that it is whole or not there.

    Args:
        destination: A new or empty folder.

    Yields:
        The folder to write into.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        yield work
        work.chmod(0o755)
        if destination.exists():
            destination.rmdir()  # it is empty: checked before
        work.rename(destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _add_tokens(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """``<image>`` behind the model's vocabulary, ``<pad>`` behind it."""
    rows = config.text_config.vocab_size
    for index in range(len(tokenizer), rows):  # the ids must meet the rows that are added
        tokenizer.add_tokens([f"<unused_{index}>"], special_tokens=True)
    tokenizer.add_tokens([IMAGE_TOKEN, PAD_TOKEN], special_tokens=True)
    tokenizer.pad_token = PAD_TOKEN
    tokenizer.padding_side = "left"
    config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config.text_config.pad_token_id = tokenizer.convert_tokens_to_ids(PAD_TOKEN)


def _padded(tensors: Tensors, config: Any) -> Tensors:
    rows = config.text_config.vocab_size
    new = -(-(rows + 2) // MULTIPLE) * MULTIPLE
    padded = dict(tensors)
    for key in VOCABULARY_KEYS:
        if key in tensors:
            mean = tensors[key].float().mean(0, keepdim=True).to(tensors[key].dtype)
            padded[key] = torch.cat([tensors[key], mean.expand(new - rows, -1)])
    config.matryoshka["vocabulary"] = rows
    config.text_config.vocab_size = new
    return padded
