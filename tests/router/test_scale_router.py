from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.estimators import ESTIMATORS, estimator_class
from m3router.router.features.table import FeatureTable
from m3router.router.sealed_files import write_sealed
from m3router.router.training.probability_calibration import Calibration
from m3router.router.training.scale_router import ScaleRouter

WIDTHS = {"rank": 8, "hidden": 16}
SMALL = {
    "blend": WIDTHS,
    "lightgbm": {"rounds": 20},
    "mlp": {**WIDTHS, "members": 2, "epochs": 3},
    "rank": {**WIDTHS, "members": 2, "epochs": 3},
}


@pytest.fixture(scope="module", params=sorted(ESTIMATORS))
def router(request):
    generator = np.random.default_rng(0)
    X = generator.standard_normal((80, 5)).astype(np.float32)
    Y = (X[:, :1] + np.array([-1.0, 0.0, 1.0]) > 0).astype(float)
    return ScaleRouter(
        estimator=estimator_class(request.param)(**SMALL.get(request.param, {})).fit(X, Y),
        estimator_name=request.param,
        blocks={"question": 2, "image": 3},
        options=("1", "9", "36"),
        cost_unit="visual tokens",
        metadata={"features": {"source": "tower-1"}},
    )


@pytest.fixture
def features():
    generator = np.random.default_rng(1)
    return FeatureTable(
        ids=("a", "b"),
        blocks={
            "image": generator.random((2, 3)),
            "question": generator.random((2, 2)),
            "peek": generator.random((2, 1)),
        },
        metadata={"source": "tower-1"},
    )


def test_reads_its_blocks_in_its_own_order(router, features):
    X = np.concatenate([features.blocks["question"], features.blocks["image"]], axis=1)
    p = router.predict(features)
    np.testing.assert_array_equal(p, router.estimator.predict(X))
    one = router.predict_one({name: block[1] for name, block in features.blocks.items()})
    np.testing.assert_allclose(one, p[1], rtol=1e-12)


def test_round_trip_is_bit_equal(router, features, tmp_path):
    router.write(tmp_path)
    again = ScaleRouter.read(tmp_path)
    np.testing.assert_array_equal(again.predict(features), router.predict(features))
    assert list(again.blocks.items()) == [("question", 2), ("image", 3)]
    assert again.fingerprint == router.fingerprint
    assert (again.options, again.cost_unit) == (router.options, router.cost_unit)
    assert again.metadata == router.metadata


HOT = Calibration(method="temperature", temperatures=(2.0, 0.5, 1.0))
BENT = Calibration(method="isotonic", knots=(((0.0, 0.4, 1.0), (0.1, 0.2, 0.9)),) * 3)


@pytest.mark.parametrize("calibration", [HOT, BENT])
def test_a_calibration_is_applied_everywhere_and_kept(router, features, tmp_path, calibration):
    calibrated = replace(router, calibration=calibration)
    p = calibrated.predict(features)
    np.testing.assert_array_equal(p, calibration.apply(router.predict(features)))
    assert not np.allclose(p, router.predict(features))
    one = calibrated.predict_one({name: block[1] for name, block in features.blocks.items()})
    np.testing.assert_allclose(one, p[1], rtol=1e-9)
    assert calibrated.fingerprint != router.fingerprint
    calibrated.write(tmp_path)
    again = ScaleRouter.read(tmp_path)
    assert again.calibration == calibration
    assert again.fingerprint == calibrated.fingerprint
    np.testing.assert_array_equal(again.predict(features), p)


def test_routers_without_a_calibration_are_still_of_the_first_schema(router, tmp_path):
    router.write(tmp_path)
    text = (tmp_path / "router.json").read_text()
    assert '"schema": 1' in text
    assert '"calibration"' not in text
    payload = json.loads(text)
    payload.pop("sha256")
    write_sealed(tmp_path / "router.json", {**payload, "calibration": {"method": "guess"}})
    with pytest.raises(DataError, match="calibration"):
        ScaleRouter.read(tmp_path)


def test_fingerprint_tells_routers_apart(router):
    assert replace(router, options=("1", "9", "144")).fingerprint != router.fingerprint
    assert replace(router, metadata={}).fingerprint != router.fingerprint


def test_one_edited_byte_anywhere_is_refused(router, tmp_path):
    router.write(tmp_path)
    generator = np.random.default_rng(2)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        places = 60 if path.name == "router.json" else 12  # other files are only hashed
        for position in generator.integers(0, len(content), size=places):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(generator.integers(8))
            path.write_bytes(bytes(damaged))
            with pytest.raises(DataError, match=path.name):
                ScaleRouter.read(tmp_path)
        for length in (0, 1, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(DataError, match=path.name):
                ScaleRouter.read(tmp_path)
        path.write_bytes(content)
    assert ScaleRouter.read(tmp_path).fingerprint == router.fingerprint


def test_missing_files_are_named(router, tmp_path):
    with pytest.raises(DataError, match="Cannot read the router at .*router.json"):
        ScaleRouter.read(tmp_path)
    router.write(tmp_path)
    part = next(path for path in tmp_path.iterdir() if path.name != "router.json")
    part.unlink()
    with pytest.raises(DataError, match=part.name):
        ScaleRouter.read(tmp_path)


def test_other_features_name_both_sides(router, features):
    narrow = FeatureTable(ids=("a",), blocks={"image": np.zeros((1, 3))})
    with pytest.raises(MismatchError, match=r"'question': 2.*\{'image': 3\}"):
        router.predict(narrow)
    other = FeatureTable(ids=features.ids, blocks=features.blocks, metadata={"source": "tower-2"})
    with pytest.raises(MismatchError, match="'tower-1'.*'tower-2'"):
        router.predict(other)
    with pytest.raises(MismatchError, match="'question' is missing"):
        router.predict_one({"image": np.zeros(3)})
    with pytest.raises(MismatchError, match=r"'image' with shape \(3,\), got \(4,\)"):
        router.predict_one({"question": np.zeros(2), "image": np.zeros(4)})


def test_features_that_are_not_finite_are_refused(router):
    with pytest.raises(DataError, match="finite"):
        router.predict_one({"question": np.array([0.0, np.nan]), "image": np.zeros(3)})


def test_other_options_name_both_sides(router):
    router.check_options(["1", "9", "36"], of="the log")
    with pytest.raises(MismatchError, match="1, 9, 36, but the log has 1, 576"):
        router.check_options(["1", "576"], of="the log")
