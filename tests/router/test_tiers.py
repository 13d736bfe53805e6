"""Feature groups: what they say, and when they are kept or computed again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.m3core.labelling import label
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router.features import groups as table_of_tiers
from m3router.router.features.cheap import BEGINNINGS, CUES, image_cues, question_cues
from m3router.router.features.earlier import measured_costs
from m3router.router.features.featurizer import Featurizer
from m3router.router.features.groups import FEATURE_GROUPS, check_feature_groups
from m3router.router.features.question import HashedQuestions
from m3router.router.features.store import Vector, VectorStore
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import featurize_stage, import_stage, label_stage
from m3router.router.stages.learning import train_stage

ALL = ["image", "question", "cheap", "peek"]


def cue(row: np.ndarray, name: str) -> float:
    return float(row[5 + len(BEGINNINGS) + 1 + list(CUES).index(name)])


def test_a_flat_image_has_no_edges_and_a_chequered_one_has_many():
    flat = image_cues(Image.new("RGB", (200, 100), (90, 90, 90)))
    squares = np.kron(np.indices((32, 64)).sum(0) % 2, np.ones((8, 8))) * 255
    chequered = image_cues(Image.fromarray(squares.astype(np.uint8)).convert("RGB"))
    assert flat[:4] == pytest.approx(np.log([200, 100, 2, 0.02]), abs=1e-6)
    assert flat[4:] == pytest.approx([90 / 255] + 11 * [0], abs=1e-6)
    assert chequered[6] == pytest.approx(1, abs=0.05)  # two kinds of brightness: one bit
    assert chequered[7] == pytest.approx(0, abs=1e-6)  # grey
    assert chequered[9] == 0 and chequered[13] > 0.5  # too fine to be seen small


def test_edges_in_one_corner_are_told_from_edges_everywhere():
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    everywhere = image_cues(Image.fromarray(pixels))
    pixels[64:] = 128
    pixels[:, 64:] = 128
    corner = image_cues(Image.fromarray(pixels))
    assert everywhere[-2] == pytest.approx(everywhere[-1], abs=0.2)
    assert corner[-2] > 0.5 and corner[-1] == 0


def test_edges_against_a_slow_sobel():
    """Each pixel by hand, from the same scaled image."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8)
    found = image_cues(Image.fromarray(pixels).convert("RGB"))[8:12]
    grey = pixels.astype(float) / 255
    strengths = np.zeros((62, 62))
    for y in range(62):
        for x in range(62):
            near = grey[y : y + 3, x : x + 3]
            down = near[2] @ [1, 2, 1] - near[0] @ [1, 2, 1]
            across = near[:, 2] @ [1, 2, 1] - near[:, 0] @ [1, 2, 1]
            strengths[y, x] = (down**2 + across**2) ** 0.5 / 8
    edges = strengths > 0.1
    shares = [
        edges[y : y + 15, x : x + 15].mean() for y in range(0, 60, 15) for x in range(0, 60, 15)
    ]
    assert found[0] == pytest.approx(strengths.mean(), rel=1e-4)
    assert found[1] == pytest.approx(edges.mean(), abs=1e-3)
    assert found[2:] == pytest.approx([max(shares), min(shares)], abs=1e-2)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_cues_of_any_image_are_finite(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    cues = image_cues(Image.fromarray(pixels))
    assert cues.shape == (16,) and np.isfinite(cues).all()


@pytest.mark.parametrize(
    ("question", "cues"),
    [
        ("How many red shapes are there?", {"count"}),
        ("What is written on the sign?", {"read"}),
        ("What number is on the purple tag?", {"read", "number"}),
        ("Which colour is left of the smallest one?", {"color", "place", "size"}),
        ("Is there no more than 3?", {"negation", "compare", "digits"}),
        ('Who says "hello"?', {"read", "quote"}),
        ("Wie viele Kreise gibt es?", set()),
    ],
)
def test_words_of_a_question_are_cues(question, cues):
    (row,) = question_cues([question])
    assert {name for name in CUES if cue(row, name)} == cues
    assert row[:2] == pytest.approx(np.log1p([len(question), len(question.split())]), abs=1e-5)


def test_beginnings_and_options_are_cues():
    rows = question_cues(["Where is it?", "Does it?", "Tell me.", "Which?\n(A) one\n(B) two\nC. x"])
    begins = rows[:, 5 : 5 + len(BEGINNINGS) + 1]
    assert begins.sum(1).tolist() == [1, 1, 0, 1]
    assert begins[0, BEGINNINGS.index("where")] == begins[1, -1] == 1
    assert rows[:, 4].tolist() == [0, 0, 0, 3]
    assert question_cues([]).shape == (0, rows.shape[1])


@settings(max_examples=25)
@given(st.text(max_size=300))
def test_cues_of_any_text_are_finite(text):
    assert np.isfinite(question_cues([text])).all()


def test_names_of_tiers_are_checked_and_ordered():
    assert check_feature_groups(["peek", "image", "peek"]) == ("image", "peek")
    with pytest.raises(DataError, match="Unknown feature group 'cheep'. Did you mean 'cheap'"):
        check_feature_groups(["cheep"])
    with pytest.raises(DataError, match="choose among image, question, size, cheap, peek"):
        check_feature_groups([])


def test_a_tier_without_what_it_needs_is_refused():
    with pytest.raises(DataError, match="'image' needs a model or image encoder"):
        Featurizer(feature_groups=("image",))
    with pytest.raises(DataError, match="'peek' is the prefill of the model"):
        Featurizer(feature_groups=("peek",))
    with pytest.raises(DataError, match="'question' needs a question encoder"):
        Featurizer(feature_groups=("question",))
    with pytest.raises(DataError, match="'size' needs images"):
        Featurizer(feature_groups=("size",), images=False)


def examples(images: int = 6) -> list[Example]:
    return [
        Example(
            id=f"{number}-{ask}",
            image=f"{number}.png",
            question="Is it so?" if ask else f"What in the world is {number}?",
            answers=("yes",),
            group=f"{number}.png",
        )
        for number in range(images)
        for ask in range(2)
    ]


def draw(folder, number, seed=0):
    pixels = np.random.default_rng([number, seed]).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Images and a run with a log of them; not to be changed."""
    root = tmp_path_factory.mktemp("labelled")
    folder = root / "pictures"
    folder.mkdir()
    for number in range(6):
        draw(folder, number)
    label(examples(), images=folder, model=FakeModel(), folder=Run(root / "run").log_folder)
    return root


@pytest.fixture
def images(labelled, tmp_path):
    return Path(shutil.copytree(labelled / "pictures", tmp_path / "pictures"))


@pytest.fixture
def run(labelled, tmp_path):
    return Run(Path(shutil.copytree(labelled / "run", tmp_path / "run")))


def featurize(run, images, *feature_groups, encoder="fake", refused=False, **options):
    """The table, and how many images had to be looked at, or why some were refused."""
    looked = []

    def told(done, total, what):
        if what == "images":
            looked.append((done, total))

    table, causes = featurize_stage(
        run,
        images=images,
        encoder=encoder,
        feature_groups=feature_groups or ALL,
        progress=told,
        **options,
    )
    if refused:
        return table, causes
    assert causes == {}
    return table, looked


def test_a_peek_is_only_made_when_asked_for(run, images):
    table, _ = featurize_stage(run, images=images, encoder="fake")
    assert list(table.blocks) == ["image", "question"]


def test_tiers_are_added_one_after_the_other(run, images):
    at_once, _ = featurize(run, images)
    shutil.rmtree(run.features_folder)
    first, looked = featurize(run, images, "image", "question")
    assert list(first.blocks) == ["image", "question"] and looked
    second, looked = featurize(run, images, "cheap")
    assert list(second.blocks) == ["image", "question", "cheap"] and looked
    third, _ = featurize(run, images, "peek", "cheap")
    assert list(third.blocks) == ALL
    assert third.metadata == at_once.metadata
    for name in ALL:
        np.testing.assert_array_equal(third.blocks[name], at_once.blocks[name])


def test_what_is_there_is_not_computed_again(run, images):
    first, looked = featurize(run, images)
    assert looked
    costs = measured_costs(run.features_folder)
    assert set(costs) == set(ALL)
    assert all(one["milliseconds_per_example"] > 0 for one in costs.values())
    assert costs["image"]["milliseconds_per_picture"] > costs["image"]["milliseconds_per_example"]
    assert costs["peek"]["flops_per_example"] > 0
    before = (run.features_folder / "features.parquet").read_bytes()
    again, looked = featurize(run, images)
    assert looked == [] and again.metadata == first.metadata
    assert measured_costs(run.features_folder) == costs  # as measured where it was computed
    assert (run.features_folder / "features.parquet").read_bytes() == before


def test_a_copied_table_is_enough_to_go_on(run, images, tmp_path):
    featurize(run, images, "image", "question")
    other = run.copy_data(tmp_path / "copy")
    assert not (other.features_folder / "vectors").exists()
    table, looked = featurize(other, images, "image", "question")
    assert looked == [] and list(table.blocks) == ["image", "question"]


@pytest.mark.parametrize("copied", [False, True])
def test_a_changed_image_is_looked_at_again(run, images, tmp_path, copied):
    first, _ = featurize(run, images)
    draw(images, 3, seed=1)
    place = run.copy_data(tmp_path / "copy") if copied else run
    second, looked = featurize(place, images)
    # beside the table lie the vectors of each image: then only the changed one is encoded
    assert looked == ([(6, 6)] if not copied else looked) and looked
    for name in ALL:
        same = (first.blocks[name] == second.blocks[name]).all(1)
        changed = [not same[row] for row in range(12)]
        assert changed == [name != "question" and one.startswith("3-") for one in first.ids]
    keys = [table.metadata["blocks"] for table in (first, second)]
    assert [keys[0][name]["key"] == keys[1][name]["key"] for name in ALL] == [0, 1, 0, 0]


def test_another_question_encoder_changes_its_own_block_only(run, images):
    first, _ = featurize(run, images)
    second, looked = featurize(run, images, questions="hashed")
    assert looked == []
    assert second.widths["question"] == 128 != first.widths["question"]
    assert second.metadata["question_encoder"] == "hashed"
    for name in ("image", "cheap", "peek"):
        np.testing.assert_array_equal(second.blocks[name], first.blocks[name])


def test_a_new_version_of_a_tier_is_computed_again(run, images, monkeypatch):
    featurize(run, images)
    newer = table_of_tiers.FeatureGroup(version="cheap-2", of_image=lambda image: np.ones(3))
    monkeypatch.setitem(FEATURE_GROUPS, "cheap", newer)
    table, looked = featurize(run, images)
    assert looked and table.widths["cheap"] == 3
    assert table.metadata["blocks"]["cheap"]["version"] == "cheap-2"


def test_blocks_of_another_model_or_other_images_do_not_stay_unasked(run, images):
    featurize(run, images, "image", "question")
    draw(images, 0, seed=2)
    with pytest.raises(MismatchError, match="block 'image', which was made of other images"):
        featurize(run, images, "cheap")
    table, _ = featurize(run, images, "image", "cheap")
    assert list(table.blocks) == ["image", "question", "cheap"]


def test_features_of_another_log_are_refused(run, images, tmp_path):
    featurize(run, images)
    asked = examples()
    asked[4] = Example(**(asked[4].to_dict() | {"question": "Is it another?"}))
    other = Run(tmp_path / "other")
    log = label(asked, images=images, model=FakeModel(), folder=other.log_folder)
    shutil.copytree(run.features_folder, other.features_folder)
    with pytest.raises(MismatchError, match="computed for other examples"):
        other.features(log)


def plain_log(run, tmp_path, questions):
    """A log of two models that no image belongs to."""
    rows = [
        {"id": f"q{number}", "question": question, "option": option, "cost": cost, "correct": right}
        for number, question in enumerate(questions)
        for option, cost, right in (
            ("small", 1.0, len(question) < 30),
            ("large", 9.0, number % 5 > 0),
        )
    ]
    path = tmp_path / f"{run.root.name}.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return import_stage(run, "table", path)


def test_a_log_of_texts_needs_no_images_and_no_model(tmp_path):
    run = Run(tmp_path / "texts")
    asked = [f"How many {'very ' * (number % 9)}long ones of {number}?" for number in range(200)]
    log = plain_log(run, tmp_path, asked)
    calls = []
    table, causes = featurize_stage(run, progress=lambda *told: calls.append(told))
    assert causes == {} and calls[-1] == (200, 200, "questions")
    assert list(table.blocks) == ["question"]
    table, _ = featurize_stage(run, feature_groups=["question", "cheap"])
    assert table.widths == {"question": 128, "cheap": 23}
    assert "source" not in table.metadata
    np.testing.assert_array_equal(table.blocks["question"], HashedQuestions().encode(asked))
    np.testing.assert_array_equal(table.blocks["cheap"], question_cues(asked))
    router = train_stage(run, estimator="knn")
    assert list(router.blocks) == ["question", "cheap"]
    assert set(run.arms()) == {"router", "question-only"}
    assert np.isfinite(router.predict(run.features(log))).all()
    alone = train_stage(run, estimator="knn", feature_groups=["cheap"])
    assert list(alone.blocks) == ["cheap"]
    with pytest.raises(MismatchError, match="no feature block 'peek'.*--feature-group peek"):
        train_stage(run, feature_groups=["cheap", "peek"])


def test_features_of_other_texts_are_refused(tmp_path):
    """Imported logs have ids alone to go by, and ids may be plain numbers."""
    one, other = Run(tmp_path / "one"), Run(tmp_path / "other")
    plain_log(one, tmp_path, [f"Is it {number}?" for number in range(20)])
    log = plain_log(other, tmp_path, [f"Was it {number}?" for number in range(20)])
    featurize_stage(one)
    shutil.copytree(one.features_folder, other.features_folder)
    with pytest.raises(MismatchError, match="computed for other ids, questions or images"):
        other.features(log)


def test_images_are_asked_for_where_a_tier_looks_at_them(run):
    with pytest.raises(DataError, match="feature groups image, peek look at images.*--images"):
        featurize_stage(run, feature_groups=["image", "cheap", "peek"])
    table, _ = featurize_stage(run, feature_groups=["cheap"])
    assert table.widths == {"cheap": 23}  # of the question alone, and it says so
    assert table.metadata["blocks"]["cheap"]["made_with"]["pictures"] is False


def test_a_question_that_does_not_fit_has_no_peek_and_a_cause(images, tmp_path):
    asked = examples()
    asked[2] = Example(**(asked[2].to_dict() | {"question": "why " * 1100}))
    run = Run(tmp_path / "long")
    label_stage(run, asked, images=images, model=FakeModel())
    assert list(run.features(run.log()).blocks) == ["image", "question"]
    table, causes = featurize(run, images, refused=True)
    assert list(causes) == ["1-0"] and "does not fit" in causes["1-0"]
    assert len(table) == 11 and "1-0" not in table.ids


def test_only_chosen_tiers_are_made_while_labelling(images, tmp_path):
    run = Run(tmp_path / "few")
    log = label_stage(run, examples(), images=images, model=FakeModel(), feature_groups=["cheap"])
    assert list(run.features(log).blocks) == ["cheap"]


def test_processes_see_what_others_have_kept(tmp_path):
    vector = Vector(feature_group="image", unit="a.png", key="k", values=np.ones(3), ms=1.0)
    with VectorStore(tmp_path) as first, VectorStore(tmp_path, rank=1) as second:
        second.add([vector])
        assert not first.has("image", "a.png", "k")
        first.refresh()
        assert first.has("image", "a.png", "k") and not first.has("image", "a.png", "other")
        (found,) = first.read()
    np.testing.assert_array_equal(found.values, [1, 1, 1])


def test_a_table_that_was_edited_is_made_again_rather_than_trusted(run, images):
    first, _ = featurize(run, images)
    path = run.features_folder / "features.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cut short or edited"):
        run.features(run.log())
    again, looked = featurize(run, images)
    assert looked == []  # the vectors beside it are whole
    np.testing.assert_array_equal(again.matrix(), first.matrix())


def test_a_router_keeps_no_timing(run, images):
    """What was measured is in the manifest; a router would else differ from run to run."""
    table, _ = featurize(run, images)
    assert "milliseconds" not in json.dumps(dict(table.metadata))


def test_only_the_model_that_answered_can_peek(images, tmp_path):
    run = Run(tmp_path / "average")
    label(examples(), images=images, model=FakeModel(pooling="spatial"), folder=run.log_folder)
    with pytest.raises(MismatchError, match="log was made by fake .*--encoder is fake@"):
        featurize(run, images, "image", "peek")
    table, _ = featurize(run, images, "image", "question", "cheap")
    assert list(table.blocks) == ["image", "question", "cheap"]
