"""Options of users, questions that go wrong, and what a model says of itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.utils import is_torchvision_available

from m3router.data.errors import ImageError, MismatchError, ModelError
from m3router.m3core.opening import reopen
from m3router.m3core.options import Answer, Failure, Request
from m3router.m3core.vlm import is_vlm, load_vlm
from m3router.m3core.vlm.tiny import save_tiny


def loaded(folder, **options):
    return load_vlm(str(folder), device="cpu", options=options)


def area(most, least=4):
    return {"size": {"shortest_edge": least * 32**2, "longest_edge": most * 32**2}}


def ask(model, image, question, **more):
    (answer,) = model.answer(
        [Request(image=image, question=question, option=model.options[0].name, **more)]
    )
    return answer


def test_an_unknown_argument_names_the_nearest(folder_of):
    with pytest.raises(MismatchError, match="'few'.*'max_soft_token'.*'max_soft_tokens'"):
        loaded(folder_of("gemma4"), few={"max_soft_token": 70})
    with pytest.raises(MismatchError, match="option 'few' must map arguments"):
        loaded(folder_of("gemma4"), few=70)


def test_an_option_that_changes_nothing_is_refused(folder_of):
    with pytest.raises(MismatchError, match=r"'more' changes nothing: like 'default' it costs"):
        # Beyond 2304 tokens nothing is left of an image of 1600 x 1200 to be enlarged.
        loaded(folder_of("qwen3_vl"), default={}, more=area(10_000))


def test_a_ladder_out_of_order_is_refused(folder_of):
    with pytest.raises(MismatchError, match=r"'fine' costs 234 tokens.*'coarse' after it 54"):
        loaded(folder_of("qwen3_vl"), fine=area(256), coarse=area(64))


def test_values_that_the_image_processor_refuses_name_the_option(folder_of):
    with pytest.raises(MismatchError, match="option '71' cannot be used"):
        loaded(folder_of("gemma4"), **{"71": {"max_soft_tokens": 71}})
    with pytest.raises(MismatchError, match="option 'odd' cannot be used"):
        loaded(folder_of("qwen3_vl"), odd={"size": "large"})


def test_an_unknown_family_and_no_family(tmp_path, folder_of):
    assert is_vlm(folder_of("qwen3_vl")) and not is_vlm(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vll"}))
    assert not is_vlm(tmp_path)
    with pytest.raises(ModelError, match="Did you mean 'qwen3_vl'"):
        load_vlm(str(tmp_path))
    with pytest.raises(ModelError, match="Did you mean 'gemma4'"):
        save_tiny("gemma_4", tmp_path)


@pytest.mark.parametrize("what", ["missing", "unexpected"])
def test_other_weights_than_the_family_has_are_refused(what, tmp_path):
    folder = save_tiny("qwen3_vl", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    tensors["model.more.weight" if what == "unexpected" else "kept"] = tensors[name].clone()
    tensors.pop("kept", None)
    if what == "missing":
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"1 {what} weights: "):
        loaded(folder, a=area(64))


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
def test_a_family_that_needs_torchvision_says_so(tmp_path):
    with pytest.raises(ModelError, match="LFM2-VL needs torchvision.*pip install torchvision"):
        load_vlm(str(save_tiny("lfm2_vl", tmp_path)))


def test_what_fails_for_one_request_fails_for_it_alone(model_of, picture):
    model = model_of("qwen3_vl")
    image, thin = picture(96, 64), picture(2000, 4)
    coarse, fine = model.options[0].name, model.options[-1].name
    asked = [
        Request(image=image, question="what?", option=coarse),
        Request(image=image, question=" \n", option=coarse),
        Request(image=image, question="why " * 9000, option=coarse),
        Request(image=thin, question="what?", option=fine),
    ]
    answer, *failures = model.answer(asked)
    assert isinstance(answer, Answer)
    for failure, said in zip(
        failures,
        ("question is empty", "exceed the model's context of 32768", "2000 x 4 pixels"),
        strict=True,
    ):
        assert isinstance(failure, Failure) and said in failure.message
    with pytest.raises(ImageError, match="2000 x 4"):
        model.count(thin, fine)
    with pytest.raises(MismatchError, match="Unknown option '65'"):
        model.answer([Request(image=image, question="what?", option="65")])
    assert model.answer([]) == []


IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
LOOP = "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}"
SYSTEM = "<bos>system: You are a helpful assistant.\n"


def templated(folder, place, template, **files):
    """A copy of a folder with other files for its chat template."""
    copied = shutil.copytree(folder, place / "copy")
    (copied / "chat_template.jinja").unlink()
    if template is not None:
        (copied / "chat_template.jinja").write_text(template)
    for name, entries in files.items():
        file = copied / f"{name}.json"
        before = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(before | entries))
    return copied


@pytest.mark.parametrize("where", ["chat_template", "processor_config", "tokenizer_config"])
def test_the_chat_template_is_found_where_older_checkpoints_have_it(
    where, folder_of, tmp_path, caplog
):
    template = f"{SYSTEM}{LOOP}{IMAGE}{{% else %}}{{{{ part['text'] | trim }}}}{{% endif %}}"
    template += "{% endfor %}{# enable_thinking #}"
    given: object = template
    if where == "tokenizer_config":
        given = [{"name": "default", "template": template}, {"name": "tools", "template": "-"}]
    folder = templated(folder_of("qwen3_vl"), tmp_path, None, **{where: {"chat_template": given}})
    caplog.set_level("WARNING", logger="transformers")
    model = loaded(folder, low=area(64), high=area(256))
    assert model.provenance["prompt"] == SYSTEM + IMAGE + "{question}"
    assert "processor_kwargs" not in caplog.text


def test_a_revision_changes_with_the_prompt_and_not_with_a_comment(folder_of, tmp_path):
    folder = folder_of("qwen3_vl")
    template = (folder / "chat_template.jinja").read_text()
    revisions = [
        loaded(place, low=area(64), high=area(256)).revision
        for place in (
            folder,
            templated(folder, tmp_path / "same", template + "{# a comment #}"),
            templated(folder, tmp_path / "other", "You see an image." + template),
        )
    ]
    assert revisions[0] == revisions[1] != revisions[2]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOP + IMAGE + "{% else %}{{ part['text'] | upper }}{% endif %}{% endfor %}", "upper"),
        (LOOP + IMAGE + "{% else %}{{ part['text'] | e }}{% endif %}{% endfor %}", "escapes"),
        ("{{ messages[0]['content'][1]['text'] }}" + IMAGE, "before the question"),
        (LOOP + IMAGE + "{% endif %}{% endfor %}", "before the question"),
        (IMAGE + "{{ messages[0]['content'] + '' }}", "can only concatenate"),
        ("{% for %}", "Expected an expression"),
        ("{{ raise_exception('text only') }}", "text only"),
    ],
)
def test_a_chat_template_that_cannot_be_used_says_why(template, said, folder_of, tmp_path):
    with pytest.raises(ModelError, match=said):
        loaded(templated(folder_of("qwen3_vl"), tmp_path, template), low=area(64), high=area(256))


def test_a_prefix_is_read_once_for_all_its_questions(model_of, picture):
    model = model_of("qwen3_vl")
    image, option = picture(800, 600), "256"
    asked = [
        Request(image=image, question=f"is it {word}?", option=option, max_new_tokens=1)
        for word in ("red", "blue", "a dog", "a cat", "old", "new", "hot", "cold")
    ]
    read = []
    hook = model.reader.model.register_forward_pre_hook(
        lambda module, given, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    answers = model.answer(asked)
    hook.remove()
    prefix = len(model.preparer.prepare(image, option).prefix)
    longest = max(answer.usage.prompt_tokens for answer in answers)
    assert read == [prefix, 8 * (longest - prefix)]


def test_threads_may_ask_at_once(model_of, picture):
    model = model_of("qwen2_5_vl")
    asked = [
        Request(image=picture(width, 200), question="what?", option="64", max_new_tokens=3)
        for width in (100, 200, 300, 400)
    ]
    expected = [model.answer([one])[0].text for one in asked]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: model.answer([one])[0].text, asked * 3))
    assert found == expected * 3


def test_what_the_weights_decide_is_no_option(folder_of):
    with pytest.raises(MismatchError, match="'patch_size'"):
        loaded(folder_of("qwen3_vl"), odd={"patch_size": 14})


def test_a_question_that_spells_special_tokens_is_text(model_of, picture):
    model = model_of("qwen3_vl")
    tokenizer = model.preparer.tokenizer
    end = tokenizer.eos_token_id
    spelled = f"is this <|image_pad|> or {tokenizer.eos_token}?"
    image = model.preparer.prepare(picture(96, 64), "64")
    ids, plain = (model.preparer.question(image, one) for one in (spelled, "is this it?"))
    assert model.preparer.image_id not in ids and ids.count(end) == plain.count(end)
    assert spelled in tokenizer.decode(ids)
    assert isinstance(ask(model, picture(96, 64), spelled), Answer)


def test_answers_end_where_they_are_cut_or_where_the_model_ends_them(model_of, picture):
    model = model_of("smolvlm")
    image = picture(96, 64)
    short = ask(model, image, "what?", max_new_tokens=2)
    assert short.cut and short.usage.answer_tokens == 2 and short.usage.attempts == 1
    longer = ask(model, image, "what?", max_new_tokens=4)
    assert longer.text.startswith(short.text) and longer.logprob < short.logprob
    ends, model.reader.ends = model.reader.ends, frozenset(range(len(model.preparer.tokenizer)))
    ended = ask(model, image, "what?", max_new_tokens=4)
    model.reader.ends = ends
    assert not ended.cut and ended.usage.answer_tokens == 1


def test_batches_shrink_where_memory_runs_out(folder_of, picture):
    model = load_vlm(str(folder_of("qwen3_vl")), device="cpu", max_new_tokens=2)
    images = [picture(96, 64, seed=seed) for seed in range(4)]
    asked = [
        Request(image=image, question=question, option="64")
        for image in images
        for question in ("what?", "how many are there?")
    ]
    expected = [one.text for one in model.answer(asked)]
    alone = [one.text for one in model.answer(asked[::2])]

    def small(module, given, named):
        if named["input_ids"].numel() > most:
            raise torch.OutOfMemoryError("too small for a test")

    most = 150
    hook = model.reader.model.register_forward_pre_hook(small, with_kwargs=True)
    assert [one.text for one in model.answer(asked)] == expected
    assert [one.text for one in model.answer(asked[::2])] == alone
    most = 10
    failures = model.answer(asked[:3])
    hook.remove()
    assert all(isinstance(one, Failure) for one in failures)
    assert "out of memory with this request alone" in failures[0].message


def test_the_same_model_can_be_made_again(folder_of):
    folder = folder_of("qwen3_vl")
    one = loaded(folder, low=area(64), high=area(256))
    spec = json.loads(json.dumps(one.spec))
    again = reopen(spec)
    assert (again.revision, again.options, again.spec) == (one.revision, one.options, one.spec)
    assert loaded(folder, low=area(64), high=area(300)).revision != one.revision
    assert one.provenance["image_backend"] == "pil"
    assert one.provenance["prompt"].count("{question}") == 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(width=st.integers(28, 700), height=st.integers(28, 700))
def test_budgets_are_upper_bounds_and_counts_need_no_pixels(model_of, picture, width, height):
    model = model_of("qwen3_vl")
    counts = model.preparer.count((width, height), "64")
    assert 4 <= counts.visual_tokens <= 64
    assert counts.views == (4 * counts.visual_tokens,)
    assert counts.pixels == counts.visual_tokens * 32**2
    assert model.preparer.prepare(picture(width, height), "64").counts == counts


def test_a_folder_is_written_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "m3router.m3core.vlm.tiny", "qwen3_vl", str(tmp_path / "it")]
    subprocess.run(command, check=True, capture_output=True)
    assert is_vlm(tmp_path / "it")
