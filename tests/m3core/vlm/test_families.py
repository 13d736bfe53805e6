"""Each family against its stock model and processor, asked one question at a time."""

from __future__ import annotations

import copy
import json
import shutil
from contextlib import contextmanager

import pytest
import torch

from m3router.m3core.cost.vision_language import FAMILIES as COSTED
from m3router.m3core.options import Answer, OptionModel, Request
from m3router.m3core.vlm import FAMILIES, load_vlm
from m3router.m3core.vlm.tiny import TINY

QUESTIONS = ("what is red?", "how many?")
NEW = 6

# Visual tokens of an image of 1600 x 1200 and of 300 x 200 pixels, by option. Those of 1600 x 1200
# were also counted by vLLM 0.32 where it serves the family.
KNOWN = {
    "gemma3": ({"256": 256, "1280": 768}, {"256": 256, "1280": 256}),
    "gemma4": (
        {"70": 63, "140": 130, "280": 266, "560": 540, "1120": 1064},
        {"70": 60, "140": 126, "280": 260, "560": 532, "1120": 1080},
    ),
    "internvl": (
        {"256": 256, "1280": 1280, "1792": 1792, "3328": 3328},
        {"256": 256, "1280": 256, "1792": 1792, "3328": 1792},
    ),
    "lfm2_vl": (
        {"64": 54, "128": 117, "256": 234, "1280": 1258, "2816": 1770},
        {"64": 54, "128": 70, "256": 70, "1280": 70, "2816": 70},
    ),
    "llava_onevision": (
        {"1x1": 1317, "2x2": 2929, "3x3": 5731, "6x6": 7309},
        {"1x1": 1261, "2x2": 1261, "3x3": 1261, "6x6": 1261},
    ),
    "minicpmv4_6": (
        {"64": 63, "320": 315, "640": 630, "1280": 1260, "2560": 2520},
        {"64": 70, "320": 70, "640": 70, "1280": 260, "2560": 260},
    ),
    "qwen2_5_vl": (
        {"64": 54, "256": 234, "1024": 972, "2048": 2028},
        {"64": 54, "256": 77, "1024": 77, "2048": 77},
    ),
    "qwen3_vl": (
        {"64": 54, "256": 234, "1024": 972, "2048": 1900},
        {"64": 54, "256": 54, "1024": 54, "2048": 54},
    ),
    "smolvlm": (
        {"64": 64, "320": 320, "640": 640, "1088": 832},
        {"64": 64, "320": 320, "640": 448, "1088": 832},
    ),
}


@contextmanager
def in_config(config, values):
    before = {name: getattr(config, name) for name in values}
    for name, value in values.items():
        setattr(config, name, value)
    yield
    for name, value in before.items():
        setattr(config, name, value)


@torch.inference_mode()
def stock(model, request):
    """First logits, answer tokens, and prompt tokens, from transformers' own way of asking."""
    family = FAMILIES[model.provenance["family"]]
    keywords = copy.deepcopy(dict(model.spec["options"][request.option]))
    stored = {name: keywords.pop(name) for name in family.stored if name in keywords}
    processor = copy.copy(model.reader.processor)
    processor.image_processor = copy.copy(processor.image_processor)
    for name, value in stored.items():
        setattr(processor.image_processor, name, value)
    text = model.provenance["prompt"].replace("{question}", request.question)
    given = processor(images=[[request.image]], text=[text], return_tensors="pt", **keywords)
    whole = model.reader.model
    also = {name: keywords[name] for name in ("downsample_mode",) if name in keywords}
    with in_config(whole.config, stored):
        found = whole.generate(
            **given,
            **also,
            max_new_tokens=NEW,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    length = given["input_ids"].shape[1]
    return found.logits[0][0].float(), found.sequences[0, length:].tolist(), length


@torch.inference_mode()
def first_logits(model, requests):
    """Of one left-padded batch of any images and options."""
    images = [model.preparer.prepare(one.image, one.option) for one in requests]
    ids = [
        [*image.prefix, *model.preparer.question(image, one.question)]
        for image, one in zip(images, requests, strict=True)
    ]
    return model.reader.read([model.encode(image) for image in images], ids).logits


@torch.inference_mode()
def first_logits_behind(model, requests):
    """Of questions behind one prefix that is read once, and copied for each."""
    image = model.preparer.prepare(requests[0].image, requests[0].option)
    prefix = model.reader.read([model.encode(image)], [image.prefix])
    found = []
    for one in requests:
        state = prefix.copied(1)
        model.reader.read_on(state, [model.preparer.question(image, one.question)])
        found.append(state.logits[0])
    return torch.stack(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_mixed_budgets_and_shared_prefixes_equal_stock_single_runs(name, model_of, picture):
    model = model_of(name)
    coarse, fine = model.options[0].name, model.options[1].name
    large, small = picture(800, 600), picture(200, 150, seed=1)
    what, many = QUESTIONS
    requests = [
        Request(image=image, question=question, option=option, max_new_tokens=NEW)
        for image, question, option in (
            (large, what, coarse),
            (large, many, coarse),
            (large, what, fine),
            (small, many, coarse),
        )
    ]
    single = [stock(model, one) for one in requests]
    logits = torch.stack([one for one, _, _ in single])
    for one, other in ((0, 1), (0, 2), (1, 3)):  # question, option and image make a difference
        assert (logits[one] - logits[other]).abs().max() > 1e-3
    assert (first_logits(model, requests[1:]) - logits[1:]).abs().max() <= 1e-4
    assert (first_logits_behind(model, requests[:2]) - logits[:2]).abs().max() <= 1e-4

    texts = [
        model.preparer.tokenizer.decode(ids, skip_special_tokens=True).strip()
        for _, ids, _ in single
    ]
    # The first two share a prefix, the others are read in one batch.
    together = model.answer(requests)
    assert [one.text for one in together] == texts
    for request, answer, (first, ids, length) in zip(requests, together, single, strict=True):
        assert isinstance(answer, Answer)
        assert answer.confidence == pytest.approx(float(first.softmax(-1).max()), abs=1e-4)
        assert answer.usage.prompt_tokens == length
        assert answer.usage.answer_tokens == len(ids)
        assert answer.usage.image_tokens == model.count(request.image, request.option).image_tokens
        assert answer.usage.language_flops > 0 and answer.usage.tower_flops > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_counts_are_the_known_ones_for_every_option(name, model_of, picture):
    model = model_of(name)
    assert isinstance(model, OptionModel)
    for size, known in zip(((1600, 1200), (300, 200)), KNOWN[name], strict=True):
        found = {one.name: model.preparer.count(size, one.name) for one in model.options}
        assert {option: counts.visual_tokens for option, counts in found.items()} == known
        assert all(one.image_tokens >= one.visual_tokens for one in found.values())
    usage = model.count(picture(300, 200), model.options[-1].name)
    assert usage.cost == usage.image_tokens
    assert usage.image_tokens_from == "counted" and usage.pixels > 0


SETTINGS = {
    "as Qwen2.5-VL's": {
        "repetition_penalty": 1.3,
        "do_sample": True,
        "temperature": 1e-6,
        "top_k": 1,
        "eos_token_id": [1, 34],
    },
    "others": {
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 2,
        "suppress_tokens": [10, 11],
        "begin_suppress_tokens": [96],
        "bad_words_ids": [[70], [80, 81]],
        "forced_eos_token_id": 1,
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_generation_settings_of_a_checkpoint_change_answers_as_in_stock(
    settings, folder_of, model_of, picture, tmp_path
):
    folder = shutil.copytree(folder_of("qwen2_5_vl"), tmp_path / "copy")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    model, plain = load_vlm(str(folder), device="cpu"), model_of("qwen2_5_vl")
    large, small = picture(400, 300), picture(200, 150, seed=1)
    requests = [
        Request(image=image, question=question, option=option, max_new_tokens=NEW)
        for image, question, option in (
            (large, QUESTIONS[0], "64"),
            (large, QUESTIONS[1], "64"),
            (small, QUESTIONS[0], "64"),
            (large, QUESTIONS[1] + " really?", "256"),
        )
    ]
    answers = model.answer(requests)
    for request, answer in zip(requests, answers, strict=True):
        _, ids, _ = stock(model, request)
        assert answer.usage.answer_tokens == len(ids)
        assert answer.text == model.preparer.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert [one.text for one in answers] != [one.text for one in plain.answer(requests)]
    assert answers[0].confidence <= plain.answer(requests)[0].confidence + 1e-6
    assert model.revision != plain.revision
    assert model.provenance["decoding"].startswith("greedy, ")
    assert plain.provenance["decoding"] == "greedy"


def test_every_family_has_a_tiny_model_and_known_operations():
    assert set(FAMILIES) == set(TINY) == set(COSTED) == set(KNOWN)
