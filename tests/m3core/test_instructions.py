"""Packing of conversations against slow references, and a fine-tuning run from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlamaTokenizer

from experiments.embedded_model.curriculum import FreshScenes, SceneText
from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.data.scenes.drawing import render
from m3router.data.scenes.questions import ask_about
from m3router.data.scenes.world import make_scene
from m3router.data.sources.instructions import Conversation, load_instructions
from m3router.m3core.checkpoints import load_model
from m3router.m3core.checkpoints.conversion import write_trained
from m3router.m3core.checkpoints.families.table import trainable_of
from m3router.m3core.checkpoints.tensors import read_tensors
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.training.finetuning import finetune
from m3router.m3core.training.instructions import ConversationText, InstructionBatches, shortened
from m3router.m3core.training.loop import train
from m3router.m3core.training.objective import IGNORED, MatryoshkaLoss, pack
from m3router.m3core.training.recipe import TrainingRecipe
from tests.m3core import layouts

VICUNA = get_template("vicuna-1")
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    layouts.write_tokenizer(folder)
    return LlamaTokenizer.from_pretrained(folder)


def talk(*turns: tuple[str, str], image: str | None = "a.png") -> Conversation:
    return Conversation(id="x", image=image, turns=turns)


def by_hand(tokenizer, conversation: Conversation) -> tuple[list[int], list[int], list[bool]]:
    """LLaVA's prompt as one text, split at the image; loss by the characters of the answers.

    Returns the ids before the image, those behind it, and which of the latter are to be learned.
    """
    text, spans = SYSTEM, []
    for place, (question, answer) in enumerate(conversation.turns):
        tag = "<image>\n" if place == 0 and conversation.image else ""
        text += f"USER: {tag}{question} ASSISTANT:"
        start = len(text)
        text += f" {answer}</s>"
        spans.append((start, len(text)))
    head, tag, rest = text.rpartition("<image>")
    skipped = len(head) + len(tag)
    coded = tokenizer(rest, add_special_tokens=False, return_offsets_mapping=True)
    learned = []
    for first, last in coded["offset_mapping"]:
        inside = [low <= skipped + first and skipped + last <= high for low, high in spans]
        learned.append(any(inside) and (first, last) != (0, 0))
    before = tokenizer(head)["input_ids"] if tag else []
    ids = coded["input_ids"] if tag else [tokenizer.bos_token_id, *coded["input_ids"]]
    return before, ids, learned if tag else [False, *learned]


def check_against_hand(tokenizer, conversation: Conversation) -> None:
    text = ConversationText(tokenizer, VICUNA)
    before, ids, learned = by_hand(tokenizer, conversation)
    packed = pack([text(conversation)], before=text.before, pad=0, conversations=True)
    assert packed.ids[0].tolist() == ids
    at = [place for place, wanted in enumerate(learned) if wanted]
    expected = [IGNORED] * len(ids)
    for place in at:
        expected[place - 1] = ids[place]  # each is predicted at the position before it
    assert packed.labels[0].tolist() == expected
    assert packed.positions[0].tolist() == list(range(len(ids)))
    assert set(packed.segments[0].tolist()) == {1}
    if conversation.image:
        assert text.before == before


def test_one_turn_against_the_hand_and_against_sentencepiece(tokenizer):
    one = talk(("What color is the dog?", "red"))
    check_against_hand(tokenizer, one)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=layouts.pieces())
    ((prompt, answer),) = ConversationText(tokenizer, VICUNA)(one)
    assert prompt == pieces.encode("\nWhat color is the dog? ASSISTANT:")
    assert answer == [*pieces.encode("red"), tokenizer.eos_token_id]


@pytest.mark.parametrize("image", ["a.png", None])
def test_several_turns_against_the_hand(tokenizer, image):
    turns = [("is there a cat", "the cat is on the table"), ("how many?", "3"), ("and", "a dog!")]
    check_against_hand(tokenizer, talk(*turns, image=image))


words = st.text("ab cdt3.,é猫\n", min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=80, deadline=None)
@given(
    turns=st.lists(st.tuples(words, words), min_size=1, max_size=3),
    image=st.sampled_from(["a.png", None]),
)
def test_any_conversation_against_the_hand(tokenizer, turns, image):
    check_against_hand(tokenizer, talk(*turns, image=image))


def test_special_tokens_spelled_out_stay_text(tokenizer):
    text = ConversationText(tokenizer, VICUNA)
    ((prompt, answer),) = text(talk(("is </s> a <s>?", "a </s> b")))
    assert tokenizer.eos_token_id not in prompt + answer[:-1]
    assert tokenizer.bos_token_id not in prompt + answer


def test_a_template_without_words_for_it_is_named(tokenizer):
    text = ConversationText(tokenizer, get_template("scenes-1"))
    with pytest.raises(MismatchError, match="'x' has several turns.*'scenes-1' has no words"):
        text(talk(("a", "b"), ("c", "d")))
    with pytest.raises(MismatchError, match="'x' has no image"):
        text(talk(("a", "b"), image=None))


def test_what_exceeds_the_context_is_cut_as_one_row_would_be():
    turns = [([1, 2], [3, 4]), ([5], [6, 7, 8])]
    flat = [1, 2, 3, 4, 5, 6, 7, 8]
    for room in range(1, 12):
        kept = shortened(turns, room)
        joined = [token for prompt, answer in kept for token in prompt + answer]
        assert joined == flat[: len(joined)] and len(joined) <= room
        answers = [token for token in flat[:room] if token in (3, 4, 6, 7, 8)]
        assert [token for _, answer in kept for token in answer] == answers


# --- batches -------------------------------------------------------------------------------------


def write_scenes(folder: Path, count: int) -> Path:
    """One conversation for each of the first scenes, and its image."""
    (folder / "images").mkdir()
    entries = []
    for seed in range(count):
        Image.fromarray(render(make_scene(seed))).save(folder / "images" / f"{seed}.png")
        (question,) = ask_about(make_scene(seed), 1)
        said = [("human", f"<image>\n{question.text}"), ("gpt", question.answer)]
        messages = [{"from": speaker, "value": text} for speaker, text in said]
        entries.append({"id": str(seed), "image": f"{seed}.png", "conversations": messages})
    (folder / "train.json").write_text(json.dumps(entries))
    return folder / "train.json"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 6)


def batches_of(model, scenes: Path, **changes) -> InstructionBatches:
    values = {"images": scenes.parent / "images", "batch": 2, "finest": 576}
    return InstructionBatches(model, load_instructions(scenes), **(values | changes))


def test_scenes_as_instructions_are_the_batches_the_embedded_model_learns_from(random_m3, scenes):
    batches = batches_of(random_m3, scenes, batch=6)
    batch, order = batches(0), batches.rows(0)
    text = SceneText(random_m3.tokenizer, random_m3.template, questions=1)
    expected = FreshScenes(0, text, batch=6)(0)
    torch.testing.assert_close(batch.images, expected.images[order], atol=1e-5, rtol=1e-5)
    for name in ("before", "ids", "labels", "positions", "segments", "blind"):
        found, wanted = getattr(batch.text, name), getattr(expected.text, name)[order]
        assert torch.equal(found, wanted), name


def test_every_epoch_takes_each_conversation_once_in_an_order_of_its_own(random_m3, scenes):
    batches = batches_of(random_m3, scenes)
    epochs = [[row for n in range(3 * e, 3 * e + 3) for row in batches.rows(n)] for e in range(4)]
    assert all(sorted(rows) == list(range(6)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) > 1
    again = batches_of(random_m3, scenes)
    assert [again.rows(n) for n in (7, 2)] == [batches.rows(n) for n in (7, 2)]
    assert [batches_of(random_m3, scenes, seed=1).rows(n) for n in range(3)] != [
        batches.rows(n) for n in range(3)
    ]
    with pytest.raises(DataError, match="a batch of 7 cannot be drawn from 6"):
        batches_of(random_m3, scenes, batch=7)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small checkpoint of a family in its original layout."""

    def write(family: str, **how) -> Path:
        folder = tmp_path_factory.mktemp(family) / "tiny"
        return layouts.write(folder, *layouts.published(family), **how)

    return write


def test_a_mixed_batch_has_the_loss_of_each_row_alone(published, scenes):
    model = load_model(str(published("llava")), device="cpu")
    entries = [
        talk(("what color", "red"), ("how many", "a dog and a cat"), image="0.png"),
        talk(("is there a table", "on"), image=None),
        talk(("is there", "the image"), image="1.png"),
    ]
    objective = MatryoshkaLoss(trainable_of(model)).eval()

    def batch(rows: list[Conversation]):
        made = InstructionBatches(
            model, rows, images=scenes.parent / "images", batch=len(rows), finest=576
        )
        return made(0)

    total, count = torch.zeros(2), 0
    with torch.no_grad():
        together = objective(batch(entries), (1, 576))
        for one in entries:
            alone = batch([one])
            answers = int((alone.text.labels != IGNORED).sum())
            total, count = total + answers * objective(alone, (1, 576)), count + answers
    torch.testing.assert_close(together, total / count, atol=1e-4, rtol=1e-4)


def test_a_question_beyond_the_context_is_named(published, scenes):
    model = load_model(str(published("llava")), device="cpu")
    model.context = 700
    long = talk(("cat " * 200, "red"), image="0.png")
    made = InstructionBatches(model, [long], images=scenes.parent / "images", batch=1, finest=576)
    with pytest.raises(DataError, match="'x': its first question leaves no room for an answer"):
        made(0)


# --- from end to end -----------------------------------------------------------------------------


def recipe(**changes) -> TrainingRecipe:
    values = {"scales": (1, 9, 36, 144, 576), "steps": 2, "learning_rate": 1e-3}
    return TrainingRecipe(**(values | {"warmup": 1, "save_every": 10} | changes))


def answers_of(model, scales: tuple[int, ...]) -> list[tuple[str, float]]:
    (encoding,) = model.encode([Image.fromarray(render(make_scene(9)))])
    requests = [Request(encoding=encoding, question="what color?", scale=m) for m in scales]
    return [(answer.text, answer.logprob) for answer in model.answer(requests)]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llava", {}),
        ("llava", {"lora_rank": 2, "tower_learning_rate": 1e-4}),
        ("mqt", {"scales": (2, 36, 256), "choice": "random", "lora_rank": 2}),
    ],
)
def test_a_fine_tuned_checkpoint_loads_and_is_what_was_trained(
    published, scenes, tmp_path, family, settings
):
    source = published(family, tower="beside")
    written = finetune(
        str(source),
        load_instructions(scenes),
        tmp_path / "out",
        images=scenes.parent / "images",
        recipe=recipe(**settings),
        batch=2,
        work=tmp_path / "work",
    )
    old, new = load_model(str(source), device="cpu"), load_model(str(written), device="cpu")
    assert type(old) is type(new) and new.template == old.template
    assert answers_of(new, (36,)) != answers_of(old, (36,))
    trainable = trainable_of(old)
    batches = batches_of(old, scenes, finest=new.grid.finest)
    trained = train(trainable, batches, recipe=recipe(**settings), folder=tmp_path / "work")
    state = trainable_of(new).module.state_dict()
    assert state.keys() == trained.keys()
    assert all(torch.equal(state[name], trained[name]) for name in state)
    with pytest.raises(ModelError, match="is there and not empty"):
        write_trained(str(source), {}, tmp_path / "out", scales=(1,))


def test_weights_are_written_in_the_number_format_asked_for(published, tmp_path):
    source = str(published("llava"))
    weights = trainable_of(load_model(source, device="cpu")).module.state_dict()
    folder = write_trained(source, weights, tmp_path / "a", scales=(1, 576), dtype="bfloat16")
    stored = read_tensors(folder)
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    for name, tensor in (
        trainable_of(load_model(str(folder), device="cpu")).module.state_dict().items()
    ):
        assert torch.equal(tensor, weights[name].bfloat16().float()), name


def test_weights_of_another_model_are_refused(published, tmp_path):
    with pytest.raises(MismatchError, match="do not fit .*name the checkpoint"):
        write_trained(str(published("llava")), {}, tmp_path / "out", scales=(1, 576))


def test_a_written_checkpoint_can_be_trained_on(random_checkpoint, scenes, tmp_path):
    """The Hugging Face layout as source, and again."""

    def tuned(source: str, name: str, scales: tuple[int, ...]) -> str:
        folder = finetune(
            source,
            load_instructions(scenes),
            tmp_path / name,
            images=scenes.parent / "images",
            recipe=recipe(scales=scales, steps=1),
            batch=2,
            work=tmp_path / f"{name}.work",
        )
        return str(folder)

    second = tuned(tuned(str(random_checkpoint), "first", (1, 576)), "second", (1, 576))
    assert load_model(second, device="cpu").grid.scales == (1, 576)
    with pytest.raises(MismatchError, match="finest scale must be the whole grid of 576"):
        tuned(second, "third", (1, 9))
    assert not (tmp_path / "third.work").exists()


def test_a_family_without_training_is_refused(published, scenes, tmp_path):
    with pytest.raises(MismatchError, match="a LlavaNextM3 cannot be trained"):
        finetune(
            str(published("llava_next")),
            load_instructions(scenes),
            tmp_path / "out",
            images=scenes.parent / "images",
            recipe=recipe(),
            batch=2,
            work=tmp_path / "work",
        )
