"""A small random stock LLaVA-NeXT: parity with Hugging Face, real token counts, labelling."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
)

from experiments.embedded_model.tokenizer import SPECIAL, build_tokenizer
from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.m3core.labelling import label
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.m3core.matryoshka.batching import answer_all
from m3router.m3core.matryoshka.models.anyres import FLAT, CropGrid
from m3router.m3core.matryoshka.models.llava_next import LlavaNextM3
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.router import calibrate_stage, evaluate_stage, label_stage, report_stage, train_stage
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.policies.costs import routed_costs
from m3router.router.runs.run import Run
from tests.m3core.peeks import check_peeks

QUESTIONS = ["What color is the background?", "Is there a red ring?", "How many shapes are there?"]
SMALL = ScaleGrid(scales=(1, 9, 36, 144), side=12)


tokenizer = cache(build_tokenizer)


def new_image(height: int, width: int, seed: int = 0) -> Image.Image:
    """Coarse coloured noise."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


def stock(side: int, patch: int) -> LlavaNextForConditionalGeneration:
    """Random weights large enough that answers depend on the image."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    pinpoints = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=side,
            patch_size=patch,
            initializer_range=0.3,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            initializer_range=0.3,
            bos_token_id=ids["bos"],
            eos_token_id=ids["eos"],
            pad_token_id=ids["pad"],
        ),
        image_grid_pinpoints=[[rows * side, columns * side] for rows, columns in pinpoints],
        image_token_index=ids["image"],
        vision_feature_layer=-2,
    )
    return LlavaNextForConditionalGeneration(config).eval()


def wrap(model, *, grid: ScaleGrid, **changes) -> LlavaNextM3:
    options = {
        "tokenizer": tokenizer(),
        "image_processor": CLIPImageProcessorPil(),
        "template": get_template("scenes-1"),
        "grid": grid,
        "name": "next",
        "revision": "0" * 64,
        "max_new_tokens": 4,
    }
    return LlavaNextM3(model=model, **(options | changes))


@pytest.fixture(scope="module")
def full():
    """The published sizes of tower grid and crops, everything else small."""
    return wrap(stock(336, 14), grid=ScaleGrid())


@pytest.fixture(scope="module")
def small_stock():
    return stock(48, 4)


@pytest.fixture(scope="module")
def small(small_stock):
    return wrap(small_stock, grid=SMALL)


def test_it_is_a_multi_scale_model(small):
    assert isinstance(small, MultiScaleModel)
    assert small.encode([]) == [] and small.answer([]) == []


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        ((480, 640), {1: 7, 9: 37, 36: 166, 144: 594, 576: 2340}),
        ((336, 336), {1: 4, 9: 24, 36: 78, 144: 300, 576: 1176}),
    ],
)
def test_tokens_are_those_of_the_authors_code(full, size, counts):
    (encoding,) = full.encode([new_image(*size)])
    assert {scale: encoding.tokens(scale) for scale in full.grid.scales} == counts
    assert {scale: len(encoding.at(scale)) for scale in full.grid.scales} == counts
    requests = [Request(encoding=encoding, question="Why?", scale=scale) for scale in counts]
    assert [one.visual_tokens for one in answer_all(full, requests)] == list(counts.values())


@pytest.mark.parametrize("size", [(480, 640), (336, 336), (700, 200), (90, 500)])
def test_the_finest_scale_equals_the_stock_model(full, size):
    """The reference is Hugging Face's own processor, packing and forward pass."""
    image, question = new_image(*size, seed=3), QUESTIONS[0]
    model, tokenizer = full.model, full.tokenizer
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        image_grid_pinpoints=model.config.image_grid_pinpoints,
    )
    inputs = processor(image, return_tensors="pt")
    (encoding,) = full.encode([image])
    prompt = tokenizer(f"{question} answer:", add_special_tokens=False)["input_ids"]
    visual = [model.config.image_token_id] * encoding.tokens(576)
    ids = torch.tensor([[tokenizer.bos_token_id, *visual, *prompt]])
    with torch.inference_mode():
        packed = model.model.get_image_features(**inputs).pooler_output[0]
        logits = model(input_ids=ids, **inputs).logits
        embed = model.get_input_embeddings()
        texts = embed(torch.tensor([tokenizer.bos_token_id, *prompt]))
        own = torch.cat([texts[:1], encoding.at(576), texts[1:]])[None]
        ours = model(inputs_embeds=own).logits
    torch.testing.assert_close(encoding.at(576), packed, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)
    answer = full.answer([Request(encoding=encoding, question=question, scale=576)])[0]
    first = logits[0, -1].softmax(-1).max()
    assert answer.confidence == pytest.approx(float(first), rel=1e-3)
    assert answer.text_tokens == 1 + len(prompt)


def test_the_base_view_is_what_the_router_sees(full):
    """It is the whole image stretched to a square, seen by the stock tower and projector."""
    image = new_image(200, 500)
    square = image.resize((336, 336), Image.Resampling.BICUBIC)
    pixels = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)(
        square, return_tensors="pt"
    )["pixel_values"]
    core = full.model.model
    with torch.inference_mode():
        hidden = core.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        expected = core.multi_modal_projector(hidden)[0]
    (encoding,) = full.encode([image])
    torch.testing.assert_close(encoding.features, expected, atol=1e-4, rtol=1e-4)
    assert encoding.views == 3  # the base and 1 x 2 crops


@pytest.mark.parametrize(
    ("merge", "pooling"),
    [
        ("spatial_unpad", "average"),
        ("spatial_unpad", "sequential"),
        ("flat", "average"),
        ("flat", "spatial"),
    ],
)
def test_mixed_scales_and_images_in_one_batch_answer_as_each_alone(small_stock, merge, pooling):
    model = wrap(small_stock, grid=SMALL, merge=merge, pooling=pooling)
    sizes = [(24, 24), (40, 90), (200, 30), (64, 48), (5, 300), (300, 200)]
    encodings = model.encode([new_image(*size, seed=place) for place, size in enumerate(sizes)])
    for encoding, size in zip(encodings, sizes, strict=True):
        (alone,) = model.encode([new_image(*size, seed=sizes.index(size))])
        torch.testing.assert_close(alone.crops, encoding.crops, atol=1e-4, rtol=1e-4)
    requests = [
        Request(encoding=encoding, question=QUESTIONS[place % 3], scale=scale)
        for place, encoding in enumerate(encodings)
        for scale in SMALL.scales
    ]
    together = model.answer(requests)
    for request, batched in zip(requests, together, strict=True):
        (single,) = model.answer([request])
        assert batched.text == single.text
        assert batched.logprob == pytest.approx(single.logprob, abs=1e-4)
        assert batched.confidence == pytest.approx(single.confidence, abs=1e-4)
        assert batched.visual_tokens == request.encoding.tokens(request.scale)
    assert len({one.text for one in together}) > 1  # the answers say something about the input


def test_flat_crops_have_no_newlines(small_stock):
    (encoding,) = wrap(small_stock, grid=SMALL, merge=FLAT).encode([new_image(96, 96)])
    assert [encoding.tokens(scale) for scale in SMALL.scales] == [5, 45, 180, 720]


def test_other_grids_must_be_asked_for(small_stock):
    """M3, Table 5: 3 x 3 crops at inference."""
    three = CropGrid(3, 3)
    with pytest.raises(MismatchError, match=r"does not list the grid 3x3.*1x2 2x1 2x2.*unlisted"):
        wrap(small_stock, grid=SMALL, grids=[three])
    model = wrap(small_stock, grid=SMALL, grids=[three], unlisted_grids=True)
    (encoding,) = model.encode([new_image(144, 144)])
    assert encoding.views == 10
    assert encoding.tokens(9) == 9 + 9 * 10
    two = wrap(small_stock, grid=SMALL, grids=[CropGrid(2, 2)])
    (encoding,) = two.encode([new_image(20, 60)])  # would take 1 x 3 of all the grids listed
    assert encoding.views == 5
    with pytest.raises(MismatchError, match="no grid of crops"):
        wrap(small_stock, grid=SMALL, grids=[])


def test_what_makes_other_tokens_makes_another_revision(small_stock, small):
    plain = wrap(small_stock, grid=SMALL)
    assert plain.revision == small.revision == "0" * 64
    others = [
        wrap(small_stock, grid=SMALL, pooling="spatial"),
        wrap(small_stock, grid=SMALL, merge="flat"),
        wrap(small_stock, grid=SMALL, grids=[CropGrid(2, 2)]),
    ]
    assert len({plain.revision, *(one.revision for one in others)}) == 4
    assert others[2].visual == {"pooling": "average", "merge": "spatial_unpad", "grids": "2x2"}
    for name in ("pooling", "merge"):
        with pytest.raises(MismatchError, match="unknown.*'best'"):
            wrap(small_stock, grid=SMALL, **{name: "best"})


def test_bad_requests_are_refused(small, full):
    (encoding,) = small.encode([new_image(50, 50)])
    with pytest.raises(MismatchError, match="scale 16 is not in"):
        small.answer([Request(encoding=encoding, question="Why?", scale=16)])
    with pytest.raises(DataError, match="question is empty"):
        small.answer([Request(encoding=encoding, question=" ", scale=1)])
    (large,) = full.encode([new_image(480, 640)])
    long = Request(encoding=large, question="red " * 2000, scale=576)
    with pytest.raises(DataError, match="2340 visual tokens.*context of 4096"):
        full.answer([long])
    assert full.prompt_length(long.question, large.tokens(1)) < 2100


@pytest.fixture(scope="module")
def labelled(small, tmp_path_factory):
    """Images of many shapes; right is what the finest scale answers, so that all is learnable."""
    root = tmp_path_factory.mktemp("next")
    random = np.random.default_rng(0)
    images, examples = {}, []
    for number in range(36):
        height, width = random.integers(20, 180, 2).tolist()
        images[f"{number}.png"] = new_image(height, width, seed=number)
        images[f"{number}.png"].save(root / f"{number}.png")
    encodings = dict(zip(images, small.encode(list(images.values())), strict=True))
    requests = [
        Request(encoding=encoding, question=question, scale=144)
        for encoding in encodings.values()
        for question in QUESTIONS
    ]
    finest = answer_all(small, requests)
    for number, answer in enumerate(finest):
        name = f"{number // 3}.png"
        examples.append(
            Example(
                id=str(number),
                image=name,
                question=QUESTIONS[number % 3],
                answers=(answer.text or "nothing",),
                metric="exact",
                group=name,
            )
        )
    run = Run(root / "run")
    log = label_stage(run, examples, images=root, model=small)
    return root, run, log, images, encodings


def test_the_log_costs_what_each_image_really_took(small, labelled):
    _, _, log, images, encodings = labelled
    assert log.n_gaps == 0
    expected = [[encodings[name].tokens(s) for s in SMALL.scales] for name in log.images]
    assert log.costs.tolist() == expected
    assert len({tuple(row) for row in expected}) > 5  # the shapes do differ
    views = np.array([[encodings[name].views] * 4 for name in log.images])
    np.testing.assert_allclose(log.vision_flops, views * small.shape.vision_flops())
    row = log.frame.iloc[0]
    prompt = int(row["cost"] + row["text_tokens"])
    assert row["flops"] == small.shape.answer_flops(prompt, int(row["answer_tokens"]))
    assert log.metadata["visual"]["grids"] == "1x2 2x1 2x2 3x1 1x3"


def test_a_router_is_trained_evaluated_and_used(small, labelled):
    root, run, log, images, encodings = labelled
    train_stage(run, estimator="logistic", ablations=False)
    least = log.costs.min(1).mean()
    budget = float((least + log.costs[:, -1].mean()) / 2)
    policy = calibrate_stage(run, budget=budget)
    assert policy.calibration["mean_cost"] <= budget
    document = evaluate_stage(run, draws=20)
    test = run.split(log).part("test")
    fixed = {
        row["name"]: row["cost"]["value"] for row in document["rows"] if row["kind"] == "fixed"
    }
    assert list(fixed.values()) == pytest.approx(log.costs[test].mean(0).tolist())
    seen = [encodings[log.images[row]].views for row in test]
    gflops = np.mean(seen) * small.shape.vision_flops() / 1e9
    assert document["vision_gflops"] == pytest.approx(gflops)
    assert report_stage(run, images=root).is_file()

    # Decisions online use each image's own costs, as offline.
    pipeline = AutoScalePipeline.load(run.root, model=small)
    router = run.router()
    p = router.predict(run.features(log).align([log.ids[row] for row in test]))
    offline = policy.choose(p, routed_costs(log.costs[test], router.blocks))
    online = pipeline.answer(
        [images[log.images[row]] for row in test], [str(log.questions[row]) for row in test]
    )
    assert [one.scale for one in online] == [SMALL.scales[k] for k in offline]
    for one, row in zip(online, test, strict=True):
        encoding = encodings[log.images[row]]
        assert one.answer.visual_tokens == encoding.tokens(one.scale)
        assert one.flops["vision"] == small.shape.vision_flops(encoding.views)


def test_resuming_with_other_tokens_is_refused(small_stock, small, labelled, tmp_path):
    root, *_ = labelled
    example = Example(id="a", image="0.png", question="Why?", answers=("x",), group="0.png")
    label([example], images=root, model=small, folder=tmp_path)
    for changes in ({"pooling": "sequential"}, {"grids": [CropGrid(2, 2)]}, {"merge": "flat"}):
        other = wrap(small_stock, grid=SMALL, **changes)
        with pytest.raises(MismatchError, match="visual: journal"):
            label([example], images=root, model=other, folder=tmp_path)


def test_its_peeks_go_on_to_its_answers(small):
    check_peeks(small, [new_image(40, 90, seed=0), new_image(120, 50, seed=1)], QUESTIONS)
