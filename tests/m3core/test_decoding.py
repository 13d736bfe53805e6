"""Decoding behind shared prefixes against Hugging Face's ``generate`` and plain forward passes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from m3router.m3core.matryoshka.decoding import LONG_TEXT, Decoder

END = 3
WIDTH, VOCABULARY = 32, 12


@pytest.fixture(scope="module")
def llama():
    """Few words, so that some answers end early; weights large enough that they differ."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        eos_token_id=END,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def rows(seed: int, *lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, WIDTH, generator=generator) for length in lengths]


def alone(llama, *parts: torch.Tensor, steps: int) -> tuple[list[int], list[float]]:
    """Hugging Face's own greedy generation of one prompt."""
    output = llama.generate(
        inputs_embeds=torch.cat(parts)[None],
        attention_mask=torch.ones(1, sum(map(len, parts)), dtype=torch.long),
        max_new_tokens=steps,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    logprobs = torch.stack(output.logits)[:, 0].log_softmax(-1)
    tokens = output.sequences[0]
    return tokens.tolist(), logprobs.gather(1, tokens[:, None])[:, 0].tolist()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    before=st.sampled_from([1, LONG_TEXT - 1, LONG_TEXT, 20]),
    visual=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    questions=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    steps=st.integers(1, 6),
    data=st.data(),
)
def test_every_row_is_generated_as_if_it_were_alone(
    llama, seed, before, visual, questions, steps, data
):
    owners = data.draw(
        st.lists(st.integers(0, len(visual) - 1), min_size=len(questions), max_size=len(questions))
    )
    (start,) = rows(seed, before)
    prefixes, texts = rows(seed + 1, *visual), rows(seed + 2, *questions)
    with torch.inference_mode():
        decoder = Decoder(llama, start, ends=[END])
        found = decoder.generate(prefixes, owners, texts, max_new_tokens=steps)
        given_answers = [one.tokens for one in found]
        forced = decoder.logprobs(prefixes, owners, texts, given_answers)
        for one, again, owner, text in zip(found, forced, owners, texts, strict=True):
            tokens, logprobs = alone(llama, start, prefixes[owner], text, steps=steps)
            assert one.tokens == tokens
            assert one.logprobs == pytest.approx(logprobs, abs=1e-4)
            assert again.tokens == tokens
            assert again.logprobs == pytest.approx(logprobs, abs=1e-4)


def test_answers_of_different_lengths_do_occur(llama):
    """Or the test above would never see a row leave its batch."""
    (start,), prefixes, texts = rows(0, 1), rows(1, *[3] * 40), rows(2, *[2] * 40)
    with torch.inference_mode():
        found = Decoder(llama, start, ends=[END]).generate(
            prefixes, range(40), texts, max_new_tokens=6
        )
    lengths = {len(one.tokens) for one in found}
    assert len(lengths) > 2 and max(lengths) == 6


def test_what_is_computed_is_what_is_needed(llama):
    """Positions read by the model: prefixes once each, and no step for rows that ended."""
    (start,), prefixes = rows(0, 20), rows(1, 10, 10)
    texts = rows(2, *[4] * 6)
    read = []
    hook = llama.model.layers[0].register_forward_pre_hook(
        lambda module, inputs: read.append(inputs[0].shape[0] * inputs[0].shape[1])
    )
    with torch.inference_mode():
        Decoder(llama, start, ends=range(VOCABULARY)).generate(
            prefixes, [0, 0, 0, 1, 1, 1], texts, max_new_tokens=6
        )
    hook.remove()
    assert read == [20, 2 * 10, 6 * 4]  # every id ends an answer: no further step
