"""Ids of original and converted checkpoints against sentencepiece, which LLaVA's code uses."""

from __future__ import annotations

import json
import logging
import shutil
from functools import cache

import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    LlamaTokenizer,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
)

from m3router.data.errors import ModelError
from m3router.data.sources.instructions import Conversation
from m3router.m3core.checkpoints import convert, load_model
from m3router.m3core.checkpoints.llama_tokenizer import load_llama_tokenizer, prefix_every_text
from m3router.m3core.checkpoints.places import embedded_folder
from m3router.m3core.checkpoints.processors import chat_template
from m3router.m3core.checkpoints.sentencepieces import fast_tokenizer, read_pieces
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.prompts import TEMPLATES, get_template
from m3router.m3core.training.instructions import ConversationText
from tests.m3core import layouts
from tests.m3core.test_checkpoints import PROMPT, new_image

IMAGE = -200
MODELS = {
    "plain": layouts.pieces,
    **{f"reordered {n}": (lambda n=n: layouts.reordered(n)) for n in (0, 1, 2)},
}
CLASSES = {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}
QUESTIONS = [
    "What color is the dog?",
    "What  color is  the dog?",
    "how   many    cats are on     the table" + " " * 17 + "?",
    "a\n\nb\t\tc\r\n  d",
    "1,234.50 or 12 34?",
    "日本 café \N{GRINNING FACE}\N{IDEOGRAPHIC SPACE}x \u2581y",
    "==== ---- <0x0A> {x}",
]
text = st.text(
    st.one_of(
        st.sampled_from("  \n\t\u2581ab<>/s0123456789=é東\N{GRINNING FACE}\N{NO-BREAK SPACE}"),
        st.characters(codec="utf-8", exclude_categories=["Cs"]),
    ),
    max_size=60,
)
words = st.lists(
    st.one_of(st.sampled_from(["the", "dog", " ", "  ", "   ", "\n", "answers", "</s>"]), text)
).map("".join)


@cache
def reference(name: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=MODELS[name]())


def published_ids(name: str, prompt: str) -> list[int]:
    """``mm_utils.tokenizer_image_token``: parts apart, one beginning, an image in between."""
    first, *others = (reference(name).encode(part) for part in prompt.split("<image>"))
    return [1, *first, *(one for part in others for one in (IMAGE, *part))]


def own_ids(model, question: str) -> list[int]:
    return [*model._before, IMAGE, *model._ids(model.template.text_after(question))]


def plain_ids(tokenizer, prompt: str) -> list[int]:
    image = tokenizer.convert_tokens_to_ids("<image>")
    return [IMAGE if one == image else one for one in tokenizer(prompt)["input_ids"]]


def write(folder, family: str = "llava", pieces: bytes | None = None, **config):
    """A checkpoint whose tokenizer is this one."""
    settings, tensors = layouts.published(family)
    content = layouts.pieces() if pieces is None else pieces
    rows = sentencepiece.SentencePieceProcessor(model_proto=content).vocab_size()
    generator = torch.Generator().manual_seed(3)
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[key] = torch.randn(rows, 48, generator=generator)
    layouts.write(folder, settings | {"vocab_size": rows} | config, tensors)
    (folder / "tokenizer.model").write_bytes(content)
    return folder


def change_tokenizer(folder, **values):
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: one for key, one in config.items() if one is not ...}))


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def both(request, tmp_path_factory):
    """An original checkpoint and its converted folder, with blanks as Llama's file has them."""
    base = tmp_path_factory.mktemp(request.param)
    source = write(base / "original", request.param, layouts.reordered(0))
    return request.param, source, convert(str(source), base / "converted")


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None)
@given(words)
def test_every_text_has_the_ids_of_sentencepiece(name, words):
    assert made(name).encode(words).ids == reference(name).encode(words)
    ids = reference(name).encode(words.strip())
    if not words.strip().startswith("\u2581"):  # sentencepiece takes away one of them, or all
        assert made(name).decode(ids).strip() == reference(name).decode(ids).strip()


@cache
def made(name: str):
    proto = sentencepiece_model_pb2.ModelProto.FromString(MODELS[name]())
    return fast_tokenizer(proto)


def test_this_is_what_transformers_gets_wrong(tmp_path):
    """Without a difference between the two here, nothing above would show the fault."""
    stock = LlamaTokenizer.from_pretrained(write(tmp_path / "m3", pieces=layouts.reordered(0)))
    wrong = [
        question
        for question in QUESTIONS
        if stock(question, add_special_tokens=False)["input_ids"]
        != reference("reordered 0").encode(question)
    ]
    assert wrong == [question for question in QUESTIONS if "  " in question]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_scores_and_any_pieces(data):
    """Vocabularies of two letters and blanks, where nearly every pair of pieces is a third."""
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=25))
    known = ["\u2581", "a", "b"]
    for left, right in pairs:
        new = known[left % len(known)] + known[right % len(known)]
        if len(new) <= 9 and new not in known:
            known.append(new)
    scores = data.draw(st.permutations(range(len(known))))
    proto = sentencepiece_model_pb2.ModelProto.FromString(layouts.pieces())
    kept = [one for one in proto.pieces if one.type != 1]
    del proto.pieces[:]
    proto.pieces.extend(kept)
    for piece, score in zip(known, scores, strict=True):
        lowest = set(piece) == {"\u2581"}
        proto.pieces.add(piece=piece, score=-1e9 if lowest else -score, type=1)
    reference = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    tokenizer = fast_tokenizer(proto)
    for _ in range(5):
        text = data.draw(st.text("ab ", max_size=25))
        assert tokenizer.encode(text).ids == reference.encode(text)


@pytest.mark.parametrize("family", ["llava", "llava_next", "mqt"])
def test_prompts_of_an_original_checkpoint(tmp_path, family):
    model = load_model(str(write(tmp_path / "m3", family, layouts.reordered(1))), device="cpu")
    for question in QUESTIONS:
        assert own_ids(model, question) == published_ids("reordered 1", PROMPT.format(question))


def test_a_converted_folder_has_the_same_ids_here_and_in_plain_transformers(both):
    _, source, folder = both
    original, converted = (load_model(str(one), device="cpu") for one in (source, folder))
    tokenizer, processor = (
        AutoTokenizer.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    for question in QUESTIONS:
        prompt = PROMPT.format(question)
        expected = published_ids("reordered 0", prompt)
        assert own_ids(original, question) == expected
        assert own_ids(converted, question) == expected
        assert plain_ids(tokenizer, prompt) == expected
        assert plain_ids(processor.tokenizer, prompt) == expected


def test_what_stands_behind_the_image_keeps_its_blanks(both):
    tokenizer = AutoTokenizer.from_pretrained(both[2])
    for prompt in ("<image>", "<image> x", "<image>  x", "x  <image><image>the  y ", " <image>\n"):
        assert plain_ids(tokenizer, prompt) == published_ids("reordered 0", prompt)


def test_plain_transformers_gives_the_same_answers(both):
    """Greedy answers at the finest scale, from AutoProcessor's own prompt and pixels."""
    family, source, folder = both
    stock = CLASSES[family].from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    models = [load_model(str(one), device="cpu") for one in (source, folder)]
    for question, size in zip(QUESTIONS[:3], [(40, 64), (90, 40), (48, 48)], strict=True):
        image = new_image(size=size)
        asked = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": asked}], add_generation_prompt=True
        )
        assert prompt == PROMPT.format(question)
        inputs = processor(images=image, text=prompt, return_tensors="pt")
        written = stock.generate(**inputs, max_new_tokens=6, do_sample=False)[0]
        said = processor.decode(written[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for model in models:
            model.max_new_tokens = 6
            (encoding,) = model.encode([image])
            (answer,) = model.answer([Request(encoding=encoding, question=question, scale=576)])
            assert answer.text == said.strip() != ""
            assert answer.visual_tokens + answer.text_tokens == inputs["input_ids"].shape[1]


# --- the files beside tokenizer.model ------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "legacy"),
    [
        ("none", None),
        *(("vicuna", legacy) for legacy in (True, False, None)),
        *(("decoder", legacy) for legacy in (True, False)),
        *(("map", legacy) for legacy in (False, None)),
    ],
)
def test_small_files_change_no_prompt(tmp_path, files, legacy):
    folder = write(tmp_path / "m3", pieces=layouts.reordered(0))
    tokens = ["<unk>", "<s>", "</s>"]
    if files == "none":
        (folder / "tokenizer_config.json").unlink()
        change = {}
    elif files == "decoder":
        change = {
            "added_tokens_decoder": {
                str(index): {"content": one, "special": True, "normalized": True}
                for index, one in enumerate(tokens)
            },
            "use_fast": False,
        }
    else:
        change = {"bos_token": {"__type": "AddedToken", "content": "<s>", "normalized": True}}
    if files == "map":
        mapped = {"eos_token": {"content": "</s>", "normalized": True}, "pad_token": "<unk>"}
        (folder / "special_tokens_map.json").write_text(json.dumps(mapped))
    if change:
        change_tokenizer(folder, legacy=... if legacy is None else legacy, **change)
    model = load_model(str(folder), device="cpu")
    for question in QUESTIONS[:4]:
        assert own_ids(model, question) == published_ids("reordered 0", PROMPT.format(question))
    spelled = "is </s> <s> <unk> a tag?"
    assert model._ids(spelled) == reference("reordered 0").encode(spelled)
    assert model.tokenizer("a </s>")["input_ids"][-1] == 2


def test_the_sentencepiece_model_counts_where_both_are_there(tmp_path):
    folder = write(tmp_path / "m3", pieces=layouts.reordered(0))
    LlamaTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "tokenizer.json", folder)
    model = load_model(str(folder), device="cpu")
    for question in QUESTIONS:
        assert own_ids(model, question) == published_ids("reordered 0", PROMPT.format(question))


@pytest.mark.parametrize("form", ["older", "newer"])
def test_a_fast_tokenizer_alone(tmp_path, form):
    folder = write(tmp_path / "m3", pieces=layouts.reordered(0))
    converted = convert(str(folder), tmp_path / "converted")
    content = json.loads((converted / "tokenizer.json").read_text())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < 3]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    if form == "newer":
        layouts.blank_at_the_beginning_alone(folder)
    (folder / "tokenizer.model").unlink()
    model = load_model(str(folder), device="cpu")
    again = AutoTokenizer.from_pretrained(convert(str(folder), tmp_path / "again"))
    for question in QUESTIONS:
        expected = published_ids("reordered 0", PROMPT.format(question))
        assert own_ids(model, question) == expected == plain_ids(again, PROMPT.format(question))


def test_added_tokens_keep_their_ids(tmp_path):
    folder = write(tmp_path / "m3", pieces=layouts.reordered(0))
    rows = reference("reordered 0").vocab_size()
    config, tensors = layouts.published("llava")
    tensors["model.embed_tokens.weight"] = torch.randn(rows + 2, 48)
    tensors["lm_head.weight"] = torch.randn(rows + 2, 48)
    shutil.rmtree(folder)
    layouts.write(folder, config | {"vocab_size": rows + 2}, tensors)
    (folder / "tokenizer.model").write_bytes(layouts.reordered(0))
    added = {"<one>": rows, "<two>": rows + 1}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    model = load_model(str(folder), device="cpu")
    assert {one: model.tokenizer.convert_tokens_to_ids(one) for one in added} == added
    converted = convert(str(folder), tmp_path / "converted")
    plain = AutoTokenizer.from_pretrained(converted)
    assert plain.convert_tokens_to_ids(["<one>", "<two>", "<image>"]) == [rows, rows + 1, rows + 2]
    (folder / "added_tokens.json").write_text(json.dumps({"<one>": rows + 1}))
    with pytest.raises(ModelError, match=r"'<one>' should have the id .* files are of two"):
        load_model(str(folder), device="cpu")
    (folder / "added_tokens.json").write_text(json.dumps({"<one>": None}))
    with pytest.raises(ModelError, match="added or special tokens cannot be read"):
        load_model(str(folder), device="cpu")


def test_a_converted_folder_without_its_fast_tokenizer(both, tmp_path):
    """Some folders in Hugging Face's layout hold tokenizer.model and added tokens alone."""
    folder = shutil.copytree(both[2], tmp_path / "bare")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(layouts.reordered(0))
    decoder = {str(index): {"content": one, "special": True} for one, index in added.items()}
    change_tokenizer(folder, added_tokens_decoder=decoder)
    model = load_model(str(folder), device="cpu")
    for question in QUESTIONS:
        assert own_ids(model, question) == published_ids("reordered 0", PROMPT.format(question))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("layout", ["original", "converted"])
def test_further_turns_begin_as_the_tokenizer_says(tmp_path, legacy, layout):
    """transformers 4: behind ``</s>`` a legacy tokenizer puts a blank, another does not."""
    folder = write(tmp_path / "m3", pieces=layouts.reordered(0))
    change_tokenizer(folder, legacy=legacy)
    if layout == "converted":
        folder = convert(str(folder), tmp_path / "converted")
    model = load_model(str(folder), device="cpu")
    turns = (("what?", "a  dog"), ("how  many?", "2"))
    talk = Conversation(id="1", image="x.png", turns=turns)
    found = ConversationText(model.tokenizer, model.template)(talk)
    pieces = reference("reordered 0")
    later = pieces.encode("USER: how  many? ASSISTANT: 2")
    if not legacy:
        later = pieces.encode("\n" + "USER: how  many? ASSISTANT: 2")[len(pieces.encode("\n")) :]
    assert [*found[1][0], *found[1][1]] == [*later, 2]


# --- other tokenizers and faults -----------------------------------------------------------------


def test_other_kinds_of_tokenizers_are_left_alone(tmp_path):
    source = embedded_folder()
    folder = convert("embedded", tmp_path / "converted")
    old, new = (json.loads((one / "tokenizer.json").read_text()) for one in (source, folder))
    assert old == new
    byte_level = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel"}}
    assert prefix_every_text(byte_level) is byte_level
    model, processor = load_model(str(folder), device="cpu"), AutoProcessor.from_pretrained(folder)
    stock = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    question = "what number is on the tag?"
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    image = new_image(size=(120, 200))
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with torch.inference_mode():
        theirs = stock(**inputs).logits[0]
        (encoding,) = model.encode([image])
        request = Request(encoding=encoding, question=question, scale=576)
        ours = model.model(inputs_embeds=model.embed_prompt(request)[None]).logits[0]
    torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=0)


def test_symbols_that_are_never_cut(tmp_path):
    proto = sentencepiece_model_pb2.ModelProto.FromString(layouts.reordered(0))
    for symbol in ("<sep>", "<sep> x", "++"):
        proto.pieces.add(piece=symbol.replace(" ", "\u2581"), score=0.0, type=4)
    content = proto.SerializeToString()
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    tokenizer = fast_tokenizer(proto)
    for text in ("<sep>the dog", "the <sep> xdog++ a", "+++ <sep><sep>", "<sep", "the"):
        assert tokenizer.encode(text).ids == reference.encode(text)


def test_a_tokenizer_that_cannot_be_followed_is_said(tmp_path, caplog):
    folder = write(tmp_path / "m3")
    proto = sentencepiece_model_pb2.ModelProto.FromString(layouts.pieces())
    proto.trainer_spec.treat_whitespace_as_suffix = True
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    with caplog.at_level(logging.WARNING):
        load_llama_tokenizer(folder)
    assert "gets other tokens here than from sentencepiece" in caplog.text
    proto.trainer_spec.model_type = 1
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="is not of byte-pair encoding"):
        read_pieces(folder / "tokenizer.model")


# --- the chat template ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
def test_chat_templates_write_the_prompt(both, name):
    template = get_template(name)
    tokenizer = AutoTokenizer.from_pretrained(both[2])

    def chat(*messages, **options):
        return tokenizer.apply_chat_template(
            [dict(zip(("role", "content"), one, strict=True)) for one in messages],
            chat_template=chat_template(template),
            tokenize=False,
            **{"add_generation_prompt": True} | options,
        )

    image, said = {"type": "image"}, {"type": "text", "text": ' Is "it" {{ x }}? '}
    expected = template.before + "<image>" + template.text_after('Is "it" {{ x }}?')
    assert chat(("user", [image, said])) == expected == chat(("user", [said, image]))
    assert chat(("user", '<image>\nIs "it" {{ x }}?')) == expected
    with pytest.raises(Exception, match="takes one image, in the first message"):
        chat(("user", [image, image, said]))
    with pytest.raises(Exception, match="no place for the role system"):
        chat(("system", "Be kind."))
    if template.again is None:
        with pytest.raises(Exception, match="one question about one image"):
            chat(("user", "Hi"))
        return
    turns = [("user", [image, said]), ("assistant", " yes "), ("user", "Why?")]
    assert chat(*turns) == f"{expected} yes</s>USER: Why? ASSISTANT:"
    assert chat(*turns[:2], add_generation_prompt=False) == f"{expected} yes</s>"
    assert chat(("user", "Hi")) == template.alone.format(question="Hi")
