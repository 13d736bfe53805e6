"""A sentencepiece model as a fast tokenizer that gives the same ids.

The published code of LLaVA, M3 and MQT reads ``tokenizer.model`` with sentencepiece itself
(``use_fast=False`` in ``llava/model/builder.py``). transformers 5 builds its fast tokenizer from
the same file, but ranks merges by the ids of their pieces. Sentencepiece ranks them by score, and
in the files of Llama and Mistral the two differ where it is seen most: runs of blanks have small
ids and the lowest score of all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from m3router.data.errors import ModelError

logger = logging.getLogger(__name__)

BLANK = "▁"
"""What stands for a blank in pieces."""
_NORMAL, _UNKNOWN, _USER_DEFINED, _BYTE = 1, 2, 4, 6  # SentencePiece.Type in its .proto file
_BPE = 2  # TrainerSpec.ModelType
PROBES = (
    "A chat between a curious user and an artificial intelligence assistant. USER: ",
    "\nWhat is 1,234.50 % of  three?\n\n\tAnswer with   one word. ASSISTANT:",
    " leads",
    "trails ",
    "café, naïve, 東京, \N{GRINNING FACE}, \N{IDEOGRAPHIC SPACE}x",
    "</s> <s> <unk> <image> <0x0A>",
    *(f"a{mark * count}b" for count in range(1, 34) for mark in (" ", "=", "-")),
)
"""Texts on which a fast tokenizer is compared with sentencepiece when a model is loaded."""


def read_pieces(file: Path) -> Any:
    """Read and check a sentencepiece model.

    Args:
        file: ``tokenizer.model``.

    Returns:
        Its ``ModelProto``.

    Raises:
        ModelError: If it is damaged, not of byte-pair encoding.
    """
    try:
        content = file.read_bytes()
        SentencePieceProcessor(model_proto=content)  # notices damage that protobuf reads over
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"{file} is not a sentencepiece tokenizer or is damaged ({error}); download it again"
        ) from error
    messages: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    proto = messages.ModelProto.FromString(content)
    if proto.trainer_spec.model_type != _BPE:
        raise ModelError(
            f"{file} is not of byte-pair encoding, which every Llama and Vicuna has; it belongs to "
            "another checkpoint"
        )
    return proto


def fast_tokenizer(proto: Any) -> Tokenizer:
    """The tokenizer of a sentencepiece model, without special tokens.

    A blank is put in front of every text between special tokens, as the published code does,
    which tokenises what stands before and behind ``<image>`` apart
    (``mm_utils.tokenizer_image_token``).

    Args:
        proto: From :func:`read_pieces`.
    """
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    unknown = next((text for text, _, kind in pieces if kind == _UNKNOWN), None)
    whole = sorted((text for text, _, kind in pieces if kind == _USER_DEFINED), key=len)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={text: index for index, (text, _, _) in enumerate(pieces)},
            merges=list(_merges({text: score for text, score, kind in pieces if kind == _NORMAL})),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=any(kind == _BYTE for _, _, kind in pieces),
            ignore_merges=bool(whole),
        )
    )
    spec = proto.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(BLANK))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", BLANK)])
    if whole:  # such pieces are found before anything is merged, the longest first
        found = Regex("|".join(re.escape(text) for text in reversed(whole)))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(found, behavior="isolated")
    tokenizer.decoder = decoder(prefix=spec.add_dummy_prefix)
    return tokenizer


def decoder(*, prefix: bool) -> Any:
    """From pieces back to a text; with a prefix the blank in front of it is taken away."""
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])


def _merges(scores: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Pairs of pieces that make a third, in the order in which sentencepiece merges them.

    It takes the pair of the highest score, and of several the leftmost. Equal scores occur for
    runs of blanks; there the leftmost pair is the one whose left half has grown most.
    NOTE: control and byte pieces are not part of it: text that spells ``</s>`` stays text.
    """
    found = [
        (score, cut, len(text) - cut, text)
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    for _, cut, _, text in sorted(found, key=lambda pair: (-pair[0], -pair[1], -pair[2])):
        yield text[:cut], text[cut:]


def compare(tokenizer: Tokenizer, file: Path) -> None:
    """Warn where a fast tokenizer and sentencepiece itself read one of :data:`PROBES` differently.

    Args:
        tokenizer: From :func:`fast_tokenizer`, before special tokens are added.
        file: ``tokenizer.model``.
    """
    reference = SentencePieceProcessor(model_proto=file.read_bytes())
    for text in PROBES:
        if tokenizer.encode(text).ids != reference.encode(text):
            logger.warning(
                "%s: the text %r gets other tokens here than from sentencepiece, so answers may "
                "differ from those of the published code. Please report this file",
                file,
                text,
            )
            return
