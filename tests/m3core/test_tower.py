from __future__ import annotations

import pytest
import torch

from experiments.embedded_model.architecture import OFFSETS, hold_looks, new_tower
from experiments.embedded_model.curriculum import scene_pixels
from experiments.embedded_model.tower_pretraining import PatchReader, dense_loss, scene_batch
from m3router.data.scenes.world import CELLS
from m3router.m3core.training.optimizers import new_optimizers


@pytest.fixture(scope="module")
def tower():
    return new_tower(scene_pixels(range(100)), seed=0)


def share_of_right_looks(tower):
    """Where a head's offset lies inside: (all patches, printed ones), the worst of all heads."""
    tower.set_attn_implementation("eager")
    pixels, labels, _ = scene_batch(range(1000, 1006))
    with torch.no_grad():
        attentions = tower(pixels, output_attentions=True).attentions
    places = torch.arange(CELLS * CELLS)
    everywhere, printed = [], []
    for attention, offsets in zip(attentions, OFFSETS, strict=True):
        for head, (down, right) in enumerate(offsets):
            rows, cols = places // CELLS + down, places % CELLS + right
            inside = (rows >= 0) & (rows < CELLS) & (cols >= 0) & (cols < CELLS)
            wanted = (rows * CELLS + cols)[inside]
            hit = attention[:, head, 1:, 1:][:, inside].argmax(-1) == wanted
            everywhere.append(float(hit.float().mean()))
            printed.append(float(hit[labels["glyph"][:, inside] > 0].float().mean()))
    return min(everywhere), min(printed)


def test_every_head_of_a_new_tower_looks_where_it_should(tower):
    everywhere, printed = share_of_right_looks(tower)
    assert everywhere > 0.99
    assert printed > 0.95  # patches that show much look no worse


def test_held_looks_stay_whatever_is_trained():
    tower = new_tower(scene_pixels(range(100)), seed=0)
    hold_looks(tower)
    pixels, _, _ = scene_batch(range(4))
    before = {name: one.detach().clone() for name, one in tower.named_parameters()}
    for optimizer in new_optimizers(
        tower.named_parameters(), learning_rate=3e-3, muon_learning_rate=5e-2, weight_decay=0.0
    ):
        for _ in range(3):
            tower(pixels).last_hidden_state[..., :9].square().mean().backward()
            optimizer.step()
    moved = {name for name, one in tower.named_parameters() if not torch.equal(one, before[name])}
    assert any("v_proj" in name for name in moved) and any("fc1" in name for name in moved)
    assert not any("q_proj" in name or "k_proj" in name for name in moved)
    everywhere, printed = share_of_right_looks(tower)
    assert everywhere > 0.95
    assert printed > 0.95


def test_drawn_patches_enter_a_new_tower_white(tower):
    pixels, labels, _ = scene_batch(range(2000, 2040))
    with torch.no_grad():
        patches = tower.embeddings(pixels)
    drawn = patches[:, 1:][labels["kind"] > 0][:, :40]
    assert drawn.mean().abs() < 0.2
    assert 0.5 < drawn.std() < 1.5


def test_the_dense_loss_falls_when_a_label_is_told():
    _, labels, weights = scene_batch(range(4))
    told = {name: torch.zeros(*values.shape, 64) for name, values in labels.items()}
    blind = dense_loss(told, labels, weights)
    for name, values in labels.items():
        told[name].scatter_(-1, values[..., None], 9.0)
        known = dense_loss(told, labels, weights)
        assert known < blind
        blind = known
    assert blind < 0.3


def test_only_matrices_inside_layers_go_to_muon(tower):
    reader = PatchReader(tower)
    adamw, muon = new_optimizers(
        reader.named_parameters(), learning_rate=1e-3, muon_learning_rate=1e-2, weight_decay=0.0
    )
    chosen = {id(one) for group in muon.param_groups for one in group["params"]}
    names = {name for name, one in reader.named_parameters() if id(one) in chosen}
    assert len(names) == 6 * len(OFFSETS)  # queries, keys, values, output and two of the MLP
    assert all(".layers." in f".{name}" and name.endswith("weight") for name in names)
    count = sum(len(group["params"]) for one in (adamw, muon) for group in one.param_groups)
    assert count == sum(1 for _ in reader.parameters())
    assert (
        len(
            new_optimizers(
                reader.named_parameters(),
                learning_rate=1e-3,
                muon_learning_rate=0.0,
                weight_decay=0.0,
            )
        )
        == 1
    )
