"""The embedded model's own tokenizer: the words of its world; anything else is spelled."""

from __future__ import annotations

import re
import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from m3router.data.scenes.questions import all_questions
from m3router.data.scenes.world import BACKGROUNDS, COLORS, SHAPES, WORDS, make_scene

SPECIAL = {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>", "image": "<image>"}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer over lower-cased text; any ASCII word can be spelled."""
    words = {"answer", "yes", "no", *COLORS, *BACKGROUNDS, *SHAPES, *WORDS}
    for seed in range(300):
        for question in all_questions(make_scene(seed)):
            words.update(re.findall("[a-z]+", question.text.lower()))
    symbols = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL.values(), *symbols, *("##" + one for one in symbols), *string.punctuation]
    pieces += sorted(words - set(pieces))
    model = models.WordPiece(
        {piece: index for index, piece in enumerate(pieces)}, unk_token=SPECIAL["unk"]
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL["pad"],
        unk_token=SPECIAL["unk"],
        bos_token=SPECIAL["bos"],
        eos_token=SPECIAL["eos"],
        additional_special_tokens=[SPECIAL["image"]],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
