"""Tokenizer and image processor of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    PreTrainedTokenizerBase,
)

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.checkpoint import Checkpoint
from m3router.m3core.checkpoints.file_checks import (
    UNREADABLE,
    check_image_processor,
    is_unreadable,
)
from m3router.m3core.checkpoints.llama_tokenizer import FAST, PIECES, load_llama_tokenizer
from m3router.m3core.checkpoints.tower import Tower


def load_tokenizer(
    checkpoint: Checkpoint, *, rows: int, image_token: int | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer, from ``tokenizer.json`` or, in the original layout, ``tokenizer.model``.

    See :mod:`m3router.m3core.checkpoints.llama_tokenizer` about the latter. The original layout has
    no image token: its code splits the prompt there. Padding takes the unknown token where no
    padding token is named, as in LLaVA's training.

    Args:
        checkpoint: The checkpoint.
        rows: Embeddings that the model has, as its files say.
        image_token: Id of the image token, which the Hugging Face layout must have.

    Raises:
        ModelError: If it is missing, damaged, lacks a token that is needed, or has more tokens
            than the model has embeddings.
    """
    folder = checkpoint.folder
    bare = (folder / PIECES).is_file() and not (folder / FAST).is_file()
    if checkpoint.layout == "original" or bare:  # transformers 5 would order its merges otherwise
        tokenizer = load_llama_tokenizer(folder)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            if not is_unreadable(error):
                raise
            raise ModelError(
                f"{folder} lacks a usable tokenizer: {error}; download its files again"
            ) from error
    if checkpoint.layout == "hugging_face":
        _check_image_token(tokenizer, image_token, folder)
    trained = checkpoint.settings.get("vocabulary", rows)  # rows behind it are cut off on loading
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= trained:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    for what in ("bos_token", "eos_token"):
        if getattr(tokenizer, what) is None:
            raise ModelError(
                f"the tokenizer in {folder} has no {what}, which the prompt needs; set it in "
                "tokenizer_config.json"
            )
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the model embeddings for "
            f"{rows}; it belongs to another checkpoint"
        )
    return tokenizer


def _check_image_token(tokenizer: PreTrainedTokenizerBase, index: int | None, folder: Path) -> None:
    token = tokenizer.added_tokens_decoder.get(index)
    if token is None or not token.special:
        raise ModelError(
            f"the tokenizer in {folder} has no image token: config.json says image_token_index "
            f"{index}, where it has {token}. Add the special token '<image>' under that id, or "
            "write the folder anew with `m3router convert` from the original checkpoint"
        )


def load_image_processor(
    checkpoint: Checkpoint, vision: CLIPVisionConfig, tower: Tower | None
) -> BaseImageProcessor:
    """The image processor: that of the folder, of the tower's folder, or CLIP's own numbers.

    Args:
        checkpoint: The checkpoint.
        vision: Config of its tower.
        tower: The tower, where it has a folder of its own.

    Raises:
        ModelError: If its file cannot be read.
    """
    try:
        found = None
        if checkpoint.layout == "hugging_face":
            found = AutoImageProcessor.from_pretrained(
                checkpoint.folder, local_files_only=True, backend="pil"
            )
        elif tower and tower.folder and (tower.folder / "preprocessor_config.json").is_file():
            found = CLIPImageProcessorPil.from_pretrained(tower.folder, local_files_only=True)
    except UNREADABLE as error:
        raise ModelError(
            f"{checkpoint.folder} lacks a usable image processor: {error}; download its "
            "preprocessor_config.json again"
        ) from error
    if found is not None:
        check_image_processor(found, checkpoint.folder)
        return found
    side = vision.image_size
    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
