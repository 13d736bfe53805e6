"""Published file layouts against references written here, on small random weights."""

from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaProcessor,
)

from m3router.data.errors import MismatchError, ModelError
from m3router.m3core.checkpoints import convert, load_model
from m3router.m3core.checkpoints.checkpoint import Checkpoint
from m3router.m3core.checkpoints.families.table import get_family, recognise
from m3router.m3core.checkpoints.tensors import folded
from m3router.m3core.checkpoints.tower import known_tower
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.models.anyres import CropGrid
from m3router.m3core.matryoshka.scales import M3_SCALES
from tests.m3core import layouts
from tests.m3core.layouts import TOWER, VISION
from tests.m3core.slow import slow_merge, slow_pool

PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: <image>\n{} ASSISTANT:"
)
QUESTION = "What color is the dog?\nAnswer with 1 word."


def new_image(seed: int = 0, size: tuple[int, int] = (40, 64)) -> Image.Image:
    """Coarse coloured noise of (height, width)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize(size[::-1], Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def published():
    return layouts.published("llava")


@pytest.fixture(scope="module")
def original(published, tmp_path_factory):
    return layouts.write(tmp_path_factory.mktemp("original") / "llava-tiny-m3", *published)


@pytest.fixture(scope="module")
def model(original):
    model = load_model(str(original), device="cpu")
    model.max_new_tokens = 4
    return model


@pytest.fixture
def broken(original, tmp_path):
    """A copy to damage."""
    return shutil.copytree(original, tmp_path / "broken")


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    config = {key: one for key, one in (config | values).items() if one is not ...}
    (folder / "config.json").write_text(json.dumps(config))


def reference_tokens(tensors, pixels: torch.Tensor) -> torch.Tensor:
    """Tower, layer -2 without its class token, and projector: (N, 3, 48, 48) to (N, 576, 48)."""
    tower = CLIPVisionModel(VISION).eval()
    tower.load_state_dict({k.removeprefix(TOWER): v for k, v in tensors.items() if TOWER in k})
    weights = {k.removeprefix("model.mm_projector."): v for k, v in tensors.items()}
    with torch.no_grad():
        seen = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        hidden = F.gelu(F.linear(seen, weights["0.weight"], weights["0.bias"]))
        return F.linear(hidden, weights["2.weight"], weights["2.bias"])


def reference_language(tensors, visual: torch.Tensor, question: str) -> torch.Tensor:
    """The decoder over prompt and visual tokens (L, 48): logits at every position, (L', V)."""
    language = LlamaForCausalLM(LlamaConfig(**layouts.TEXT)).eval()
    others = ("vision_tower", "mm_projector", "image_newline")
    language.load_state_dict(
        {k: v for k, v in tensors.items() if not any(other in k for other in others)}
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=layouts.pieces())
    before, after = (pieces.encode(part) for part in PROMPT.format(question).split("<image>"))
    with torch.no_grad():
        embed = language.model.embed_tokens
        parts = [embed(torch.tensor([1, *before])), visual, embed(torch.tensor(after))]
        return language(inputs_embeds=torch.cat(parts)[None]).logits[0]


def reference_logits(tensors, image: Image.Image, question: str, scale: int) -> torch.Tensor:
    """What the published code of LLaVA-1.5-M3 computes, step by step: (L, V)."""
    square = Image.new("RGB", (max(image.size),) * 2, (122, 116, 104))  # int(255 * CLIP's mean)
    square.paste(image, tuple((max(image.size) - side) // 2 for side in image.size))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=48)
    pixels = processor(square, return_tensors="pt")["pixel_values"]
    tokens = slow_pool(reference_tokens(tensors, pixels)[0].numpy(), scale, "average")
    return reference_language(tensors, torch.from_numpy(tokens), question)


def reference_next_logits(
    tensors, image: Image.Image, question: str, scale: int, *, merge: str, grid: CropGrid
) -> torch.Tensor:
    """What that of LLaVA-NeXT-M3 computes for an image cut into a known grid: (L, V)."""
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 48},
        crop_size={"height": 48, "width": 48},
        image_grid_pinpoints=[[grid.rows * 48, grid.columns * 48]],
    )
    views = processor(image, return_tensors="pt")["pixel_values"][0]
    small = [slow_pool(view, scale, "average") for view in reference_tokens(tensors, views).numpy()]
    newline = tensors.get("model.image_newline", torch.zeros(48)).numpy()
    size = (image.height, image.width)
    row = slow_merge(np.stack(small), size=size, grid=grid, newline=newline, merge=merge)
    return reference_language(tensors, torch.from_numpy(np.stack(row)), question)


def logits_of(model, image: Image.Image, question: str, scale: int) -> torch.Tensor:
    (encoding,) = model.encode([image])
    request = Request(encoding=encoding, question=question, scale=scale)
    with torch.inference_mode():
        return model.model(inputs_embeds=model.embed_prompt(request)[None]).logits[0]


# --- the original layout -------------------------------------------------------------------------


@pytest.mark.parametrize("scale", M3_SCALES)
def test_logits_agree_with_the_published_computation(published, model, scale):
    expected = reference_logits(published[1], new_image(), QUESTION, scale)
    assert expected.std() > 0.1
    torch.testing.assert_close(
        logits_of(model, new_image(), QUESTION, scale), expected, atol=1e-4, rtol=0
    )
    (encoding,) = model.encode([new_image()])
    (answer,) = model.answer([Request(encoding=encoding, question=QUESTION, scale=scale)])
    first = expected[-1].log_softmax(-1)
    assert math.log(answer.confidence) == pytest.approx(float(first.max()), abs=1e-4)
    assert answer.visual_tokens + answer.text_tokens == len(expected)


def test_a_mixed_batch_answers_as_each_request_alone(model):
    encodings = model.encode([new_image(seed) for seed in range(3)])
    requests = [
        Request(encoding=encodings[i % 3], question=QUESTION * (1 + i % 2), scale=scale)
        for i, scale in enumerate(M3_SCALES)
    ]
    for request, batched in zip(requests, model.answer(requests), strict=True):
        (single,) = model.answer([request])
        assert (batched.text, batched.visual_tokens) == (single.text, single.visual_tokens)
        assert batched.logprob == pytest.approx(single.logprob, abs=1e-4)


def test_the_configuration_is_read(model):
    assert model.grid.scales == M3_SCALES and model.prompt == "vicuna-1"
    assert model.name == "llava-tiny-m3" and model.dtype == "float32"


@pytest.mark.parametrize(
    ("form", "shards", "tower"),
    [("safetensors", 1, "inside"), ("bin", 1, "inside"), ("bin", 3, "beside")],
)
def test_every_way_to_store_the_weights_gives_the_same_model(
    published, model, tmp_path, form, shards, tower
):
    folder = tmp_path / "stored"
    layouts.write(folder, *published, form=form, shards=shards, tower=tower)
    other = load_model(str(folder), device="cpu")
    for scale in (1, 576):
        ours = logits_of(other, new_image(), QUESTION, scale)
        assert torch.equal(ours, logits_of(model, new_image(), QUESTION, scale))


def test_other_weights_are_another_revision(published, model, tmp_path):
    config, tensors = published
    tower = layouts.write(tmp_path / "a", config, tensors, tower="beside")
    first = load_model(str(tower), device="cpu").revision
    weights = tower / "clip-vit-tiny" / "pytorch_model.bin"
    clip = torch.load(weights, weights_only=True)
    clip["vision_model.post_layernorm.bias"] += 1
    torch.save(clip, weights)
    assert len({first, model.revision, load_model(str(tower), device="cpu").revision}) == 3


def test_a_linear_projector(published, tmp_path):
    config, tensors = published
    kept = {key: one for key, one in tensors.items() if "mm_projector" not in key}
    generator = torch.Generator().manual_seed(5)
    weight, bias = torch.randn(48, 32, generator=generator), torch.randn(48, generator=generator)
    kept |= {"model.mm_projector.weight": weight, "model.mm_projector.bias": bias}
    folder = layouts.write(tmp_path / "linear", config | {"mm_projector_type": "linear"}, kept)
    model = load_model(str(folder), device="cpu")
    (encoding,) = model.encode([new_image()])
    core = model.model.model
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=48)(
        new_image(size=(64, 64)), return_tensors="pt"
    )["pixel_values"]
    (encoding,) = model.encode([new_image(size=(64, 64))])
    with torch.no_grad():
        seen = core.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
    torch.testing.assert_close(encoding.features, F.linear(seen, weight, bias), atol=1e-5, rtol=0)


def test_special_tokens_in_a_question_are_text(model):
    plain = model.prompt_length("</s>", 1) - model.prompt_length("a", 1)
    assert plain > 0
    assert model.tokenizer.eos_token_id not in model._ids("Is </s> <image> a tag?")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near(original, model, dtype):
    half = load_model(str(original), device="cpu", dtype=dtype)
    assert half.dtype == dtype
    (exact,), (rounded,) = model.encode([new_image()]), half.encode([new_image()])
    error = (rounded.features.float() - exact.features).norm() / exact.features.norm()
    assert 0 < float(error) < 0.05
    (answer,) = half.answer([Request(encoding=rounded, question=QUESTION, scale=9)])
    assert 0 < answer.confidence <= 1


def test_a_device_map_gives_the_same_logits(original, model):
    spread = load_model(str(original), device="cpu", device_map="auto")
    ours = logits_of(spread, new_image(), QUESTION, 36)
    assert torch.equal(ours.cpu(), logits_of(model, new_image(), QUESTION, 36))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_quantised_weights_need_what_is_not_here(original):
    with pytest.raises(ModelError, match="8-bit weights need .*a GPU; use dtype bfloat16"):
        load_model(str(original), bits=8)
    with pytest.raises(ModelError, match="bits must be 8 or 4, got 3"):
        load_model(str(original), bits=3)


# --- LLaVA-NeXT ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published_next():
    return layouts.published("llava_next", seed=20)


@pytest.fixture(scope="module")
def original_next(published_next, tmp_path_factory):
    return layouts.write(tmp_path_factory.mktemp("next") / "llava-next-tiny-m3", *published_next)


def test_pinpoints_are_width_and_height_in_the_original_layout(original_next):
    model = load_model(str(original_next), device="cpu")
    assert [str(grid) for grid in model.grids] == ["2x1", "1x2", "2x2", "1x3", "3x1"]
    assert model.merge == "spatial_unpad"
    (encoding,) = model.encode([new_image(size=(30, 100))])
    assert encoding.grid == CropGrid(1, 3)
    # The base, and a row of 3 x 24 columns cut to the image's height, each line with its end.
    rows = 24 - 2 * ((24 - int(30 * (72 / 100))) // 2)
    assert encoding.tokens(576) == 576 + rows * 73


@pytest.fixture(scope="module", params=["spatial_unpad", "flat"])
def merging(request, published_next, tmp_path_factory):
    """A way to merge crops, and a model that merges so."""
    config, tensors = published_next
    folder = tmp_path_factory.mktemp("merging") / "m3"
    layouts.write(folder, config | {"mm_patch_merge_type": request.param}, tensors)
    return request.param, load_model(str(folder), device="cpu", max_new_tokens=1)


@pytest.mark.parametrize(
    ("size", "grid"), [((30, 100), CropGrid(1, 3)), ((90, 40), CropGrid(2, 1))]
)
def test_crops_give_the_logits_of_the_published_computation(published_next, merging, size, grid):
    (merge, model), image = merging, new_image(size=size)
    (encoding,) = model.encode([image])
    requests = [Request(encoding=encoding, question=QUESTION, scale=one) for one in M3_SCALES]
    for scale, answer in zip(M3_SCALES, model.answer(requests), strict=True):
        expected = reference_next_logits(
            published_next[1], image, QUESTION, scale, merge=merge, grid=grid
        )
        assert expected.std() > 0.1
        torch.testing.assert_close(
            logits_of(model, image, QUESTION, scale), expected, atol=1e-4, rtol=0
        )
        first = expected[-1].log_softmax(-1)
        assert math.log(answer.confidence) == pytest.approx(float(first.max()), abs=1e-4)
        assert answer.visual_tokens + answer.text_tokens == len(expected)


def test_the_flat_merge_needs_no_newline(published_next, tmp_path):
    config, tensors = published_next
    bare = {key: one for key, one in tensors.items() if "newline" not in key}
    flat = layouts.write(tmp_path / "flat", config | {"mm_patch_merge_type": "flat"}, bare)
    model = load_model(str(flat), device="cpu")
    (encoding,) = model.encode([new_image(size=(48, 48))])
    assert model.merge == "flat" and encoding.tokens(9) == 9 * encoding.views
    unpad = layouts.write(tmp_path / "unpad", config, bare)
    with pytest.raises(ModelError, match=r"missing keys: model\.image_newline"):
        load_model(str(unpad), device="cpu")


def test_grids_can_be_chosen(original_next, original):
    with pytest.raises(MismatchError, match=r"does not list the grid 3x3.*unlisted-grids"):
        load_model(str(original_next), device="cpu", grids=["3x3"])
    model = load_model(str(original_next), device="cpu", grids=["3x3"], unlisted_grids=True)
    (encoding,) = model.encode([new_image()])
    assert encoding.views == 10
    assert model.revision != load_model(str(original_next), device="cpu").revision
    with pytest.raises(MismatchError, match="'3 by 3' is not a grid of crops: write rows"):
        load_model(str(original_next), grids=["3 by 3"])
    with pytest.raises(MismatchError, match="sees an image whole; leave grids out"):
        load_model(str(original), grids=["2x2"])


def test_poolings_can_be_chosen(original, model):
    spatial = load_model(str(original), device="cpu", pooling="spatial")
    (theirs,), (ours,) = model.encode([new_image()]), spatial.encode([new_image()])
    assert torch.equal(ours.at(1)[0], theirs.features[12 * 24 + 12])
    assert spatial.revision != model.revision
    with pytest.raises(MismatchError, match="unknown pooling 'spacial'.*mean 'spatial'"):
        load_model(str(original), pooling="spacial")


# --- images that are cropped ---------------------------------------------------------------------


def cropped_pixels(image: Image.Image) -> torch.Tensor:
    """CLIP's own way, which LLaVA takes without ``image_aspect_ratio pad``: (3, 48, 48)."""
    short, (width, height) = min(image.size), image.size
    resized = image.resize(
        (int(48 * width / short), int(48 * height / short)), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - 48) // 2, (resized.height - 48) // 2
    values = np.asarray(resized.crop((left, top, left + 48, top + 48)), dtype=np.float32) / 255
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return torch.from_numpy(((values - mean) / deviation).transpose(2, 0, 1)).float()


@pytest.mark.parametrize("ratio", [..., None, "square"])
def test_the_centre_is_cropped_unless_the_config_says_pad(published, broken, tmp_path, ratio):
    change(broken, image_aspect_ratio=ratio)
    model = load_model(str(broken), device="cpu")
    converted = load_model(str(convert(str(broken), tmp_path / "converted")), device="cpu")
    plain = AutoProcessor.from_pretrained(tmp_path / "converted")
    assert model.visual == converted.visual
    assert model.visual["image_aspect_ratio"] == "square"
    for size in ((40, 64), (90, 41), (48, 48)):
        image = new_image(size=size)
        pixels = cropped_pixels(image)
        torch.testing.assert_close(model.prepare(image), pixels, atol=1e-5, rtol=0)
        tokens = slow_pool(reference_tokens(published[1], pixels[None])[0].numpy(), 9, "average")
        expected = reference_language(published[1], torch.from_numpy(tokens), QUESTION)
        ours = logits_of(model, image, QUESTION, 9)
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
        assert torch.equal(logits_of(converted, image, QUESTION, 9), ours)
        shown = plain(images=image, text="<image>", return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(shown, pixels, atol=1e-5, rtol=0)


def test_what_pads_is_recorded_as_before(original, model, tmp_path):
    assert model.visual == {"pooling": "average"}
    folder = convert(str(original), tmp_path / "converted")
    assert (
        "image_aspect_ratio" not in json.loads((folder / "config.json").read_text())["matryoshka"]
    )
    assert load_model(str(folder), device="cpu").visual == model.visual
    assert load_model("embedded", device="cpu").aspect == "pad"


def test_an_aspect_that_is_none_is_refused(original, tmp_path):
    folder = convert(str(original), tmp_path / "converted")
    config = json.loads((folder / "config.json").read_text())
    change(folder, matryoshka=config["matryoshka"] | {"image_aspect_ratio": "wide"})
    with pytest.raises(ModelError, match="must be one of pad, square, got 'wide'"):
        load_model(str(folder), device="cpu")


# --- Hugging Face's layout and conversion --------------------------------------------------------


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_converted_checkpoints_give_the_same_logits(
    family, original, original_next, tmp_path, request
):
    source = original if family == "llava" else original_next
    folder = convert(str(source), tmp_path / "converted")
    assert recognise(folder).layout == "hugging_face" and recognise(folder).family == family
    before, after = (load_model(str(one), device="cpu") for one in (source, folder))
    assert after.grid == before.grid and after.prompt == before.prompt
    for scale in (1, 36, 576):
        ours = logits_of(after, new_image(), QUESTION, scale)
        assert torch.equal(ours, logits_of(before, new_image(), QUESTION, scale))


def test_stock_code_reads_a_converted_checkpoint(original, model, tmp_path):
    """Hugging Face's own processor, packing and forward pass at the finest scale."""
    folder = convert(str(original), tmp_path / "converted")
    stock, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, LlavaProcessor)
    inputs = processor(images=new_image(), text=PROMPT.format(QUESTION), return_tensors="pt")
    with torch.inference_mode():
        logits = stock.eval()(**inputs).logits[0]
    ours = logits_of(model, new_image(), QUESTION, 576)
    torch.testing.assert_close(logits[:, :400], ours, atol=1e-4, rtol=0)
    padded = logits[:, 400:]
    assert (padded <= logits[:, :400].max(-1, keepdim=True).values).all()


def test_a_converted_checkpoint_keeps_number_format_and_tokens(published, tmp_path):
    config, tensors = published
    half = {key: one.half() for key, one in tensors.items()}
    source = layouts.write(tmp_path / "half", config, half)
    folder = convert(str(source), tmp_path / "converted")
    written = load_file(folder / "model.safetensors")
    assert {one.dtype for one in written.values()} == {torch.float16}
    (rows,) = (one for key, one in written.items() if key.endswith("lm_head.weight"))
    assert rows.shape == (448, 48)
    assert torch.equal(rows[:400], half["lm_head.weight"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<image>") == 400
    whole = convert(str(source), tmp_path / "whole", dtype="float32")
    assert {one.dtype for one in load_file(whole / "model.safetensors").values()} == {torch.float32}


def old_name(key: str) -> str:
    """The names that transformers used up to 4.51."""
    if key.startswith("model.language_model."):
        return "language_model.model." + key.removeprefix("model.language_model.")
    if key.startswith("model.vision_tower."):
        inner = key.removeprefix("model.vision_tower.").removeprefix("vision_model.")
        return "vision_tower.vision_model." + inner
    return "language_model." + key if key.startswith("lm_head") else key.removeprefix("model.")


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_old_key_names_give_the_same_model(family, original, original_next, tmp_path):
    source = original if family == "llava" else original_next
    folder = convert(str(source), tmp_path / "converted")
    model = load_model(str(folder), device="cpu")
    file = folder / "model.safetensors"
    tensors = {old_name(key): one for key, one in load_file(file).items()}
    assert "language_model.lm_head.weight" in tensors
    save_file(tensors, file, metadata={"format": "pt"})
    old = load_model(str(folder), device="cpu")
    ours = logits_of(old, new_image(), QUESTION, 9)
    assert torch.equal(ours, logits_of(model, new_image(), QUESTION, 9))


def test_conversion_writes_whole_or_not_at_all(original, broken, tmp_path):
    destination = tmp_path / "there"
    destination.mkdir()
    (destination / "precious.txt").write_text("mine")
    with pytest.raises(ModelError, match="not empty; name a new folder"):
        convert(str(original), destination)
    assert (destination / "precious.txt").read_text() == "mine"
    (broken / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match="lacks a tokenizer"):
        convert(str(broken), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ModelError, match="unknown dtype 'int8'"):
        convert(str(original), tmp_path / "new", dtype="int8")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["broken", "there"]


def test_queries_have_no_hugging_face_layout(tmp_path):
    folder = layouts.write(tmp_path / "mqt", *layouts.published("mqt"))
    with pytest.raises(ModelError, match="for which Hugging Face has no layout"):
        convert(str(folder), tmp_path / "new")


# --- real sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_parameters_of_the_real_configurations(family, tmp_path):
    config, _ = layouts.published(family)
    config |= {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "mm_hidden_size": 1024,
    }
    checkpoint = Checkpoint(folder=tmp_path, config=config, layout="original", family=family)
    stock = {
        "llava": LlavaForConditionalGeneration,
        "llava_next": LlavaNextForConditionalGeneration,
    }[family]
    with torch.device("meta"):
        tower = known_tower("clip-vit-large-patch14-336")
        model = stock(get_family(family).translate(checkpoint, tower))
    projector = 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    newline = 4096 if family == "llava_next" else 0
    count = sum(one.numel() for one in model.parameters())
    assert count == 6_738_415_616 + 303_507_456 + projector + newline


# --- what is wrong is said -----------------------------------------------------------------------


def test_every_wrong_key_is_in_one_error(published, tmp_path):
    config, tensors = published
    wrong = dict(tensors)
    del wrong["model.layers.0.mlp.up_proj.weight"], wrong["model.layers.1.mlp.up_proj.weight"]
    wrong["model.image_newline"] = torch.zeros(48)
    wrong["model.mm_projector.0.weight"] = torch.zeros(48, 31)
    folder = layouts.write(tmp_path / "wrong", config, wrong)
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), device="cpu")
    message = str(caught.value)
    assert "missing keys: model.language_model.layers.{0-1}.mlp.up_proj.weight;" in message
    assert "unexpected keys: model.image_newline;" in message
    assert "linear_1.weight is (48, 31), config.json says (48, 32)" in message


def test_each_missing_tensor_is_noticed(published, tmp_path):
    config, tensors = published
    folder = layouts.write(tmp_path / "m3", config, tensors, shards=1)
    for key in tensors:
        kept = {name: one.contiguous() for name, one in tensors.items() if name != key}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="missing keys"):
            load_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "llava_mistral"}, "model_type 'llava_mistral'"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type is 'mlp3x_gelu'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is true"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature is 'cls_patch'"),
        ({"image_aspect_ratio": "highres"}, "image_aspect_ratio 'highres'"),
        ({"image_aspect_ratio": "anyres"}, "image_grid_pinpoints must be a list of pairs"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"mm_vision_tower": ...}, "names no vision tower"),
        ({"mm_vision_tower": "somewhere/else"}, "'somewhere/else', which is neither a folder"),
        ({"rms_norm_eps": "many"}, "not valid"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(broken, values, message):
    change(broken, **values)
    with pytest.raises(ModelError, match=message):
        load_model(str(broken), device="cpu")


def first_shard(folder):
    return sorted(folder.glob("model-*"))[0]


def test_missing_and_damaged_files_are_named(broken):
    shard = first_shard(broken)
    whole = shard.read_bytes()
    os.truncate(shard, len(whole) // 2)
    with pytest.raises(ModelError, match=rf"{shard.name} cannot be loaded.*truncated or damaged"):
        load_model(str(broken), device="cpu")
    shard.unlink()
    with pytest.raises(ModelError, match=rf"lacks 1 of 2 shards.*{shard.name}"):
        load_model(str(broken), device="cpu")
    shard.write_bytes(whole)
    index = broken / "model.safetensors.index.json"
    listing = json.loads(index.read_text())
    del listing["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(listing))
    with pytest.raises(ModelError, match="lm_head.weight is in .* but not in the index"):
        load_model(str(broken), device="cpu")
    index.unlink()
    with pytest.raises(ModelError, match="2 shards .* but no model.safetensors.index.json"):
        load_model(str(broken), device="cpu")


def test_pickles_that_run_code_are_not_loaded(published, tmp_path):
    folder = layouts.write(tmp_path / "bin", *published, form="bin", shards=1)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    torch.save({"lm_head.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors and is not loaded"):
        load_model(str(folder), device="cpu")
    assert not marker.exists()


def test_tokenizers_that_do_not_belong_are_refused(broken):
    pieces = (broken / "tokenizer.model").read_bytes()
    (broken / "tokenizer.model").write_bytes(pieces[:200])
    with pytest.raises(ModelError, match="not a sentencepiece tokenizer or is damaged"):
        load_model(str(broken), device="cpu")
    (broken / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match="lacks a tokenizer: neither tokenizer.model"):
        load_model(str(broken), device="cpu")


def test_keys_are_listed_by_ranges_of_layers():
    keys = ["a.layers.0.w", "a.layers.1.w", "a.layers.3.w", "b", "a.layers.7.x"]
    assert folded(keys) == "a.layers.{0-1,3}.w, a.layers.7.x, b"


def test_a_checkpoint_that_names_no_scales_is_taken_with_a_warning(broken, caplog):
    change(broken, matryoshka_vis_token_scale=...)
    model = load_model(str(broken), device="cpu")
    assert model.grid.scales == M3_SCALES
    assert "does not say that it was trained at several scales" in caplog.text


@pytest.mark.parametrize("written", [[576, 144, 9], "9,144,576", "9 144 576"])
def test_trained_scales_are_read_as_they_may_be_written(broken, written):
    change(broken, matryoshka_vis_token_scale=written)
    assert recognise(broken).scales == (9, 144, 576)


@pytest.mark.parametrize("written", ["all", [None], {"a": 1}])
def test_trained_scales_that_are_no_numbers_are_refused(broken, written):
    change(broken, matryoshka_vis_token_scale=written)
    with pytest.raises(ModelError, match="must be a list of token counts"):
        load_model(str(broken), device="cpu")
