"""ScaleRouter: a fitted estimator, the features it reads and the options it speaks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError, MismatchError
from m3router.data.paths import StrPath, as_path
from m3router.router.estimators import estimator_class
from m3router.router.estimators.base import Floats, GroupedEstimator, SufficiencyEstimator
from m3router.router.features.table import FeatureTable, table_of
from m3router.router.monitoring.familiarity import FILES as FAMILIARITY
from m3router.router.monitoring.familiarity import Familiarity
from m3router.router.policies.expected_costs import ExpectedCosts
from m3router.router.sealed_files import (
    SEAL,
    check_entries,
    content_hash,
    read_files,
    read_sealed,
    write_files,
)
from m3router.router.sealed_files import write_sealed as _write_sealed
from m3router.router.training.held_out import FILE as HELD_OUT
from m3router.router.training.held_out import HeldOut
from m3router.router.training.probability_calibration import JOINT, NONE, Calibration

FILE = "router.json"
KIND = "router"
Datasets = Literal["told", "recognised"]
TOLD: Datasets = "told"
RECOGNISED: Datasets = "recognised"
DATASETS = "datasets"
"""Key of a router's metadata: whether it is told which dataset a question is from."""

SCHEMA = 4  # 1 has no calibration, 2 no joint one, 3 no expected costs; routers without are still
# written as those


@dataclass(frozen=True, kw_only=True, repr=False)
class ScaleRouter:
    """P(correct at every option | features), without any price: a `Policy` decides.

    Attributes:
        estimator: fitted on the blocks side by side.
        estimator_name: its name in `m3router.router.estimators.ESTIMATORS`, or the class of a
            classifier that was given to `train_router`.
        blocks: name -> width of the feature blocks it reads, in the order of its columns.
        options: names of the options (scales), cheapest first.
        cost_unit: unit of the costs that belong to the options, such as "visual tokens".
        metadata: how it was trained (log, features, split, seed), JSON-able.
        calibration: corrects what the estimator says, option by option.
        expected_costs: what the options are expected to cost where nobody can know it before an
            answer; None where the encoding that the router reads says it exactly.
        origin: where on the hub it is from, `owner/name@commit`; "" for elsewhere.
        held_out: what it thought of its own training examples before it was fitted on them; None
            where it was not fitted on the tune split. Stays with the run: it is not published.
        familiarity: what the images looked like that it was trained on; None where it reads nothing
            of an image, there were too few, or it was trained before that was kept.
    """

    estimator: SufficiencyEstimator
    estimator_name: str
    blocks: Mapping[str, int]
    options: tuple[str, ...]
    cost_unit: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    expected_costs: ExpectedCosts | None = field(default=None, compare=False, repr=False)
    origin: str = field(default="", compare=False)
    held_out: HeldOut | None = field(default=None, compare=False, repr=False)
    familiarity: Familiarity | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        """What it is, what it reads and what it chooses between."""
        blocks = ", ".join(f"{name}: {width}" for name, width in self.blocks.items())
        return (
            f"ScaleRouter({self.estimator_name}, features {{{blocks}}}, options "
            f"{list(self.options)}, fingerprint {self.fingerprint[:12]})"
        )

    @property
    def told(self) -> bool:
        """Whether it was trained being told which dataset each question is from."""
        return self.metadata.get(DATASETS) == TOLD

    @property
    def reads_own_model(self) -> bool:
        """Whether the model that answered the log made the features, and no encoder beside it."""
        revision = str(self.metadata.get("log", {}).get("revision", ""))[:16]
        source = str(self.metadata.get("features", {}).get("source", ""))
        return bool(revision) and source.rpartition("@")[2] == revision

    def predict(
        self,
        features: FeatureTable | Mapping[str, npt.ArrayLike] | npt.NDArray[Any],
        *,
        datasets: Sequence[str] | npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Probabilities (N, K) that each option answers each example correctly.

        This is the way without a pipeline: nothing but arrays goes in and comes out.

        Args:
            features: of the examples: a table, block name -> array (N, d), or one array (N, d) for
                a router that reads one block.
            datasets: (N,) which dataset each is from, for a router that is told; where nobody says,
                it is recognised in the features.

        Raises:
            MismatchError: when the table lacks a block, has it at another width, or comes from
                another source than the router was trained on.
        """
        if not isinstance(features, FeatureTable):
            features = table_of(self._by_block(features))
        needed = dict(self.blocks)
        found = {name: features.widths.get(name) for name in needed}
        if found != needed:
            raise MismatchError(
                f"The router reads the feature blocks {needed}, but the table has "
                f"{features.widths}. Compute the features that the router was trained on."
            )
        trained_on = self.metadata.get("features", {}).get("source")
        source = features.metadata.get("source")
        if None not in (trained_on, source) and trained_on != source:
            raise MismatchError(
                f"The router was trained on features of {trained_on!r}, but the table was "
                f"computed by {source!r}."
            )
        X = features.matrix(list(needed))
        if self.told and isinstance(self.estimator, GroupedEstimator):
            names = None if datasets is None else np.asarray(datasets).astype(str)
            return self.calibration.apply(self.estimator.predict_told(X, names))
        return self.calibration.apply(self.estimator.predict(X))

    def _by_block(self, features: Any) -> Mapping[str, npt.ArrayLike]:
        """Arrays by the blocks they are."""
        if isinstance(features, Mapping):
            return features
        if isinstance(features, np.ndarray) and len(self.blocks) == 1:
            return dict.fromkeys(self.blocks, features)
        raise MismatchError(
            f"The router reads the feature blocks {dict(self.blocks)}: give a FeatureTable, or an "
            f"array (N, d) for each by its name, not {type(features).__name__}."
        )

    def predict_one(self, blocks: Mapping[str, Floats]) -> npt.NDArray[np.float64]:
        """Probabilities (K,) for one example given as block name -> vector (d,).

        Raises:
            MismatchError: when a block is missing or has another width.
            DataError: when a feature is not finite.
        """
        try:
            parts = [blocks[name] for name in self.blocks]
        except KeyError as error:
            raise MismatchError(
                f"The router reads the feature blocks {dict(self.blocks)}, but got "
                f"{sorted(blocks)}: {error} is missing."
            ) from error
        for (name, width), part in zip(self.blocks.items(), parts, strict=True):
            if part.shape != (width,):
                raise MismatchError(
                    f"The router reads the block {name!r} with shape ({width},), got {part.shape}."
                )
        x = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self.calibration.apply(self.estimator.predict_one(x))

    @property
    def model(self) -> str:
        """Name of the model whose log it was trained on; "" where that is not known."""
        return str(self.metadata.get("log", {}).get("model", ""))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything the router is; also the seal of its router.json."""
        return content_hash(self._payload(self.estimator.hashes()))

    def check_options(self, options: Sequence[str], *, of: str) -> None:
        """Refuse a log, model or policy with other options.

        Raises:
            MismatchError: naming both sides; `of` says what the other side is.
        """
        if tuple(options) != self.options:
            raise MismatchError(
                f"The router chooses between {', '.join(self.options)}, but {of} has "
                f"{', '.join(map(str, options))}."
            )

    def write(self, folder: StrPath) -> None:
        """Write the estimator's files, then router.json, which holds their hashes.

        Raises:
            DataError: when the estimator cannot be saved: a classifier of scikit-learn's.
        """
        folder = as_path(folder)
        files = self.estimator.dump()
        (folder / HELD_OUT).unlink(missing_ok=True)
        if self.held_out is not None:
            self.held_out.write(folder)
        for name in FAMILIARITY:
            (folder / name).unlink(missing_ok=True)
        if self.familiarity is not None:
            self.familiarity.write(folder, router=self.fingerprint)
        hashes = write_files(folder, files)
        _write_sealed(folder / FILE, self._payload(hashes))

    @classmethod
    def read(cls, folder: StrPath) -> ScaleRouter:
        """Read what `write` wrote; every byte is verified before it is parsed.

        Raises:
            DataError: when a part is missing, cut short, edited or of a newer schema.
        """
        folder = as_path(folder)
        payload = read_sealed(folder / FILE, kind=KIND, schema=SCHEMA)
        try:
            names, widths = payload["blocks"], payload["widths"]
            parts = {
                "estimator_name": payload["estimator"],
                "blocks": dict(zip(names, widths, strict=True)),
                "options": tuple(payload["options"]),
                "cost_unit": payload["cost_unit"],
                "metadata": payload["metadata"],
            }
            check_entries(cls, parts)
            kind = estimator_class(payload["estimator"])
            router = cls(
                estimator=kind.restore(read_files(folder, payload["files"])),
                **parts,
                calibration=Calibration.of_payload(payload["calibration"])
                if "calibration" in payload
                else Calibration(),
                expected_costs=ExpectedCosts.of_payload(
                    payload["expected_costs"], options=len(payload["options"])
                )
                if "expected_costs" in payload
                else None,
                familiarity=Familiarity.read(
                    folder, router=payload[SEAL], blocks=dict(zip(names, widths, strict=True))
                ),
            )
            router._check_answer()
        except KeyError as error:
            raise DataError(f"{folder / FILE} lacks the entry {error}.") from error
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise DataError(
                f"{folder / FILE} does not describe a router: {error}. Train it again."
            ) from error
        except DataError as error:
            raise DataError(f"The router in {folder} cannot be used: {error}") from error
        return router

    def _check_answer(self) -> None:
        """Let it speak once: parts that do not fit each other show here, not at a question.

        Raises:
            DataError: when it does not give each option a probability.
        """
        width, k = sum(self.blocks.values()), len(self.options)
        if min(self.blocks.values(), default=0) < 1 or width != self.estimator.n_features_ or not k:
            raise DataError(
                f"its blocks {dict(self.blocks)} are not the {self.estimator.n_features_} features "
                "of its estimator, or it has no options. Train it again."
            )
        with np.errstate(all="ignore"):
            p = self.predict_one({name: np.zeros(d) for name, d in self.blocks.items()})
        if np.shape(p) != (k,) or not np.all((p >= 0) & (p <= 1)):
            raise DataError(
                f"its parts do not give each of the {k} options a probability. Train it again."
            )

    def _payload(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        plain = self.calibration.method == NONE
        schema = {NONE: 1, JOINT: 3}.get(self.calibration.method, 2)
        expected = self.expected_costs
        return {
            "kind": KIND,
            "schema": schema if expected is None else SCHEMA,
            **({} if plain else {"calibration": self.calibration.payload()}),
            **({} if expected is None else {"expected_costs": expected.payload()}),
            "estimator": self.estimator_name,
            "blocks": list(self.blocks),  # a list keeps the order of the columns
            "widths": list(self.blocks.values()),
            "options": list(self.options),
            "cost_unit": self.cost_unit,
            "metadata": dict(self.metadata),
            "files": dict(hashes),
        }
