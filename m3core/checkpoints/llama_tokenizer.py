"""The tokenizer of a Llama or Vicuna from its files, with the ids of LLaVA's published code.

That code tokenises what stands before and behind ``<image>`` apart, each with the blank that
sentencepiece puts in front of a text (``mm_utils.tokenizer_image_token``). A tokenizer that reads
a prompt whole, as plain transformers does, has to put it behind every special token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.places import read_json
from m3router.m3core.checkpoints.sentencepieces import BLANK, compare, fast_tokenizer, read_pieces

PIECES = "tokenizer.model"
FAST = "tokenizer.json"
_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None}
_KEPT = ("model_max_length", "padding_side", "chat_template", "clean_up_tokenization_spaces")
_DEFAULTS = {"padding_side": "left", "clean_up_tokenization_spaces": False}
_FLAGS = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the small files beside a vocabulary say.

    Attributes:
        named: ``bos_token`` and the like, as tokens or None.
        added: Tokens by their ids, those of the vocabulary among them.
        extra: Further special tokens.
        legacy: Whether text behind a special token begins with a blank. Without an entry it
            does, as in transformers 4.
        kept: Other entries of ``tokenizer_config.json`` that are handed on.
    """

    named: dict[str, AddedToken | None]
    added: dict[int, AddedToken]
    extra: list[AddedToken]
    legacy: bool
    kept: dict[str, Any]


def load_llama_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load ``tokenizer.model`` or, where there is none, ``tokenizer.json``, with added tokens.

    The published code reads the former even where both are there (``use_fast=False`` in
    ``llava/model/builder.py``).

    Raises:
        ModelError: If neither is there, one is damaged, or the added tokens do not fit it.
    """
    pieces, fast = folder / PIECES, folder / FAST
    if pieces.is_file():
        backend = fast_tokenizer(read_pieces(pieces))
        compare(backend, pieces)
    elif fast.is_file():
        content = read_json(fast)
        if not isinstance(content.get("model"), dict):
            raise ModelError(f"{fast} holds no tokenizer; download it again")
        backend = Tokenizer.from_str(json.dumps(prefix_every_text(content)))
    else:
        raise ModelError(
            f"{folder} lacks a tokenizer: neither {PIECES} nor {FAST} is there; download it (for "
            "Vicuna, that of the Llama it was trained from)"
        )
    settings = read_settings(folder)
    _add(backend, settings, folder)
    named = {
        name: token
        for name, token in settings.named.items()
        if token is not None and backend.token_to_id(token.content) is not None
    }
    if (bos := named.get("bos_token")) is not None:
        index = backend.token_to_id(bos.content)
        backend.post_processor = processors.TemplateProcessing(
            single=[bos.content, "$A"],
            pair=[bos.content, "$A", f"{bos.content}:1", "$B:1"],
            special_tokens=[(bos.content, index)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, legacy=settings.legacy, **named, **settings.kept
    )


def read_settings(folder: Path) -> Settings:
    """Read the files in which transformers 4 and 5 keep special and added tokens.

    ``special_tokens_map.json`` and ``added_tokens.json`` count only where
    ``tokenizer_config.json`` lists no ``added_tokens_decoder``, as in transformers.

    Raises:
        ModelError: If one of them is not valid.
    """
    config, tokens_map, added_file, fast = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in (
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            FAST,
        )
    )
    try:
        if "added_tokens_decoder" in config:
            added = {int(key): _token(one) for key, one in config["added_tokens_decoder"].items()}
        else:
            config = config | tokens_map
            special = {str(_content(config.get(name))) for name in _NAMES}
            added = {
                int(index): AddedToken(text, special=text in special, normalized=False)
                for text, index in added_file.items()
            }
            added |= {int(one["id"]): _token(one) for one in fast.get("added_tokens", ())}
        listed = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
        listed = listed.values() if isinstance(listed, dict) else listed
        named = {name: config.get(name, default) for name, default in _NAMES.items()}
        return Settings(
            named={key: _token(one, special=True) if one else None for key, one in named.items()},
            added=added,
            extra=[_token(one, special=True) for one in listed],
            legacy=config.get("legacy") is not False,
            kept=_DEFAULTS | {key: config[key] for key in _KEPT if config.get(key) is not None},
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{folder}: the tokenizer's added or special tokens cannot be read ({error}); download "
            "tokenizer_config.json, special_tokens_map.json and added_tokens.json again"
        ) from error


def _content(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) else token


def _token(given: Any, *, special: bool | None = None) -> AddedToken:
    """A token from a text or an object; found in the text as it is typed, never a changed one."""
    flags = given if isinstance(given, dict) else {}
    return AddedToken(
        _content(given),
        special=bool(flags.get("special", True)) if special is None else special,
        normalized=False,
        **{flag: bool(flags.get(flag, False)) for flag in _FLAGS},
    )


def _add(backend: Tokenizer, settings: Settings, folder: Path) -> None:
    for index, token in sorted(settings.added.items()):
        found = backend.token_to_id(token.content)
        place = backend.get_vocab_size() if found is None else found
        if place != index:
            raise ModelError(
                f"{folder}: the tokenizer's added token {token.content!r} should have the id "
                f"{index}, where its vocabulary has {place}; its files are of two checkpoints"
            )
        backend.add_tokens([token])
    known = [
        token
        for token in settings.named.values()
        if token is not None and backend.token_to_id(token.content) is not None
    ]
    # NOTE: a padding token that the vocabulary lacks is left out: it has no embedding.
    backend.add_special_tokens([*known, *settings.extra])


def prefix_every_text(content: dict[str, Any]) -> dict[str, Any]:
    """A ``tokenizer.json`` of Llama's kind that puts a blank behind every special token.

    The newer form (``Metaspace``) puts one at the very beginning alone, and none if the text
    begins with a blank. Any other kind of tokenizer comes back as it is.

    Args:
        content: The file; not changed.
    """
    model, before = content["model"], content.get("pre_tokenizer") or {}
    newer = (
        content.get("normalizer") is None
        and before.get("type") == "Metaspace"
        and before.get("replacement") == BLANK
        and before.get("prepend_scheme") != "never"
        and not before.get("split", True)
    )
    older = {"type": "Prepend", "prepend": BLANK}
    steps = (content.get("normalizer") or {}).get("normalizers") or ()
    if model.get("type") != "BPE" or not (newer or older in steps):
        return content
    if newer:
        replaced = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
        normalizer = {"type": "Sequence", "normalizers": [older, replaced]}
        content = content | {"normalizer": normalizer, "pre_tokenizer": None}
    # With a normalizer, a token that is sought in normalized text would need the blank itself.
    added = [token | {"normalized": False} for token in content.get("added_tokens", ())]
    return content | {"added_tokens": added}
