"""A scikit-learn classifier of the user's as an estimator: in memory, since no pickle is written.

Notation for shapes: N examples, D features, K options.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.estimators.base import (
    Floats,
    SufficiencyEstimator,
    Validation,
    check_fit,
    constant_columns,
    row_blocks,
)

FAILURES = (ValueError, TypeError, ArithmeticError, RuntimeError)
"""What scikit-learn raises for data or settings that a classifier cannot work with."""


class Classifier(Protocol):
    """What scikit-learn calls a classifier: `fit(X, y)` and `predict_proba(X)`."""

    def fit(self, X: Any, y: Any) -> Any:
        """Learn from X (N, D) and labels."""
        ...

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes."""
        ...


class ClassifierEstimator(SufficiencyEstimator):
    """P(correct) by clones of a classifier, one per option whose score varies.

    A classifier of several outputs only (scikit-learn's `MultiOutputClassifier`,
    `ClassifierChain`) is cloned once, for all these options. The classifier itself is never
    fitted. Where it has a `random_state` that is None, its clones get the seed.

    Scores between 0 and 1 are two rows, right with weight y and wrong with weight 1 - y; they, and
    weights, need a classifier whose `fit` takes `sample_weight` (in a `Pipeline`, whose last step
    does).

    It cannot be saved: scikit-learn's own way is pickle, which runs whatever a file says when it is
    read. A router of it works in memory for all that a router can be asked.

    Args:
        classifier: with `fit` and `predict_proba`, not fitted or fitted.
        seed: for a `random_state` that is None.
    """

    def __init__(self, *, classifier: Classifier, seed: int = 0) -> None:
        self.classifier = classifier
        self.seed = seed

    @property
    def name(self) -> str:
        """The classifier's class."""
        return type(self.classifier).__name__

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The classifier's parameters; of those that JSON does not hold, the class."""
        found = _parameters(self.classifier)
        plain = {
            key: value if _is_plain(value) else type(value).__name__ for key, value in found.items()
        }
        return {"classifier": self.name, "seed": self.seed, **plain}

    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Fit on X (N, D) and Y (N, K); `validation` is not needed, nothing stops early.

        Raises:
            DataError: see `SufficiencyEstimator.fit`; also when the classifier has no `fit` or
                `predict_proba`, takes no weights where they are needed, or cannot be fitted.
        """
        check_classifier(self.classifier)
        X, Y, weights = check_fit(X, Y, weights)
        constant, self.base_ = constant_columns(Y, weights)
        self.active_ = np.flatnonzero(~constant)
        self.together_ = len(self.active_) > 0 and _of_several_outputs(self.classifier)
        options = [self.active_] if self.together_ else self.active_[:, None]
        self.fitted_ = [(some, self._fitted(X, Y[:, some], weights, some)) for some in options]
        self.n_features_ = X.shape[1]
        self.digest_ = self._digest(X, Y, weights)
        return self

    def dump(self) -> dict[str, bytes]:
        """Refuse: see the class.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"A router whose estimator is {self.name} cannot be saved: scikit-learn stores its "
            "models as pickle, which runs whatever the file says, and this project writes and "
            "reads none. Use it in memory, or train one of the estimators that can be saved "
            "(estimator='blend', 'lightgbm', ...)."
        )

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """Refuse: nothing was ever saved.

        Raises:
            DataError: always.
        """
        raise DataError("A scikit-learn classifier is not saved, so there is nothing to read.")

    def hashes(self) -> dict[str, str]:
        """SHA-256 of settings, of what was fitted on, and of what is said of that."""
        self._check_fitted()
        return {"in memory": self.digest_}

    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        p = np.tile(self.base_, (len(X), 1))
        # Where features are float32, scikit-learn may work in it: one row then gives something
        # else than the batch that it is in.
        X = np.asarray(X, dtype=np.float64)
        for options, model in self.fitted_:
            if len(X):
                p[:, options] = self._probabilities(model, X, len(options))
        return p

    def _fitted(self, X: Floats, Y: Floats, weights: Floats, options: npt.NDArray[np.intp]) -> Any:
        from sklearn.base import clone  # slow to import

        model = clone(self.classifier, safe=False)
        unseeded = [
            key
            for key, value in _parameters(model).items()
            if value is None and key.split("__")[-1] == "random_state"
        ]
        if unseeded:
            model.set_params(**dict.fromkeys(unseeded, self.seed))
        rows, labels, share = _as_labels(Y)
        labels = labels if self.together_ else labels[:, 0]
        share = share * weights[rows]
        given = {} if np.all(share == share[0]) else {self._weight_parameter(model): share}
        which = f"option {options[0]}" if len(options) == 1 else f"the options {options.tolist()}"
        try:
            model.fit(X if len(rows) == len(X) else X[rows], labels, **given)
        except FAILURES as error:
            raise DataError(
                f"{self.name} cannot be fitted to {which} on {len(X)} examples: {error}"
            ) from error
        return model

    def _weight_parameter(self, model: Any) -> str:
        """The name of the weights in `fit`, "step__sample_weight" in a pipeline.

        Raises:
            DataError: where it takes none.
        """
        steps = getattr(model, "steps", None)
        last = steps[-1][1] if steps else model
        takes = inspect.signature(last.fit).parameters
        passed_on = any(one.kind is one.VAR_KEYWORD for one in takes.values())  # GridSearchCV
        if "sample_weight" not in takes and not passed_on:
            raise DataError(
                f"{type(last).__name__} takes no sample_weight in its fit, which scores between 0 "
                "and 1 and weights of examples need. Use a classifier that takes it, or scores of "
                "0 and 1."
            )
        return f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"

    def _probabilities(self, model: Any, X: Floats, outputs: int) -> npt.NDArray[np.float64]:
        """P(class 1) of every output, (N, outputs).

        Raises:
            DataError: when `predict_proba` fails or gives something else.
        """
        try:
            found = model.predict_proba(X)
        except FAILURES as error:
            raise DataError(f"predict_proba of {self.name} failed: {error}") from error
        chain = self.together_ and not isinstance(found, list)
        # A column per class, 0 and 1; a list of such for several outputs, or a column for each.
        wanted = (len(X), outputs if chain else 2)
        parts = [np.asarray(part) for part in (found if isinstance(found, list) else [found])]
        if any(part.shape != wanted for part in parts):
            raise DataError(
                f"predict_proba of {self.name} must give an array of shape {wanted}, one column "
                f"for each of the classes 0 and 1; it gave {[part.shape for part in parts]}."
            )
        p = parts[0] if chain else np.stack([part[:, 1] for part in parts], axis=1)
        if not np.all((p >= 0) & (p <= 1)):
            raise DataError(f"predict_proba of {self.name} gave numbers outside of [0, 1].")
        return np.asarray(p, dtype=np.float64)

    def _digest(self, X: Floats, Y: Floats, weights: Floats) -> str:
        # A fit has no bytes to hash. Settings and data alone would not tell apart two fits of a
        # classifier that draws at random, so what it says of its own examples is hashed as well.
        found = hashlib.sha256(json.dumps(self.hyperparameters, sort_keys=True).encode())
        for array in (Y, weights):
            found.update(np.ascontiguousarray(array).tobytes())
        for rows in row_blocks(X):
            found.update(np.ascontiguousarray(X[rows]).tobytes())
            found.update(np.ascontiguousarray(self._predict(X[rows])).tobytes())
        return found.hexdigest()


def check_classifier(classifier: object) -> None:
    """Refuse what is not a classifier.

    Raises:
        DataError: saying what it lacks.
    """
    name = type(classifier).__name__
    if isinstance(classifier, type):
        raise DataError(
            f"An estimator is a name or an object, but {classifier.__name__} is a class. Write "
            f"{classifier.__name__}()."
        )
    if isinstance(classifier, SufficiencyEstimator):
        raise DataError(
            f"{name} is one of this package's own estimators: give its name, and its settings as "
            "`hyperparameters`."
        )
    missing = [one for one in ("fit", "predict_proba") if not hasattr(classifier, one)]
    if missing:
        raise DataError(
            f"An estimator is a name, or an object with fit and predict_proba; {name} has no "
            f"{' and no '.join(missing)}. A classifier of scikit-learn without predict_proba can "
            "be wrapped: sklearn.calibration.CalibratedClassifierCV(...)."
        )


def _as_labels(Y: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Rows (n,), labels (n, O) and shares (n,) that stand for scores (N, O) in [0, 1].

    Every example is one row where its scores are 0 or 1. Otherwise it is one row per way of
    rounding them, with the probability of that way if the options were independent: for one
    option, right with share y and wrong with share 1 - y.
    """
    n, outputs = Y.shape
    rows, labels, share = np.arange(n), np.zeros((n, 0), dtype=np.intp), np.ones(n)
    for column in range(outputs):
        y = Y[rows, column]
        soft = (y > 0) & (y < 1)
        rows = np.concatenate([rows, rows[soft]])
        labels = np.concatenate([labels, labels[soft]])
        share = np.concatenate([share * np.where(soft, y, 1.0), share[soft] * (1 - y[soft])])
        label = np.concatenate([(y > 0).astype(np.intp), np.zeros(int(soft.sum()), dtype=np.intp)])
        labels = np.column_stack([labels, label])
    return rows, labels, share


def _of_several_outputs(classifier: Any) -> bool:
    """Whether scikit-learn says that it does not take one output alone."""
    from sklearn.utils import get_tags  # slow to import

    steps = getattr(classifier, "steps", None)  # a pipeline does not say it of its last step
    try:
        return not get_tags(steps[-1][1] if steps else classifier).target_tags.single_output
    except (AttributeError, TypeError):  # an object that scikit-learn knows nothing of
        return False


def _parameters(classifier: Any) -> dict[str, Any]:
    return dict(classifier.get_params()) if hasattr(classifier, "get_params") else {}


def _is_plain(value: Any) -> bool:
    if isinstance(value, float):
        return bool(np.isfinite(value))
    return value is None or isinstance(value, bool | int | str)
