"""How unlike the images that a router was trained on a single image is: a conformal p-value.

Notation for shapes: d features of an image, C coordinates, m reference images, n held-out images.

The test for drift (:mod:`m3router.router.monitoring.drift`) compares many images with many; this
one judges a single one. An image's score is how similar it is to images of the fit split, on
average, by a Gaussian kernel:

    s(x) = 1 / m * sum_i exp(-|z(x) - z_i|^2 / w)

This is the mean embedding of the reference images at x, the first half of the witness function of
the maximum mean discrepancy (Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012, section 2.3).
z(x) are the first principal components of the standardised image features, each with deviation 1,
and beside them how far x lies from all that they can say; w is the median of |z_i - z_j|^2. Scaling
and components are learned on some images of the fit split, the reference images are others of it.

Features of different kinds are `Aspect`s of an image, each with an s of its own: what an encoder
sees by channel, how much detail there is, cues of the pixels. What counts is the one that is least
like what it is on the reference images: each log s is less its median there, in units of how far
below that the lowest twentieth begins.

Scores of held-out images, of which nothing was learned here, turn that into a p-value,

    p(x) = (1 + |{held-out images whose score is at most that of x}|) / (n + 1),

so that an image drawn like the held-out ones has p(x) <= u with probability at most u, for every u
(Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, chapter 2; Laxhammar and
Falkman, Conformal prediction for distribution-independent anomaly detection in streaming vehicle
data, 2010).

What it does not say:

- The probability is over the draw of the held-out images, too, and of one image by itself: of
  ordinary images, one in a hundred has p <= 1 %.
- The smallest p-value is 1 / (n + 1): with fewer than 99 held-out images, none is as low as 1 %.
- A high p-value is no promise. An image can be new in what these features do not show, and a
  question can be new. How large an image is does not count: what options cost depends on it, see
  :mod:`m3router.router.policies.expected_costs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.special import logsumexp

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import Gaps, part_rows
from m3router.data.splits.split import Split
from m3router.router.estimators.base import Floats
from m3router.router.features.looks import DETAIL, LOOKS
from m3router.router.features.table import FeatureTable
from m3router.router.monitoring.drift import COMPONENTS, one_each
from m3router.router.sealed_files import read_files, read_sealed, write_files, write_sealed

KIND, SCHEMA = "familiarity", 1
FILE, ARRAYS = "familiarity.json", "familiarity.safetensors"
FILES = (FILE, ARRAYS)
REFERENCES = 512
"""Most reference images."""
FEWEST = 15
"""Images to learn from, of reference, and held out; with fewer of one there is no score."""
FLAT = 1e-3
"""Share of the usual deviation that a feature or component counts as having if it has less."""
LEAST = 1e-6
"""Detail below which there is none: its logarithm is compared."""

Array = npt.NDArray[np.float64]
Columns = npt.NDArray[np.intp]
Parts = Mapping[str, npt.NDArray[np.float32]]
SINGLE = ("mean", "scale", "axes", "spread", "references")
OTHERS = ("columns", "numbers")


@dataclass(frozen=True, kw_only=True, eq=False)
class Aspect:
    """Features that are compared together.

    Attributes:
        group: Their feature group.
        kind: Which of its features; of "detail", logarithms are compared.
        columns: Their places in the group (d,).
        mean: Of each feature (d,).
        scale: 1 / deviation of each (d,).
        axes: Principal components (d, C - 1), orthonormal.
        spread: Deviation of the components, and of the distance from all that they can say (C,).
        references: Coordinates of reference images (m, C).
        numbers: w; the median of log s of the reference images, each compared with the others; and
            how far below that their lowest twentieth begins (3,).
    """

    group: str
    kind: str
    columns: Columns
    mean: Array
    scale: Array
    axes: Array
    spread: Array
    references: Array
    numbers: Array

    @classmethod
    def learn(
        cls, group: str, kind: str, columns: Columns, learned: Floats, references: Floats
    ) -> Aspect:
        """Learn what is usual.

        Args:
            group: Name of the feature group.
            kind: See above.
            columns: See above.
            learned: Blocks of images (N, width) that coordinates are learned on.
            references: Of others (m, width), that images are compared with.
        """
        X = _read(learned, columns, kind)
        mean, deviation = X.mean(0), X.std(0)
        least = FLAT * np.maximum(np.abs(X).max(0), np.median(deviation))
        kept = np.maximum(deviation, least)
        scale = np.divide(1.0, kept, out=np.zeros_like(kept), where=kept > 0)
        scaled = (X - mean) * scale
        _, strength, rows = np.linalg.svd(scaled, full_matrices=False)
        most = min(COMPONENTS - 1, len(X) // 4)
        there = strength[:most] > FLAT * strength[0]
        axes = rows[:most][there].T
        rest = np.linalg.norm(scaled - scaled @ axes @ axes.T, axis=1).std()
        spread = np.append(strength[:most][there] / np.sqrt(len(X)), rest)
        made = cls(
            group=group,
            kind=kind,
            columns=columns,
            mean=mean,
            scale=scale,
            axes=axes,
            spread=np.maximum(spread, FLAT * max(spread[0], 1.0)),
            references=np.zeros((0, len(spread))),
            numbers=np.ones(3),
        )
        known = np.stack([made.coordinates(one) for one in references])
        away = known[:, None] - known
        squared = np.einsum("mnc,mnc->mn", away, away)
        others = ~np.eye(len(squared), dtype=bool)
        w = float(np.median(squared[others])) or 1.0
        own = logsumexp(np.where(others, -squared / w, -np.inf), axis=1) - np.log(len(known) - 1)
        low, usual = np.quantile(own, [0.05, 0.5])
        return replace(made, references=known, numbers=np.array([w, usual, max(usual - low, FLAT)]))

    def coordinates(self, block: npt.NDArray[Any]) -> Array:
        """Where an image lies (C,), by its part of the feature group (width,)."""
        scaled = (_read(block, self.columns, self.kind) - self.mean) * self.scale
        components = scaled @ self.axes
        rest = np.linalg.norm(scaled - self.axes @ components)
        return np.asarray(np.append(components, rest) / self.spread)

    def score(self, block: npt.NDArray[Any]) -> float:
        """How like the reference images an image is; 0 for the median one, less for unlike ones."""
        away = self.references - self.coordinates(block)
        width, usual, below = self.numbers
        squared = np.einsum("mc,mc->m", away, away)
        nearest = squared.min()  # kept out of the exponentials, which would be 0 far away
        similar = np.log(np.exp((nearest - squared) / width).mean()) - nearest / width
        return float((similar - usual) / below)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """To be stored."""
        return {
            "columns": self.columns.astype(np.int32),
            "numbers": self.numbers,
            **{n: np.ascontiguousarray(getattr(self, n), dtype=np.float32) for n in SINGLE},
        }

    @classmethod
    def of_arrays(cls, group: str, kind: str, found: Mapping[str, npt.NDArray[Any]]) -> Aspect:
        """What `arrays` gave.

        Raises:
            KeyError: Where one is missing.
            ValueError: Where they do not belong together.
        """
        single = {name: np.asarray(found[name], dtype=np.float64) for name in SINGLE}
        d, c = single["axes"].shape
        m = len(single["references"])
        shapes = {"mean": (d,), "scale": (d,), "axes": (d, c), "spread": (c + 1,)}
        shapes |= {"references": (m, c + 1), "columns": (d,), "numbers": (3,)}
        for name, wanted in shapes.items():
            if found[name].shape != wanted or not np.isfinite(found[name]).all():
                raise ValueError(f"{name} of {group} {kind} is misshapen or not finite")
        if not m or not (single["spread"] > 0).all() or not (found["numbers"][[0, 2]] > 0).all():
            raise ValueError(f"{group} {kind} has no references, or no spread")
        return cls(
            group=group,
            kind=kind,
            columns=found["columns"].astype(np.intp),
            numbers=np.asarray(found["numbers"], dtype=np.float64),
            **single,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Familiarity:
    """What images are compared with: numbers, but neither images nor questions.

    Attributes:
        aspects: Of an image, at least one.
        scores: Of held-out images, ascending (n,).
    """

    aspects: tuple[Aspect, ...]
    scores: Array

    def of(self, parts: Parts) -> float:
        """The p-value of an image, in (0, 1].

        Args:
            parts: Feature group to what the image gives of it, float32.
        """
        as_unlike = int(np.searchsorted(self.scores, self.score(parts), side="right"))
        return (1 + as_unlike) / (1 + len(self.scores))

    def score(self, parts: Parts) -> float:
        """How like the reference images an image is, in the aspect in which it is least so."""
        return min(one.score(parts[one.group]) for one in self.aspects)

    def write(self, folder: Path, *, router: str) -> None:
        """Write `FILES` beside the router of that fingerprint."""
        arrays = {"scores": self.scores}
        for number, one in enumerate(self.aspects):
            arrays |= {f"{number}.{name}": array for name, array in one.arrays().items()}
        payload = {
            "kind": KIND,
            "schema": SCHEMA,
            "router": router,
            "aspects": [[one.group, one.kind] for one in self.aspects],
            "files": write_files(folder, {ARRAYS: save(arrays)}),
        }
        write_sealed(folder / FILE, payload)

    @classmethod
    def read(cls, folder: Path, *, router: str, blocks: Mapping[str, int]) -> Familiarity | None:
        """Read what `write` wrote; None where there is none.

        Args:
            folder: Of the router.
            router: Its fingerprint.
            blocks: Name to width of the feature blocks that it reads.

        Raises:
            DataError: When a part is missing, cut short, edited or of a newer schema.
            MismatchError: When it belongs to another router.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        payload = read_sealed(path, kind=KIND, schema=SCHEMA)
        if payload.get("router") != router:
            raise MismatchError(
                f"{path} belongs to another router than lies beside it. Train the router again. "
                f"({str(payload.get('router'))[:12]}, beside it {router[:12]})"
            )
        try:
            arrays = load(read_files(folder, {ARRAYS: payload["files"][ARRAYS]})[ARRAYS])
            aspects = []
            for number, (group, kind) in enumerate(payload["aspects"]):
                own = {name: arrays[f"{number}.{name}"] for name in (*SINGLE, *OTHERS)}
                aspects.append(Aspect.of_arrays(group, kind, own))
                last = max(one.max() for one in LOOKS[group](blocks[group], 0).values())
                if not (own["columns"] >= 0).all() or not (own["columns"] <= last).all():
                    raise ValueError(f"{group} has no such columns")
            scores = np.asarray(arrays["scores"], dtype=np.float64)
            if not aspects or scores.ndim != 1 or not np.isfinite(scores).all():
                raise ValueError("there are no aspects, or scores that are none")
        except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
            raise DataError(f"{path} is damaged: {error}. Train the router again.") from error
        return cls(aspects=tuple(aspects), scores=scores)


def _read(block: npt.NDArray[Any], columns: Columns, kind: str) -> Array:
    """The features (..., d) of a block (..., width)."""
    found = np.asarray(block[..., columns], dtype=np.float64)
    return np.log(np.maximum(found, LEAST)) if kind == DETAIL else found


def learn(
    learned: Parts, references: Parts, held_out: Parts, *, scales: int = 0
) -> Familiarity | None:
    """Learn what images look like.

    Args:
        learned: Feature group to blocks of images (N, width) that coordinates are learned on.
        references: Of others (m, width), that images are compared with.
        held_out: Of others again (n, width), drawn like those that will come.
        scales: Of what encoded the images; 0 where that is not known.

    Returns:
        None where no group says what an image looks like.
    """
    aspects = []
    for name, block in learned.items():
        looks = LOOKS[name](block.shape[1], scales) if name in LOOKS else {}
        for kind, columns in looks.items():
            made = Aspect.learn(name, kind, columns, block, references[name])
            aspects.append(Aspect.of_arrays(name, kind, made.arrays()))  # as it will be read again
    if not aspects:
        return None
    known = Familiarity(aspects=tuple(aspects), scores=np.zeros(0))
    n = len(next(iter(held_out.values())))
    scores = [
        known.score({name: block[row] for name, block in held_out.items()}) for row in range(n)
    ]
    return replace(known, scores=np.sort(scores))


def familiarity_of(
    log: OracleLog,
    features: FeatureTable,
    split: Split,
    *,
    blocks: Iterable[str],
    gaps: Gaps,
    seed: int = 0,
) -> Familiarity | None:
    """Learn what the images of a log look like; one question of each image counts.

    Of the images of the fit split one third is learned from, one is the reference, and one is held
    out, together with those of the tune split. Policies are certified on images that take no part.

    Args:
        log: With the images.
        features: Of the log.
        split: Of the log.
        blocks: That a router reads; what is not among them is not known of images to come.
        gaps: See `m3router.data.log.parts.part_rows`.
        seed: Of the choice of images.

    Returns:
        None where none of the blocks says what an image looks like, or images are too few.
    """
    made: Mapping[str, Any] = features.metadata.get("blocks", {})
    names = [
        name
        for name in blocks
        if name in LOOKS and made.get(name, {}).get("made_with", {}).get("pictures", True)
    ]
    fit, tune = (part_rows(log, split, one, gaps=gaps) for one in ("fit", "tune"))
    images = [len(np.unique(log.groups[rows])) for rows in (fit, tune)]
    if images[0] < 3 * FEWEST:
        return None
    generator = np.random.default_rng(seed)
    fit = fit[one_each(log.groups[fit], generator)]
    tune = tune[one_each(log.groups[tune], generator)] if images[1] > 1 else tune[:0]
    third = len(fit) // 3
    references = fit[:third][:REFERENCES]
    held_out = np.concatenate([fit[third : 2 * third], tune])
    parts = []
    for rows in (fit[2 * third :], references, held_out):
        ids = [log.ids[row] for row in rows]
        parts.append({name: features.matrix([name], ids=ids) for name in names})
    return learn(*parts, scales=len(features.metadata.get("grid", ())))
