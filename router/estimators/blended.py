"""The default: several kinds of models, mixed by what each is worth on held-out examples.

A first log has a few hundred questions. What learns best from it differs from log to log: a ridge
regression, the nearest neighbours, a table of means by dataset, nothing at all, or, from some
thousand questions on, a network. So all of them are fitted, each on all examples but those of one
fold, and mixed by how well they estimate the fold that they have not seen. Nothing is chosen on a
small part, and nothing is calibrated on one.

Notation for shapes: N examples, D features, K options, M members.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from m3router.data.errors import DataError
from m3router.data.splits.folds import group_folds
from m3router.router.estimators.base import (
    Floats,
    GroupedEstimator,
    Validation,
    bent,
    check_fit,
    check_validation,
    check_widths,
    constant_columns,
    lay_out,
    read_header,
    read_tensors,
    row_blocks,
    varies,
)
from m3router.router.estimators.components import Components
from m3router.router.estimators.datasets import (
    Datasets,
    mean_scores,
    merged,
    recognised,
    recogniser,
)
from m3router.router.estimators.mlp import MlpEstimator, MlpStack
from m3router.router.estimators.neighbours import Neighbourhood
from m3router.router.estimators.ridge import PENALTIES, RidgePath
from m3router.router.estimators.stacking import Mixture
from m3router.router.features.mapped import side_by_side

TENSORS, HEADER, NETWORK = "blend.safetensors", "blend.json", "network-"
Array = npt.NDArray[np.float64]
Classes = npt.NDArray[Any]

SCALINGS = {"sizes": False, "standard": True}
"""Name -> whether each feature is brought to the same deviation before components are taken."""
COMPONENTS = 512
"""Principal components that the ridge regressions see at most."""
NEAR = 64
"""Of those, the components in which neighbours are near and datasets are recognised."""
REACHES = (20, 50, 100, 200)
"""Neighbours that are tried."""
MOST = 4000
"""Examples that neighbours are looked for among, drawn at random: each costs time at inference."""
JUDGED = 2000
"""Held-out examples that are enough to choose the reach of the neighbours."""
FEW = 2000
"""Examples below which there are more folds, each leaving out less."""
FOLDS, FOLDS_OF_MANY = 5, 3
FIRM_SIMPLE, FIRM_NETWORK = 300.0, 1000.0
"""Groups of examples whose evidence weighs as much as the weights that are taken without any."""


@dataclass(kw_only=True, eq=False)
class BlendedEstimator(GroupedEstimator):
    """A mixture of ridge regressions, neighbours, a lookup by dataset, the mean, and networks.

    Members, each estimating held-out examples by folds of whole groups:

    - the mean score of each option;
    - ridge regressions on principal components, at 9 penalties and for two scalings of the
      features (`m3router.router.estimators.ridge`);
    - a kernel-weighted mean of the nearest examples;
    - mean scores by dataset;
    - networks in which image and question interact (`MlpEstimator`), one fitted without each fold
      and stopped on it, averaged.

    The others are mixed by least squares on held-out estimates
    (`m3router.router.estimators.stacking`), drawn to equal weights of the mean, the lookup, the
    neighbours and the best ridge regression of each scaling: by a half at `FIRM_SIMPLE` groups, by
    less with more. Mixture and networks are mixed in the same way, drawn to a half each.

    Datasets are recognised in the features, by a multinomial logistic regression: as a rule nobody
    says at inference where a question comes from. Where somebody does, they can be told, in the fit
    and afterwards; then they are one more block of features for all members, and what is
    recognised stands in where a question comes without.

    Args:
        networks: whether networks are among the members; without, a fit takes a second or two.
        rank: see `MlpEstimator`.
        hidden: see `MlpEstimator`.
        learning_rate: see `MlpEstimator`.
        seed: of the folds and networks.
        threads: of torch while fitting.
        widths: columns of each feature block, side by side; None for one block.
    """

    networks: bool = True
    rank: int = 64
    hidden: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    threads: int = 1
    widths: tuple[int, ...] | None = None

    FILES = (
        HEADER,
        TENSORS,
        *(f"{NETWORK}{fold}-{file}" for fold in range(FOLDS) for file in MlpEstimator.FILES),
    )
    # What else there is to choose is mixed.
    SPACE = MappingProxyType(
        {name: MlpEstimator.SPACE[name] for name in ("rank", "hidden", "learning_rate")}
    )

    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Fit with every example as a group of its own, see `fit_groups`.

        Raises:
            DataError: see `SufficiencyEstimator.fit`.
            MismatchError: when `widths` do not sum to D.
        """
        check_validation(validation, np.shape(X)[-1])
        self.fit_groups(X, Y, groups=np.arange(len(X)), weights=weights)
        return self

    def fit_groups(
        self,
        X: Floats,
        Y: Floats,
        *,
        groups: Classes,
        datasets: Classes | None = None,
        told: bool = False,
        weights: Floats | None = None,
    ) -> Array:
        """Fit, dividing the examples by group.

        Args:
            X: (N, D); may be memory-mapped.
            Y: (N, K) in [0, 1].
            groups: (N,); no group is both fitted on and judged.
            datasets: (N,) where each example comes from; None for one dataset.
            told: whether `predict_told` will be told them, too.
            weights: (N,) of the examples.

        Returns:
            Held-out probabilities (N, K): each from members that have not seen the example's
            group. Only the weights of the mixture have.

        Raises:
            DataError: see `SufficiencyEstimator.fit`.
            MismatchError: when `widths` do not sum to D.
        """
        X, Y, weights = check_fit(X, Y, weights)
        widths = check_widths(self.widths, X.shape[1])
        constant, base = constant_columns(Y, weights)
        self.n_features_, self.base_ = X.shape[1], base
        self.active_ = np.flatnonzero(~constant)
        held_out = np.tile(base, (len(X), 1))
        n_groups = len(np.unique(np.asarray(groups).astype(str)))
        folds = FOLDS if len(X) < FEW else FOLDS_OF_MANY
        fold = group_folds(groups, folds, seed=self.seed)
        self.parts_: _Parts | None = None
        self.shares_ = {}
        names, member = merged(np.zeros(len(X), dtype=int) if datasets is None else datasets)
        told = told and len(names) > 1
        if len(self.active_) and (told or varies(X)) and n_groups > 1:
            alike = np.eye(len(names), dtype=np.float32)[member]
            lesson = _Lesson(
                X=_beside(X, alike) if told else X,
                Y=np.asarray(Y[:, self.active_], dtype=np.float64),
                weights=np.asarray(weights, dtype=np.float64),
                fold=fold,
                groups=n_groups,
                widths=(*widths, len(names)) if told else widths,
                names=names,
                member=member,
                told=told,
            )
            with threadpool_limits(limits=1, user_api="blas"):
                self.parts_, estimate = self._fitted(lesson, X, widths)
            held_out[:, self.active_] = estimate
        return held_out

    def _fitted(self, lesson: _Lesson, X: Floats, widths: tuple[int, ...]) -> tuple[_Parts, Array]:
        # The networks take about as long as everything else: on two cores, half of the time.
        with ThreadPoolExecutor(max_workers=1) as pool:
            learning = pool.submit(self._networks, lesson) if self.networks else None
            datasets, looked_up = _datasets(lesson, X, widths, seed=self.seed)
            simple, near, parts, names = _simple_members(lesson, looked_up, seed=self.seed)
            mixture = Mixture.fit(parts, lesson.Y, lesson.weights)
            shrunk = mixture.drawn_to(
                _usual(parts, names, lesson.Y, lesson.weights), _share(FIRM_SIMPLE, lesson.groups)
            )
            estimate = shrunk.apply(parts)
        networks: list[MlpEstimator] = []
        outer = Mixture(level=np.array([1.0, 0.0]), spread=np.array([1.0, 0.0]))
        if learning is not None:
            networks, learned = learning.result()
            pair = np.stack([estimate, learned])
            half = np.array([0.5, 0.5])
            outer = Mixture.fit(pair, lesson.Y, lesson.weights).drawn_to(
                half, _share(FIRM_NETWORK, lesson.groups)
            )
            estimate = outer.apply(pair)
        self.shares_ = _shares(names, shrunk, outer)
        found = _Parts.of(simple, near, datasets, names, shrunk, outer, networks)
        return found, bent(estimate)

    def _networks(self, lesson: _Lesson) -> tuple[list[MlpEstimator], Array]:
        """A network without each fold, and what each says about its own."""
        held_out, fitted = np.zeros(lesson.Y.shape), []
        for number in np.unique(lesson.fold):
            inside = lesson.fold == number
            network = MlpEstimator(
                rank=self.rank,
                hidden=self.hidden,
                learning_rate=self.learning_rate,
                members=1,
                seed=self.seed + int(number),
                threads=self.threads,
                widths=lesson.widths,
            )
            held = Validation(X=_taken(lesson.X, inside), Y=lesson.Y[inside])
            network.fit(
                _taken(lesson.X, ~inside),
                lesson.Y[~inside],
                weights=lesson.weights[~inside],
                validation=held,
            )
            held_out[inside] = network.predict(held.X)
            fitted.append(network)
        return fitted, held_out

    def predict_told(self, X: Floats, datasets: Classes | None) -> npt.NDArray[np.float64]:
        """Probabilities (N, K) for X (N, D) from these datasets (N,).

        Unknown names, and all where None is given, are recognised in the features; a fit that was
        not told recognises all of them.

        Raises:
            DataError: see `predict`.
            MismatchError: see `predict`.
        """
        X = self._checked(X)
        p = np.empty((len(X), len(self.base_)))
        p[:] = self.base_
        if self.parts_ is not None:
            p[:, self.active_] = bent(self.parts_.predict(X, datasets))
        return p

    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        return self.predict_told(X, None)

    def dump(self) -> dict[str, bytes]:
        """Arrays as safetensors, the rest as JSON, and the files of each network."""
        self._check_fitted()
        header: dict[str, Any] = {
            "n_features": self.n_features_,
            "base": self.base_.tolist(),
            "active": self.active_.tolist(),
            "networks": 0,
        }
        files: dict[str, bytes] = {}
        tensors: dict[str, Array] = {}
        if self.parts_ is not None:
            tensors, described = self.parts_.dump()
            header |= described
            for number, network in enumerate(self.parts_.networks):
                for name, content in network.dump().items():
                    files[f"{NETWORK}{number}-{name}"] = content
        header_bytes = json.dumps(header, sort_keys=True).encode()
        return {TENSORS: save(tensors) if tensors else b"", HEADER: header_bytes, **files}

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """The estimator whose files these are, checked before anything is built from them."""
        estimator, header = cls(), read_header(files, HEADER)
        try:
            estimator.n_features_ = int(header["n_features"])
            estimator.base_ = np.asarray(header["base"], dtype=np.float64)
            estimator.active_ = np.asarray(header["active"], dtype=np.intp)
            content = files[TENSORS]
            estimator.parts_ = None
            if content:
                networks = []
                for number in range(int(header["networks"])):
                    start = f"{NETWORK}{number}-"
                    own = {
                        k.removeprefix(start): v for k, v in files.items() if k.startswith(start)
                    }
                    networks.append(MlpEstimator.restore(own))
                estimator.parts_ = _Parts.restore(
                    read_tensors(content, TENSORS, minus_infinite=("recognise",)), header, networks
                )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise DataError(f"{HEADER} does not describe a blend: {error}.") from error
        return estimator


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lesson:
    """What is learned from: X (N, D), Y (N, K) of options that vary, and one entry per example."""

    X: Floats
    Y: Array
    weights: Array
    fold: npt.NDArray[np.intp]
    groups: int
    widths: tuple[int, ...]
    names: tuple[str, ...]
    member: npt.NDArray[np.intp]
    told: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parts:
    """A fitted blend, its linear members joined to one.

    Attributes:
        linear: (2, D, K) weights for the level and for the spread.
        bias: (2, K).
        components: that neighbours are near in.
        neighbours: examples.
        datasets: recognised, or told.
        near_level: (2,) weights of neighbours and lookup for the level.
        near_spread: and for the spread.
        networks: one per fold.
        outer: weights of what is above, and of the networks.
    """

    linear: Array
    bias: Array
    components: Components
    neighbours: Neighbourhood
    datasets: Datasets
    near_level: Array
    near_spread: Array
    networks: list[MlpEstimator]
    outer: Mixture
    stack: MlpStack | None = field(init=False)
    joined: _Joined = field(init=False)

    def __post_init__(self) -> None:
        """Lay arrays out as they are stored, and join what predicts."""
        lay_out(self, "linear", "bias", "near_level", "near_spread")
        object.__setattr__(self, "stack", MlpStack(self.networks) if self.networks else None)
        object.__setattr__(self, "joined", _Joined.of(self))

    @classmethod
    def of(
        cls,
        paths: Mapping[str, tuple[Components, RidgePath]],
        near: tuple[Components, Neighbourhood],
        datasets: Datasets,
        names: list[str],
        mixture: Mixture,
        outer: Mixture,
        networks: list[MlpEstimator],
    ) -> _Parts:
        """Join the linear members."""
        weight, bias = [], []
        base = next(iter(paths.values()))[1].level  # of the scores, weighted
        for shares in (mixture.level, mixture.spread):
            total = shares[names.index("mean")] * base
            joined = np.zeros((len(near[0].mean), len(base)))
            for name, (components, path) in paths.items():
                own = [shares[names.index(f"{name}:{one:g}")] for one in PENALTIES]
                inside, level = path.mixed(own)
                coef = components.directions @ inside
                joined += coef
                total = total + level - components.mean @ coef
            weight.append(joined)
            bias.append(total)
        places = [names.index("neighbours"), names.index("lookup")]
        return cls(
            linear=np.stack(weight),
            bias=np.stack(bias),
            components=near[0],
            neighbours=near[1],
            datasets=datasets,
            near_level=mixture.level[places],
            near_spread=mixture.spread[places],
            networks=networks,
            outer=outer,
        )

    def predict(self, X: Floats, datasets: Classes | None) -> Array:
        """Estimates (N, K) of X (N, D) from these datasets; they may leave [0, 1]."""
        if len(X) == 1:
            return self._block(X, datasets)
        parts = [
            self._block(X[rows], None if datasets is None else datasets[rows])
            for rows in row_blocks(X)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.bias.shape[1]))

    def _block(self, X: Floats, datasets: Classes | None) -> Array:
        X = np.asarray(X, dtype=np.float64)
        level, spread, Z, shares = self.joined.of_rows(X, self.datasets, datasets)
        near, alike = self.neighbours.predict(Z), shares @ self.datasets.means
        level = level + self.near_level[0] * near + self.near_level[1] * alike
        spread = spread + self.near_spread[0] * near + self.near_spread[1] * alike
        simple = np.asarray(spread + (level - spread).mean(axis=1, keepdims=True))
        if self.stack is None:
            return simple
        learned = self.stack.predict(np.hstack([X, shares]) if self.datasets.told else X)
        return self.outer.apply_two(simple, learned)

    def dump(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays, and the rest, JSON-able."""
        tensors = {
            "linear": self.linear,
            "bias": self.bias,
            "mean": self.components.mean,
            "directions": self.components.directions,
            "stored": self.neighbours.stored.astype(np.float32),
            "scores": self.neighbours.scores,
            "weights": self.neighbours.weights,
            "dataset_mean": self.datasets.components.mean,
            "dataset_directions": self.datasets.components.directions,
            "recognise": self.datasets.recognise,
            "means": self.datasets.means,
            "near_level": self.near_level,
            "near_spread": self.near_spread,
            "outer_level": self.outer.level,
            "outer_spread": self.outer.spread,
        }
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        return contiguous, {
            "reach": self.neighbours.reach,
            "networks": len(self.networks),
            "datasets": list(self.datasets.names),
            "told": self.datasets.told,
        }

    @classmethod
    def restore(
        cls, tensors: Mapping[str, Any], header: Mapping[str, Any], networks: list[MlpEstimator]
    ) -> _Parts:
        """Rebuild what `dump` gave."""
        datasets = Datasets(
            components=Components(
                mean=tensors["dataset_mean"], directions=tensors["dataset_directions"]
            ),
            recognise=tensors["recognise"],
            names=tuple(header["datasets"]),
            means=tensors["means"],
            told=bool(header["told"]),
        )
        return cls(
            linear=tensors["linear"],
            bias=tensors["bias"],
            components=Components(mean=tensors["mean"], directions=tensors["directions"]),
            neighbours=Neighbourhood(
                tensors["stored"],
                tensors["scores"],
                tensors["weights"],
                reach=int(header["reach"]),
            ),
            datasets=datasets,
            near_level=tensors["near_level"],
            near_spread=tensors["near_spread"],
            networks=networks,
            outer=Mixture(level=tensors["outer_level"], spread=tensors["outer_spread"]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Joined:
    """Everything linear in a blend as one product: for one row, reading weights takes the time.

    Notation for shapes: D features, W = 2 K + C + T columns: K options for the level and K for the
    spread, C components, the logits of T datasets (T = 0 where there is one dataset only).

    Attributes:
        mean: (D,) subtracted from the features.
        weights: (D, W).
        bias: (W,).
        told_mean: (T,) subtracted from the shares of datasets, where these are features.
        told_weights: (T, 2 K + C) of those.
    """

    mean: Array
    weights: Array
    bias: Array
    told_mean: Array
    told_weights: Array

    @classmethod
    def of(cls, parts: _Parts) -> _Joined:
        """Join the linear members, the components of neighbours and the logits of datasets."""
        found, d = parts.datasets, len(parts.datasets.components.mean)
        mean = parts.components.mean
        linear = np.hstack([*parts.linear, parts.components.directions])  # (D or D + T, 2 K + C)
        bias = np.concatenate(
            [*(parts.bias + mean @ parts.linear), np.zeros(parts.components.directions.shape[1])]
        )
        weights = linear[:d]
        if len(found.names) > 1:
            logits = found.components.directions @ found.recognise[:-1]  # (D, T)
            weights = np.hstack([weights, logits])
            shift = found.recognise[-1] + (mean[:d] - found.components.mean) @ logits
            bias = np.concatenate([bias, shift])
        return cls(
            mean=mean[:d],
            weights=np.ascontiguousarray(weights),
            bias=bias,
            told_mean=mean[d:],
            told_weights=np.ascontiguousarray(linear[d:]),
        )

    def of_rows(
        self, X: Floats, known: Datasets, datasets: Classes | None
    ) -> tuple[Array, Array, Array, Array]:
        """For X (N, D): level and spread (N, K), components (N, C), shares of datasets (N, T)."""
        options, names = known.means.shape[1], len(known.names)
        found = (X - self.mean) @ self.weights + self.bias
        shares = np.ones((len(X), 1))
        if names > 1:
            found, logits = found[:, :-names], found[:, -names:]
            shares = known.shares(logits, datasets)
        if known.told:
            found = found + (shares - self.told_mean) @ self.told_weights
        return found[:, :options], found[:, options : 2 * options], found[:, 2 * options :], shares


def _taken(X: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """Some rows of X (N, D); in a file where they are many."""
    if X.dtype == np.float32:
        return side_by_side([X.astype(np.float32, copy=False)], np.flatnonzero(inside))
    return X[inside]


def _beside(X: Floats, alike: npt.NDArray[np.float32]) -> Floats:
    """The features and one more block."""
    if X.dtype == np.float32:
        return side_by_side([X.astype(np.float32, copy=False), alike])
    return np.hstack([X, alike])


def _datasets(
    lesson: _Lesson, X: Floats, widths: tuple[int, ...], *, seed: int
) -> tuple[Datasets, Array]:
    """What recognises datasets in X (N, D), and held-out mean scores (N, K) of each example's."""
    Y, weights, fold, n = lesson.Y, lesson.weights, lesson.fold, len(lesson.names)
    components = Components.fit(X, widths, standardise=False, most=NEAR, seed=seed)
    Z = components.project(X)
    found = Datasets(
        components=components,
        recognise=recogniser(Z, lesson.member, weights, n),
        names=lesson.names,
        means=mean_scores(Y, lesson.member, weights, n),
        told=lesson.told,
    )
    looked_up = np.zeros(Y.shape)
    for number in np.unique(fold):
        inside = fold == number
        learned, own = lesson.member[~inside], weights[~inside]
        means = mean_scores(Y[~inside], learned, own, n)
        if lesson.told:
            looked_up[inside] = means[lesson.member[inside]]
        else:
            recognise = recogniser(Z[~inside], learned, own, n)
            looked_up[inside] = recognised(Z[inside], recognise) @ means
    return found, looked_up


def _simple_members(
    lesson: _Lesson, looked_up: Array, *, seed: int
) -> tuple[
    dict[str, tuple[Components, RidgePath]], tuple[Components, Neighbourhood], Array, list[str]
]:
    """All members but the networks.

    Returns:
        The ridge regressions by scaling; the neighbours and what they are near in; held-out
        estimates (M, N, K); the members' names.
    """
    Y, weights, fold = lesson.Y, lesson.weights, lesson.fold
    numbers = np.unique(fold)
    names, parts = ["mean"], [np.zeros(Y.shape)]
    for number in numbers:
        inside = fold == number
        parts[0][inside] = np.average(Y[~inside], axis=0, weights=weights[~inside])
    paths, projected = {}, {}
    for name, standardise in SCALINGS.items():
        components = Components.fit(
            lesson.X, lesson.widths, standardise=standardise, most=COMPONENTS, seed=seed
        )
        Z = components.project(lesson.X)
        held_out = np.zeros((len(PENALTIES), *Y.shape))
        for number in numbers:
            inside = fold == number
            path = RidgePath.fit(Z[~inside], Y[~inside], weights[~inside])
            held_out[:, inside] = path.predict(Z[inside])
        paths[name] = (components, RidgePath.fit(Z, Y, weights))
        # As they will be stored: a row then gives what a batch gives.
        projected[name] = Z[:, :NEAR].astype(np.float32).astype(np.float64)
        names += [f"{name}:{one:g}" for one in PENALTIES]
        parts += list(held_out)
    some = _some(len(Y), seed=seed)
    scaling, reach = _best_neighbours(projected, lesson, some)
    Z, components = projected[scaling], paths[scaling][0]
    near = (
        Components(mean=components.mean, directions=components.directions[:, :NEAR]),
        Neighbourhood(Z[some], Y[some], weights[some], reach=reach),
    )
    neighbours = np.zeros(Y.shape)
    for number in numbers:
        inside = fold == number
        others = some[~inside[some]]
        held = Neighbourhood(Z[others], Y[others], weights[others], reach=reach)
        neighbours[inside] = held.predict(Z[inside])
    every = np.stack([*parts, neighbours, looked_up])
    return paths, near, every, [*names, "neighbours", "lookup"]


def _some(n: int, *, seed: int) -> npt.NDArray[np.intp]:
    """At most `MOST` of n examples, ascending."""
    if n <= MOST:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).permutation(n)[:MOST])


def _best_neighbours(
    projected: Mapping[str, Array], lesson: _Lesson, some: npt.NDArray[np.intp]
) -> tuple[str, int]:
    """The scaling and reach whose held-out estimates tell options apart best."""
    errors: dict[tuple[str, int], float] = {}
    Y, weights, judged = lesson.Y, lesson.weights, 0
    for number in np.unique(lesson.fold):
        inside = lesson.fold == number
        others = some[~inside[some]]
        for name, Z in projected.items():
            for reach in REACHES:
                held = Neighbourhood(Z[others], Y[others], weights[others], reach=reach)
                error = _apart(held.predict(Z[inside]), Y[inside], weights[inside])
                errors[name, reach] = errors.get((name, reach), 0.0) + error
        judged += int(inside.sum())
        if judged >= JUDGED:
            break
    return min(errors, key=errors.__getitem__)


def _usual(parts: Array, names: list[str], Y: Array, weights: Array) -> Array:
    """Equal weights (M,) of the mean, the lookup, the neighbours and the best ridge regressions."""
    chosen = [names.index(name) for name in ("mean", "lookup", "neighbours")]
    for scaling in SCALINGS:
        own = [names.index(f"{scaling}:{one:g}") for one in PENALTIES]
        chosen.append(min(own, key=lambda place: _apart(parts[place], Y, weights)))
    return np.bincount(chosen, minlength=len(names)) / len(chosen)


def _apart(p: Array, Y: Array, weights: Array) -> float:
    """Weighted squared error of the differences between options; of the scores if there is one."""
    error = p - Y
    if Y.shape[1] > 1:
        error = error - error.mean(axis=1, keepdims=True)
    return float(weights @ np.square(error).sum(axis=1))


def _share(firm: float, groups: int) -> float:
    """Of the weights that are taken without evidence."""
    return firm / (firm + groups)


def _shares(names: list[str], simple: Mixture, outer: Mixture) -> dict[str, dict[str, float]]:
    """What each kind of member weighs in the end, for the level and for the spread."""
    told = {}
    for what in ("level", "spread"):
        own, above = getattr(simple, what), getattr(outer, what)
        kinds: dict[str, float] = {}
        for name, weight in zip(names, own.tolist(), strict=True):
            kind = "ridge" if ":" in name else name
            kinds[kind] = kinds.get(kind, 0.0) + float(above[0]) * weight
        told[what] = {**kinds, "networks": float(above[1])}
    return told
