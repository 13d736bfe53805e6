"""What every estimator of P(correct | scale) offers, and the checks they share.

Notation for shapes: N examples, D features, K options (scales).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from m3router.data.errors import DataError, MismatchError
from m3router.data.json_files import parse_json
from m3router.data.registry import unknown_name
from m3router.router.sealed_files import sha256_bytes

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Examples held back from fitting, for early stopping: X (N, D) and Y (N, K)."""

    X: Floats
    Y: Floats


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers that a hyper-parameter is searched among; whole ones where `low` is an int.

    Attributes:
        low: smallest.
        high: largest, included.
        log: whether they are drawn evenly in the logarithm.
        start: where a search begins; None for the constructor's default.
    """

    low: float
    high: float
    log: bool = False
    start: float | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Values that a hyper-parameter is searched among.

    Attributes:
        values: the values.
        start: where a search begins; None for the constructor's default.
    """

    values: tuple[str, ...]
    start: str | None = None


class SufficiencyEstimator(ABC):
    """Estimates P(correct at option k | features) for every option at once.

    An estimator is a class in a module of its own and a line in
    `m3router.router.estimators.ESTIMATORS`. It says everything about itself: the files it is stored
    as, what a search may change, how it weighs its features. Constructors only store their
    keyword-only hyper-parameters; what a fit finds ends in an underscore, `n_features_` (columns of
    X) among it.

    `dump` and `restore` turn a fitted estimator into named byte strings and back; hashing and
    files are the caller's (`ScaleRouter`), so that nothing is parsed before it was verified.

    Attributes:
        FILES: every file name that `dump` may give.
        SPACE: hyper-parameter -> what `m3router tune` tries for it; empty where there is nothing
            to search.
    """

    FILES: ClassVar[tuple[str, ...]] = ()
    SPACE: ClassVar[Mapping[str, Range | Choice]] = MappingProxyType({})
    n_features_: int

    @classmethod
    def configured(
        cls, hyperparameters: Mapping[str, Any], *, seed: int, widths: tuple[int, ...]
    ) -> Self:
        """An unfitted estimator with these hyper-parameters, and defaults for the others.

        Args:
            hyperparameters: of the constructor.
            seed: for a constructor that takes one.
            widths: columns of each feature block, for a constructor that takes them.

        Raises:
            DataError: when there is no such hyper-parameter.
        """
        known = inspect.signature(cls).parameters
        for name in hyperparameters:
            if name not in known:
                raise DataError(unknown_name(f"hyper-parameter of {cls.__name__}", name, known))
        implied = {"seed": seed, "widths": widths}
        given = {name: value for name, value in implied.items() if name in known}
        return cls(**{**given, **hyperparameters})

    @classmethod
    def candidates(cls, *, seed: int, widths: tuple[int, ...]) -> list[Self]:
        """Unfitted estimators with the hyper-parameters that training tries; here the defaults.

        Args:
            seed: of what is drawn at random.
            widths: columns of each feature block, side by side in X; their sum is D.
        """
        return [cls.configured({}, seed=seed, widths=widths)]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the constructor stored, JSON-able.

        Without what fitting added (`name_`), and without what belongs to the features (the widths
        of their blocks) or to the machine (threads).
        """
        left_out = ("widths", "threads")
        return {
            name: value
            for name, value in vars(self).items()
            if not name.endswith("_") and name not in left_out
        }

    @abstractmethod
    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Fit on X (N, D) and scores Y (N, K) in [0, 1], soft labels included.

        Raises:
            DataError: for empty, non-finite or misshapen input, or scores outside [0, 1].
        """

    def predict(self, X: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (N, K) for X (N, D).

        Raises:
            DataError: when X is not finite, or the estimator was not fitted.
            MismatchError: when X has another number of features than the fit had.
        """
        return self._predict(self._checked(X))

    def predict_one(self, x: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (K,) for one example x (D,), on the fast path; raises as `predict`."""
        probabilities: npt.NDArray[np.float64] = self.predict(x[None, :])[0]
        return probabilities

    def feature_importance(self, X: Floats) -> FeatureImportance | None:
        """How strongly each feature counts on X (N, D), where that can be read off the fit.

        None where it cannot; then whole feature blocks are measured, no single features.
        """
        return None

    @abstractmethod
    def dump(self) -> dict[str, bytes]:
        """The fitted estimator as file name -> content; equal fits give equal bytes."""

    @classmethod
    @abstractmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """Rebuild what `dump` gave; the hyper-parameters are back at their defaults.

        Args:
            files: verified by their hash.

        Raises:
            DataError: when a part is missing or not what this estimator wrote.
        """

    def hashes(self) -> dict[str, str]:
        """Part of the fitted estimator -> SHA-256: what a router's fingerprint is made of."""
        return {name: sha256_bytes(content) for name, content in self.dump().items()}

    @abstractmethod
    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (N, K) for X (N, D) that `_checked` let pass."""

    def _checked(self, X: Floats) -> Floats:
        self._check_fitted()
        X = as_floats(X)
        check_width(X, self.n_features_)
        check_finite(X)
        return X

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_features_"):
            raise DataError(f"{type(self).__name__} is not fitted; call fit(X, Y) first.")


@dataclass(frozen=True, kw_only=True)
class FeatureImportance:
    """How strongly each feature counts in a fitted estimator.

    Attributes:
        measure: what was taken for that, in words that follow "by".
        values: (D,), 0 or more.
    """

    measure: str
    values: Floats


class GroupedEstimator(SufficiencyEstimator):
    """An estimator that divides its examples itself, and says what it thought of held-out ones.

    Attributes:
        shares_: once fitted, "level" (of the mean over the options) and "spread" (of differences
            between them) -> kind of member -> its share; empty where nothing was mixed.
    """

    shares_: Mapping[str, Mapping[str, float]] = MappingProxyType({})

    @abstractmethod
    def fit_groups(
        self,
        X: Floats,
        Y: Floats,
        *,
        groups: npt.NDArray[Any],
        datasets: npt.NDArray[Any] | None = None,
        told: bool = False,
        weights: Floats | None = None,
    ) -> npt.NDArray[np.float64]:
        """Fit on X (N, D) and Y (N, K); no group (N,) is both fitted on and held out.

        Args:
            X: features.
            Y: scores.
            groups: (N,).
            datasets: (N,) names of where the examples come from.
            told: whether `predict_told` will know them, too.
            weights: (N,).

        Returns:
            Held-out probabilities (N, K).

        Raises:
            DataError: see `SufficiencyEstimator.fit`.
        """

    @abstractmethod
    def predict_told(self, X: Floats, datasets: npt.NDArray[Any] | None) -> npt.NDArray[np.float64]:
        """Probabilities (N, K) for X (N, D) from these datasets (N,); raises as `predict`."""


def check_fit(X: Floats, Y: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    """Validate the input of a fit; returns X, Y and weights (ones when None).

    X is not copied: float32 and memory-mapped features stay what they are. Y and the weights
    are small and come back as float64.

    Raises:
        DataError: when a shape, a value or a weight breaks the rule that the message names.
    """
    X, Y = as_floats(X), np.asarray(Y, dtype=np.float64)
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y):
        raise DataError(f"A fit needs X (N, D) and Y (N, K); it got {X.shape} and {Y.shape}.")
    if 0 in X.shape or 0 in Y.shape:
        raise DataError(f"A fit needs at least one row and column; got {X.shape} and {Y.shape}.")
    check_finite(X)
    if not np.all((Y >= 0) & (Y <= 1)):
        row, column = np.argwhere(~((Y >= 0) & (Y <= 1)))[0]
        raise DataError(
            f"Scores must lie in [0, 1]; row {row}, option {column} has {Y[row, column]}."
        )
    weights = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(X),) or not np.all(np.isfinite(weights) & (weights > 0)):
        raise DataError(f"Weights must be {len(X)} positive finite numbers, one per example.")
    return X, Y, weights


def as_floats(X: Floats) -> Floats:
    """X itself when it is float32 or float64, else a float64 copy."""
    X = np.asarray(X)
    return X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)


def check_finite(X: Floats) -> None:
    """Refuse NaN and infinite features of X (N, D) or x (D,), by blocks of rows.

    Raises:
        DataError: naming the first bad row and column.
    """
    if X.ndim == 1:
        X = X[None, :]
    for rows in row_blocks(X):
        block = X[rows]
        # One pass over a sum is several times faster than isfinite().all() on the fast path.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(block.sum()):
                continue
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataError(
                f"Features must be finite; row {rows.start + row}, column {column} is not. "
                "Remove the example, or compute its features again."
            )


def row_blocks(X: Floats, *, cells: int = 1 << 22) -> Iterator[slice]:
    """Slices of rows of X (N, D) that hold about `cells` numbers each."""
    step = max(1, cells // max(1, X.shape[1]))
    for start in range(0, len(X), step):
        yield slice(start, min(start + step, len(X)))


def check_width(X: Floats, n_features: int) -> None:
    """Refuse features of another width than the fit saw.

    Raises:
        MismatchError: naming both widths.
    """
    if X.shape[-1] != n_features:
        raise MismatchError(
            f"The estimator was fitted on {n_features} features, but got {X.shape[-1]}."
        )


def constant_columns(
    Y: Floats, weights: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which options have the same score everywhere, and the probability (K,) to give them.

    That probability is the posterior mean under Jeffreys' prior, (s + 1/2) / (n + 1): an option
    that was right on all of three examples is not certain to be right on the fourth.
    """
    constant = np.all(Y[0] == Y, axis=0)
    return constant, (weights @ Y + 0.5) / (weights.sum() + 1.0)


EDGE = 0.02
"""Where estimates begin to be bent back into (0, 1)."""


def bent(estimate: Floats) -> npt.NDArray[np.float64]:
    """Linear estimates as probabilities: unchanged from `EDGE` to 1 - `EDGE`.

    Beyond that they approach 0 and 1 in their order; cut off, different ones would look the same.
    """
    estimate = np.asarray(estimate, dtype=np.float64)
    inside = (estimate >= EDGE) & (estimate <= 1 - EDGE)
    if inside.all():
        return np.array(estimate, dtype=np.float64)
    low = EDGE * np.exp(np.minimum(estimate - EDGE, 0.0) / EDGE)
    high = 1 - EDGE * np.exp(np.minimum(1 - EDGE - estimate, 0.0) / EDGE)
    found = np.where(inside, estimate, np.where(estimate < EDGE, low, high))
    return np.asarray(np.clip(found, 1e-12, 1 - 1e-12))


def log_loss(Y: Floats, p: Floats) -> float:
    """Mean cross-entropy of probabilities p against scores Y in [0, 1], in nats per cell."""
    q = np.clip(p, 1e-7, 1 - 1e-7)
    return float(-np.mean(Y * np.log(q) + (1 - Y) * np.log1p(-q)))


def column_moments(X: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean (D,) and standard deviation (D,) of X (N, D), in float64, by blocks of rows.

    Two passes, so that columns far from zero lose no digits. A column that only varies by
    rounding gets the deviation 0: it must not be blown up.
    """
    mean, square = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    # Row after row in memory: the order of a sum, and so its rounding, must not depend on X's.
    for rows in row_blocks(X):
        mean += np.ascontiguousarray(X[rows], dtype=np.float64).sum(axis=0) / len(X)
    for rows in row_blocks(X):
        square += np.square(np.ascontiguousarray(X[rows]) - mean).sum(axis=0) / len(X)
    spread = np.sqrt(square)
    return mean, np.where(spread > 1e-7 * np.maximum(np.abs(mean), 1.0), spread, 0.0)


def inverse(spread: Floats) -> npt.NDArray[np.float64]:
    """1 / spread, and 0 for columns that do not vary."""
    varies = spread > 0
    return np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0)


def check_widths(widths: Sequence[int] | None, n_features: int) -> tuple[int, ...]:
    """The widths of the blocks side by side; one block when None.

    Raises:
        MismatchError: when they do not sum to the number of features.
    """
    found = (n_features,) if widths is None else tuple(int(width) for width in widths)
    if min(found, default=0) < 1 or sum(found) != n_features:
        raise MismatchError(
            f"The widths {found} of the feature blocks must be positive and sum to the "
            f"{n_features} features of the fit."
        )
    return found


def check_validation(validation: Validation | None, n_features: int) -> Validation | None:
    """Validate examples held back from a fit.

    Raises:
        DataError: see `check_fit`.
        MismatchError: when they have another width than the fit.
    """
    if validation is None:
        return None
    X, Y, _ = check_fit(validation.X, validation.Y, None)
    check_width(X, n_features)
    return Validation(X=X, Y=Y)


def varies(X: Floats) -> bool:
    """Whether any feature of X (N, D) takes two values."""
    return bool(np.ptp(X, axis=0).any())


def lay_out(holder: object, *names: str) -> None:
    """Make arrays of a frozen object contiguous, as stored ones are: loading changes no bit."""
    for name in names:
        object.__setattr__(holder, name, np.ascontiguousarray(getattr(holder, name)))


def read_header(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Parse the JSON header among an estimator's verified files.

    Raises:
        DataError: when it is missing or no JSON object.
    """
    try:
        header = parse_json(files[name])
    except (KeyError, ValueError) as error:
        raise DataError(f"{name} is missing or is not JSON: {error}.") from error
    if not isinstance(header, dict):
        raise DataError(f"{name} must hold a JSON object.")
    return header


def read_tensors(
    content: bytes, name: str, *, minus_infinite: Collection[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """The tensors of verified safetensors, of whose numbers each is finite.

    Args:
        content: of the file.
        name: of the file, for messages.
        minus_infinite: tensors in which -inf is a number like others: log-odds of what never is.

    Raises:
        DataError: when it holds no tensors, or one that is not finite; the message names it.
    """
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{name} does not hold tensors of NumPy's types: {error}.") from error
    for key, tensor in tensors.items():
        if tensor.dtype.kind not in "fiub":
            raise DataError(f"{name}: the tensor {key!r} holds {tensor.dtype}, and no numbers.")
        fine = np.isfinite(tensor)
        if key in minus_infinite:
            fine |= np.isneginf(tensor)
        if not fine.all():
            raise DataError(
                f"{name}: {int((~fine).sum())} numbers of the tensor {key!r} are NaN or infinite, "
                "so that its router is not loaded. Train it again."
            )
    return tensors
