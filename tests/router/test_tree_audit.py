"""Trees that somebody changed are refused before LightGBM's parser, which trusts all, sees them."""

from __future__ import annotations

import re

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.estimators.boosted import HEADER, TREES, BoostedEstimator
from m3router.router.estimators.tree_audit import audited

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(200, 4))
Y = (X[:, :2] + GENERATOR.normal(size=(200, 2)) > 0).astype(float)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return BoostedEstimator(rounds=4, num_leaves=4).fit(X, Y).dump()


def test_what_is_ours_predicts_the_same(files):
    restored = BoostedEstimator.restore(files)
    whole = lgb.Booster(model_str=files[TREES].decode()).predict(X, raw_score=True)
    assert np.array_equal(restored.booster_.predict(X, raw_score=True), whole)
    assert restored.dump() == files
    assert audited(files[TREES].decode(), features=4, outputs=2).endswith("\nend of trees\n")


def test_a_tree_of_one_leaf_is_fine():
    settings_ = {"objective": "none", "min_gain_to_split": 1e9, "verbosity": -1}
    data = lgb.Dataset(X, X[:, 0])
    made = lgb.train({**settings_, "objective": "regression"}, data, 1)
    text = made.model_to_string().replace("objective=regression\n", "")
    assert "num_leaves=1\n" in text
    again = lgb.Booster(model_str=audited(text, features=4, outputs=1))
    assert np.array_equal(again.predict(X), made.predict(X))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("left_child", "0 -1 -2"),  # leads back to itself: it would never end
        ("left_child", "1 -1 -99"),  # no such leaf
        ("right_child", "99999999 -3 -4"),  # far outside
        ("left_child", "1 -1"),  # too short
        ("split_feature", "4 0 0"),  # no such column
        ("split_feature", "-1 0 0"),
        ("split_feature", "0.5 0 0"),
        ("decision_type", "1 2 2"),  # by category, of which there are none
        ("threshold", "nan 0 0"),
        ("leaf_value", "inf 0 0 0"),
        ("leaf_value", "0 0 0"),
        ("num_leaves", "2147483647"),
        ("num_leaves", "-4"),
        ("num_cat", "1"),
        ("is_linear", "1"),
        ("shrinkage", "nan"),
        ("max_feature_idx", "100000"),
        ("num_class", "3"),
        ("num_tree_per_iteration", "0"),
        ("feature_infos", "none"),
        ("version", "v3"),
        ("label_index", "7"),
        ("tree_sizes", "1 1"),
        ("tree_sizes", "-5 9999999999"),
    ],
)
def test_a_changed_number_is_refused(files, entry, value):
    text = files[TREES].decode()
    old = re.search(rf"^{entry}=(.*)$", text, re.MULTILINE)
    changed = text.replace(old[0], f"{entry}={value}", 1)
    if entry not in ("tree_sizes", "version") and entry in text.split("Tree=0")[1]:
        # The sizes are made to agree, so that the number itself is what is judged.
        sizes = re.search(r"^tree_sizes=(\d+)", changed, re.MULTILINE)
        longer = int(sizes[1]) + len(value) - len(old[1])
        changed = changed.replace(sizes[0], f"tree_sizes={longer}", 1)
    with pytest.raises(DataError, match="not such as this package writes"):
        BoostedEstimator.restore({**files, TREES: changed.encode()})


def test_another_entry_is_refused(files):
    text = files[TREES].decode()
    for changed in (
        text.replace("label_index=0\n", "label_index=0\nforced=1\n", 1),
        text.replace("label_index=0\n", "label_index=0\nlabel_index=0\n", 1),
        text.replace("end of trees", "end of the trees"),
        text.replace("Tree=1\n", "Tree=7\n"),
        "tree\n",
    ):
        with pytest.raises(DataError):
            BoostedEstimator.restore({**files, TREES: changed.encode()})
    with pytest.raises(DataError):
        audited("", features=4, outputs=2)


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_passes_can_be_predicted_with(files, data):
    """No change at all kills the process: what is let through gives finite numbers."""
    text = bytearray(files[TREES])
    end = text.index(b"\nend of trees")
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, end))] = data.draw(st.sampled_from(b"0123456789-. =\ne"))
    try:
        restored = BoostedEstimator.restore({**files, TREES: bytes(text)})
    except DataError:
        return
    assert np.isfinite(restored.predict(X)).all()


def test_the_header_counts_too(files):
    header = files[HEADER].replace(b'"n_features": 4', b'"n_features": 5')
    assert header != files[HEADER]
    with pytest.raises(DataError, match="max_feature_idx"):
        BoostedEstimator.restore({**files, HEADER: header})
