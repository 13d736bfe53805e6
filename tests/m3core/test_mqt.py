"""MQT-LLaVA against references written here from the authors' formulas, on random weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPImageProcessorPil, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.data.example import Example
from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.m3core.checkpoints.families.mqt import published_shapes
from m3router.m3core.checkpoints.tower import INSIDE, known_tower
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.m3core.matryoshka.models.grad_cam import grad_cam, token_heat_maps
from m3router.m3core.matryoshka.models.mqt import MqtLlava, QueryEncoding
from m3router.m3core.matryoshka.models.query_abstractor import (
    QueryAbstractor,
    resize_table,
    sine_cosine_table,
)
from m3router.m3core.matryoshka.scales import MQT_SCALES, ScaleGrid
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.features.image import image_features
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import label_stage
from tests.m3core import layouts
from tests.m3core.layouts import TOWER, VISION, shaken
from tests.m3core.peeks import check_peeks
from tests.m3core.test_checkpoints import cropped_pixels

ABSTRACTOR_SHAPES = {  # of the published checkpoint
    "pos_embed": (256, 1024),
    "query": (256, 1024),
    "proj": (1024, 4096),
    "attn.in_proj_weight": (3072, 1024),
    "attn.in_proj_bias": (3072,),
    "attn.out_proj.weight": (1024, 1024),
    "attn.out_proj.bias": (1024,),
    "ln_q.weight": (1024,),
    "ln_q.bias": (1024,),
    "ln_k.weight": (1024,),
    "ln_k.bias": (1024,),
    "ln_v.weight": (1024,),
    "ln_v.bias": (1024,),
}
PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: <image>\n{} ASSISTANT:"
)
QUESTIONS = ["What color is the background?", "Is there a red ring?", "How many shapes are there?"]


def reference_layer(weights: dict[str, torch.Tensor], x: torch.Tensor, m: int) -> torch.Tensor:
    """The published layer, step by step, through torch's own attention module.

    ``weights`` are those of the query transformer, ``x`` is (B, P, W); 16 heads.
    """
    width = weights["query"].shape[1]
    attention = nn.MultiheadAttention(width, 16).to(x.dtype)
    attention.load_state_dict(
        {key[5:]: value for key, value in weights.items() if key.startswith("attn.")}
    )
    side = math.isqrt(x.shape[1])

    def norm(name: str, rows: torch.Tensor) -> torch.Tensor:
        centred = rows - rows.mean(-1, keepdim=True)
        unit = centred / (rows.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    table = weights["pos_embed"].T.reshape(1, width, 16, 16)
    keys = F.interpolate(table, size=(side, side), mode="bicubic", align_corners=False)
    keys = keys[0].flatten(1).T  # (P, W)
    queries = weights["query"][:m] + weights["pos_embed"][:m]
    batch = len(x)
    mixed, _ = attention(
        norm("ln_q", queries)[:, None].repeat(1, batch, 1),
        norm("ln_k", keys)[:, None].repeat(1, batch, 1),
        norm("ln_v", x).transpose(0, 1),
    )
    return mixed.transpose(0, 1) @ weights["proj"]


@pytest.fixture(scope="module")
def published() -> tuple[dict, dict[str, torch.Tensor]]:
    """A small random checkpoint with the names and the structure of the published one."""
    config, tensors = layouts.published("mqt", seed=3)
    return config | {"tokenizer_model_max_length": 1000}, tensors


@pytest.fixture
def build(tmp_path):
    """Write a checkpoint and load it."""

    def build(config, weights, *, tower: str = "inside", dtype: str = "float32") -> MqtLlava:
        folder = layouts.write(
            tmp_path / str(len(list(tmp_path.iterdir()))), config, weights, tower=tower
        )
        return load_model(str(folder), device="cpu", dtype=dtype)

    return build


@pytest.fixture(scope="module")
def mqt(published, tmp_path_factory) -> MqtLlava:
    folder = layouts.write(tmp_path_factory.mktemp("mqt") / "tiny-mqt", *published)
    model = load_model(str(folder), device="cpu")
    model.max_new_tokens = 4
    return model


def new_image(seed: int) -> Image.Image:
    return Image.fromarray(render(make_scene(seed))).crop((0, 0, 192, 150))


# --- the query transformer alone -----------------------------------------------------------------


def test_names_and_shapes_are_the_published_ones_and_load_strictly():
    with torch.device("meta"):
        layer = QueryAbstractor()
    assert {key: tuple(one.shape) for key, one in layer.state_dict().items()} == ABSTRACTOR_SHAPES
    given = {key: torch.full(shape, 0.5) for key, shape in ABSTRACTOR_SHAPES.items()}
    layer.load_state_dict(given, strict=True, assign=True)
    assert all(torch.equal(one, given[key]) for key, one in layer.state_dict().items())
    assert layer.attn.num_heads == 16 and not layer.pos_embed.requires_grad
    assert layer.ln_q.eps == layer.ln_k.eps == layer.ln_v.eps == 1e-6


def test_real_sizes_agree_with_the_plain_layer():
    layer = shaken(QueryAbstractor(output=512), seed=1)
    weights = {key: one.double() for key, one in layer.state_dict().items()}
    x = torch.randn(2, 576, 1024, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = layer(x)
        for m in (1, 2, 37, 256):
            expected = reference_layer(weights, x.double(), m)
            assert expected.std() > 0.1
            torch.testing.assert_close(ours[:, :m].double(), expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(layer(x, m), ours[:, :m], atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 256), seed=st.integers(0, 2**16))
def test_the_first_outputs_are_the_plain_layers_for_every_number(m, seed):
    layer = shaken(QueryAbstractor(side=6, width=32, output=12), seed=seed)
    x = torch.randn(1, 36, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        everything = layer(x)
        torch.testing.assert_close(layer(x, m), everything[:, :m], atol=1e-5, rtol=0)
        expected = reference_layer(layer.state_dict(), x, m)
    torch.testing.assert_close(everything[:, :m], expected, atol=1e-5, rtol=0)


def test_the_table_of_positions_cell_by_cell():
    table = sine_cosine_table(16, 32)
    for row, column in [(0, 0), (0, 5), (3, 0), (15, 14)]:
        angles = [place / 10000 ** (i / 8) for place in (column, row) for i in range(8)]
        x, y = angles[:8], angles[8:]
        expected = [f(angle) for half in (x, y) for f in (math.sin, math.cos) for angle in half]
        np.testing.assert_allclose(table[16 * row + column], expected, atol=1e-6)
    assert torch.equal(QueryAbstractor(width=32, output=8).pos_embed, table.half().float())
    with pytest.raises(MismatchError, match="divisible by 4, got 30"):
        sine_cosine_table(16, 30)


def test_resizing_keeps_a_grid_of_its_own_size_and_the_dtype():
    table = sine_cosine_table(16, 32)
    torch.testing.assert_close(resize_table(table, 16), table)
    assert resize_table(table.half(), 24).dtype == torch.float16
    assert resize_table(table, 24).shape == (576, 32)


@pytest.mark.parametrize("tokens", [0, -1, 257])
def test_numbers_that_the_queries_cannot_give_are_refused(tokens, mqt):
    message = rf"^{tokens} visual tokens are not available: .* from 1 to 256"
    with pytest.raises(MismatchError, match=message):
        mqt.abstractor(torch.zeros(1, 576, 32), tokens)
    with pytest.raises(MismatchError, match=message):
        mqt.check_scale(tokens)
    (encoding,) = mqt.encode([new_image(0)])
    with pytest.raises(MismatchError, match=message):
        encoding.at(tokens)
    with pytest.raises(MismatchError, match=message):
        mqt.answer([Request(encoding=encoding, question="What?", scale=tokens)])


def test_patches_of_another_grid_are_refused(mqt):
    with pytest.raises(MismatchError, match="reads 24 x 24 patches, got 575"):
        mqt.abstractor(torch.zeros(1, 575, 32))


def small_layer(seed: int) -> QueryAbstractor:
    return shaken(QueryAbstractor(side=5, width=32, output=6), seed=seed)


@torch.no_grad()
def test_the_kept_weights_never_outlive_the_parameters():
    x = torch.randn(1, 25, 32, generator=torch.Generator().manual_seed(0))

    def check(layer: QueryAbstractor, atol: float = 1e-5) -> None:
        dtype = layer.query.dtype
        expected = reference_layer(layer.state_dict(), x.to(dtype), 256)
        torch.testing.assert_close(layer(x.to(dtype)), expected, atol=atol, rtol=0)
        assert layer.attention() is layer.attention()

    layer, other = small_layer(1), small_layer(2)
    check(layer)
    layer.query.mul_(3)  # as an optimizer's step does
    check(layer)
    layer.load_state_dict(other.state_dict())
    check(layer)
    layer.load_state_dict(small_layer(3).state_dict(), assign=True)
    check(layer)
    check(layer.double(), atol=1e-12)
    layer.float()
    check(layer)
    layer.bfloat16().float()  # may come back to the same addresses with rounded values
    check(layer)
    layer.train()
    layer.query.data.mul_(2)  # unseen by version counters
    check(layer.eval())


def test_gradients_reach_every_trained_parameter_as_in_the_plain_layer():
    layer = small_layer(4).double().train()
    x = torch.randn(2, 25, 32, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        layer(x)  # keeps weights that must not be taken below
    layer(x, 7).square().sum().backward()
    plain = {key: one.detach().clone().requires_grad_() for key, one in layer.state_dict().items()}

    def norm(name: str, rows: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(rows, (32,), plain[f"{name}.weight"], plain[f"{name}.bias"], 1e-6)

    table = plain["pos_embed"].detach()
    keys = F.interpolate(table.T.reshape(1, 32, 16, 16), size=(5, 5), mode="bicubic")
    mixed, _ = F.multi_head_attention_forward(
        norm("ln_q", plain["query"][:7] + table[:7])[:, None].repeat(1, 2, 1),
        norm("ln_k", keys[0].flatten(1).T)[:, None].repeat(1, 2, 1),
        norm("ln_v", x).transpose(0, 1),
        embed_dim_to_check=32,
        num_heads=16,
        in_proj_weight=plain["attn.in_proj_weight"],
        in_proj_bias=plain["attn.in_proj_bias"],
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=plain["attn.out_proj.weight"],
        out_proj_bias=plain["attn.out_proj.bias"],
    )
    (mixed.transpose(0, 1) @ plain["proj"]).square().sum().backward()
    for name, one in layer.named_parameters():
        if name == "pos_embed":
            assert one.grad is None
        else:
            torch.testing.assert_close(one.grad, plain[name].grad, atol=1e-9, rtol=1e-9)
    assert (layer.query.grad[:7] != 0).any() and (layer.query.grad[7:] == 0).all()


# --- the whole model -----------------------------------------------------------------------------


def reference_logits(published, image: Image.Image, question: str, m: int) -> torch.Tensor:
    """What the published code computes: logits at every position of the prompt, (L, V)."""
    config, weights = published
    tower = CLIPVisionModel(VISION).eval()
    tower.load_state_dict({k.removeprefix(TOWER): v for k, v in weights.items() if TOWER in k})
    language = LlamaForCausalLM(LlamaConfig(**layouts.TEXT)).eval()
    language.load_state_dict(
        {k: v for k, v in weights.items() if "vision_tower" not in k and "abstractor" not in k}
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=48)
    square = Image.new("RGB", (max(image.size),) * 2, (122, 116, 104))  # int(255 * CLIP's mean)
    square.paste(image, tuple((max(image.size) - side) // 2 for side in image.size))
    pixels = processor(square, return_tensors="pt")["pixel_values"]
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=layouts.pieces())
    chunks = [[1, *tokenizer.encode(chunk)] for chunk in PROMPT.format(question).split("<image>")]
    layer = {k.removeprefix("model.query_abstractor."): v for k, v in weights.items()}
    with torch.no_grad():
        seen = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        visual = reference_layer({k: layer[k] for k in ABSTRACTOR_SHAPES}, seen, m)[0]
        before, after = (language.model.embed_tokens(torch.tensor(ids)) for ids in chunks)
        return language(inputs_embeds=torch.cat([before, visual, after[1:]])[None]).logits[0]


@pytest.mark.parametrize("m", [1, 2, 16, 100, 256])
def test_logits_agree_with_the_published_computation(published, mqt, m):
    image, question = new_image(2), QUESTIONS[1]
    expected = reference_logits(published, image, question, m)
    (encoding,) = mqt.encode([image])
    request = Request(encoding=encoding, question=question, scale=m)
    with torch.inference_mode():
        ours = mqt.model(inputs_embeds=mqt.embed_prompt(request)[None]).logits[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    (answer,) = mqt.answer([request])
    first = expected[-1].log_softmax(-1)
    assert math.log(answer.confidence) == pytest.approx(float(first.max()), abs=1e-4)
    assert answer.visual_tokens == m
    assert answer.visual_tokens + answer.text_tokens == len(expected)
    assert mqt.prompt_length(question, m) == len(expected)


def test_a_mixed_batch_answers_as_each_request_alone(mqt):
    encodings = mqt.encode([new_image(seed) for seed in range(3)])
    requests = [
        Request(encoding=encodings[i % 3], question=QUESTIONS[i % 3], scale=scale)
        for i, scale in enumerate([256, 1, 2, 64, 99, 16])
    ]
    together = mqt.answer(requests)
    for request, batched in zip(requests, together, strict=True):
        (single,) = mqt.answer([request])
        assert batched.text == single.text
        assert batched.logprob == pytest.approx(single.logprob, abs=1e-4)
        assert batched.confidence == pytest.approx(single.confidence, abs=1e-4)
        assert batched.visual_tokens == single.visual_tokens == request.scale
    assert len({round(one.logprob, 3) for one in together}) == 6


def test_images_encoded_together_are_as_each_alone(mqt):
    images = [new_image(seed) for seed in range(3)]
    for one, batched in zip(images, mqt.encode(images), strict=True):
        (single,) = mqt.encode([one])
        assert single.features.shape == (256, 48)
        torch.testing.assert_close(batched.features, single.features, atol=1e-5, rtol=0)
        assert torch.equal(single.at(7), single.features[:7]) and single.tokens(7) == 7


def test_it_is_a_multi_scale_model_with_the_papers_grid(mqt):
    assert isinstance(mqt, MultiScaleModel)
    assert mqt.grid.scales == MQT_SCALES == (2, 4, 8, 16, 36, 64, 144, 256)
    assert (mqt.prompt, mqt.dtype, mqt.context) == ("vicuna-1", "float32", 1000)


def test_a_prompt_beyond_the_tokenizers_length_is_refused(mqt):
    with pytest.raises(DataError, match="256 visual tokens.*context of 1000"):
        mqt.prompt_length("red " * 800, 256)


def test_other_scales_and_prompts_can_be_chosen(published, build):
    config, weights = published
    chosen = {"matryoshka": {"scales": [3, 200], "prompt": "scenes-1"}}
    model = build(config | chosen, weights)
    assert model.grid == ScaleGrid(scales=(3, 200), side=None) and model.prompt == "scenes-1"
    with pytest.raises(MismatchError, match="257 visual tokens are not available"):
        build(config | {"matryoshka": {"scales": [3, 257]}}, weights)
    with pytest.raises(MismatchError, match="scale 0 is not a number of tokens"):
        build(config | {"matryoshka": {"scales": [0, 2]}}, weights)


def test_labels_and_features_of_one_pass(mqt, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(2):
        new_image(seed).save(images / f"{seed}.png")
    examples = [
        Example(id=str(n), image=f"{n}.png", question=QUESTIONS[n], answers=("x",), group=str(n))
        for n in range(2)
    ]
    run = Run(tmp_path / "run")
    log = label_stage(
        run,
        examples,
        images=images,
        model=mqt,
        questions="hashed",
        feature_groups=tuple(FEATURE_GROUPS),
    )
    table = run.features(log)
    assert log.options == tuple(str(scale) for scale in MQT_SCALES)
    assert log.costs.tolist() == [list(MQT_SCALES)] * 2
    assert table.blocks["image"].shape == (2, 48 + 7 * 50)
    assert table.blocks["peek"].shape == (2, 5 + 4 + 2 * 48)


def test_image_features_of_query_tokens_by_hand():
    tokens = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    grid = ScaleGrid(scales=(2, 5, 8), side=None)
    features = image_features(QueryEncoding(features=tokens), grid)
    rows, expected = tokens.numpy(), list(tokens.mean(0).numpy())
    for coarse, fine in [(2, 5), (5, 8)]:
        energy = (rows[coarse:fine] - rows[:coarse].mean(0)) ** 2
        of_token = energy.mean(1)
        expected += [*np.sqrt(energy.mean(0)), np.sqrt(energy.mean())]
        expected += [of_token.max() / of_token.sum()]
    np.testing.assert_allclose(features, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(published, mqt, build, dtype):
    half = build(*published, dtype=str(dtype).removeprefix("torch."))
    assert {one.dtype for one in half.abstractor.parameters()} == {dtype}
    (exact,), (rounded,) = mqt.encode([new_image(1)]), half.encode([new_image(1)])
    assert rounded.features.dtype == dtype
    error = (rounded.features.float() - exact.features).norm() / exact.features.norm()
    assert 0 < float(error) < 0.05
    (answer,) = half.answer([Request(encoding=rounded, question="What?", scale=5)])
    assert 0 < answer.confidence <= 1


# --- loading -------------------------------------------------------------------------------------


def test_every_wrong_key_is_in_one_error(published, build):
    config, weights = published
    broken = dict(weights)
    del broken["model.query_abstractor.ln_k.bias"], broken["model.layers.1.mlp.up_proj.weight"]
    broken["model.mm_projector.0.weight"] = torch.zeros(2, 2)
    broken["model.image_newline"] = torch.zeros(48)
    broken["model.query_abstractor.proj"] = torch.zeros(32, 47)
    broken[TOWER + "post_layernorm.bias"] = torch.zeros(31)
    with pytest.raises(ModelError) as caught:
        build(config, broken)
    message = str(caught.value)
    for part in (
        "missing keys: model.layers.1.mlp.up_proj.weight, model.query_abstractor.ln_k.bias;",
        "unexpected keys: model.image_newline, model.mm_projector.0.weight;",
        "model.query_abstractor.proj is (32, 47), config.json says (32, 48)",
        f"{INSIDE}post_layernorm.bias is (31,), config.json says (32,)",
    ):
        assert part in message


def test_what_the_published_model_does_not_do_is_refused(published, build):
    config, weights = published
    with pytest.raises(ModelError, match="image_aspect_ratio is 'anyres', and only 'pad'"):
        build(config | {"image_aspect_ratio": "anyres"}, weights)


@pytest.mark.parametrize("ratio", [None, "square"])
def test_the_centre_is_cropped_unless_the_config_says_pad(published, mqt, build, ratio):
    config, weights = published
    model = build(config | {"image_aspect_ratio": ratio}, weights)
    image = new_image(1).resize((90, 60))
    middle = image.crop((15, 0, 75, 60))
    assert torch.equal(mqt.prepare(middle), model.prepare(middle))
    torch.testing.assert_close(model.prepare(image), cropped_pixels(image), atol=1e-5, rtol=0)
    assert model.visual == {"queries": "the first", "image_aspect_ratio": "square"}


def test_the_tower_may_come_from_the_named_folder(published, mqt, build):
    (expected,) = mqt.encode([new_image(0)])
    (named,) = build(*published, tower="beside").encode([new_image(0)])
    assert torch.equal(named.features, expected.features)
    bare = {key: one for key, one in published[1].items() if not key.startswith(TOWER)}
    with pytest.raises(ModelError, match="no weights"):
        build(published[0], bare)  # the folder beside it holds a configuration alone


def test_buffers_that_follow_from_the_configuration_are_not_asked_for(published, mqt, build):
    config, weights = published
    old = weights | {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(6),
        TOWER + "embeddings.position_ids": torch.zeros(1, 577),
    }
    (encoding,) = build(config, old).encode([new_image(0)])
    assert torch.equal(encoding.features, mqt.encode([new_image(0)])[0].features)


def test_poolings_and_crops_are_not_for_queries(published, tmp_path):
    folder = str(layouts.write(tmp_path / "mqt", *published))
    with pytest.raises(MismatchError, match="first queries and no poolings; leave pooling out"):
        load_model(folder, pooling="spatial")
    with pytest.raises(MismatchError, match="sees an image whole; leave grids out"):
        load_model(folder, grids=["2x2"])


def test_parameters_of_the_real_configuration():
    shapes = published_shapes(LlamaConfig(), known_tower("clip-vit-large-patch14-336"))
    count = {"model.query_abstractor.": 0, INSIDE: 0, "": 0}
    for name, shape in shapes.items():
        part = next(prefix for prefix in count if name.startswith(prefix))
        count[part] += math.prod(shape)
    assert count[""] == 6_738_415_616  # Vicuna-7B
    assert count[INSIDE] == 303_507_456  # CLIP ViT-L/14 at 336 pixels
    assert count["model.query_abstractor."] == sum(map(math.prod, ABSTRACTOR_SHAPES.values()))
    assert shapes["model.query_abstractor.proj"] == (1024, 4096)
    assert shapes[INSIDE + "embeddings.position_embedding.weight"] == (577, 1024)


# --- cost and seeing -----------------------------------------------------------------------------


def test_vision_flops_against_torchs_counter(mqt):
    mqt.encode([new_image(0)])  # the constant weights are counted once for all images: not here
    pixels = torch.zeros(1, 3, 48, 48)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        mqt.abstractor(mqt.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:])
    assert mqt.shape.vision_flops() == pytest.approx(counter.get_total_flops(), rel=0.02)
    with FlopCounterMode(display=False) as alone, torch.no_grad():
        mqt.abstractor(torch.zeros(1, 576, 32))
    assert mqt.abstractor.cost().flops == alone.get_total_flops()


def test_visual_tokens_are_what_a_prompt_costs(mqt):
    added = mqt.prompt_length("What?", 256) - mqt.prompt_length("What?", 2)
    assert added == 254
    assert mqt.shape.answer_flops(300, 1) > mqt.shape.answer_flops(46, 1)


def test_grad_cam_against_finite_differences():
    """A channel's weight is the slope of the token's length as the whole channel is raised."""
    layer = shaken(QueryAbstractor(side=5, width=16, output=6), seed=6).double()
    patches = torch.randn(25, 16, generator=torch.Generator().manual_seed(3)).double()
    with torch.inference_mode():
        layer(patches[None])
    chosen, step = [0, 41, 255], 1e-5
    weights = layer.state_dict()
    maps = grad_cam(layer, patches, chosen)
    assert maps.shape == (3, 5, 5)
    for token, heat in zip(chosen, maps, strict=True):
        slopes = []
        for channel in range(16):
            up, down = patches.clone(), patches.clone()
            up[:, channel] += step
            down[:, channel] -= step
            lengths = [
                float(reference_layer(weights, one[None], 256)[0, token].norm().detach())
                for one in (up, down)
            ]
            slopes.append((lengths[0] - lengths[1]) / (2 * step) / 25)
        expected = (patches.numpy() @ np.array(slopes)).clip(min=0).reshape(5, 5)
        assert expected.max() > 0 and (expected == 0).any()
        np.testing.assert_allclose(heat.numpy(), expected, atol=1e-8)
    with pytest.raises(MismatchError, match=r"from 0 to 255, got \[256\]"):
        grad_cam(layer, patches, [256])
    with pytest.raises(MismatchError, match=r"got \[\]"):
        grad_cam(layer, patches, [])


def test_heat_maps_of_a_image(mqt):
    mqt.encode([new_image(0)])  # its kept weights were made in inference mode
    maps = token_heat_maps(mqt, new_image(0), [3, 7])
    assert maps.shape == (2, 24, 24) and maps.dtype == torch.float32
    assert (maps >= 0).all() and (maps.amax((1, 2)) > 0).all()
    assert torch.equal(maps[1:], token_heat_maps(mqt, new_image(0), [7]))
    assert not torch.equal(maps, token_heat_maps(mqt, new_image(1), [3, 7]))


def test_its_peeks_go_on_to_its_answers(mqt):
    check_peeks(mqt, [new_image(0), new_image(1)], QUESTIONS)
