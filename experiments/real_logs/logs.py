"""Finds oracle logs in a folder and gives each one features.

A log is a folder below the one given that holds

- a table (CSV, TSV, JSON Lines, Parquet) that `m3router import table` reads,
- BlindTest's ``oracle.jsonl`` with its images: a log for each model, or
- a run folder with ``log/``, and ``features/`` if it has its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3router.data.errors import DataError
from m3router.data.importers.blindtest import FILE as BLINDTEST
from m3router.data.importers.blindtest import read_blindtest
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST
from m3router.router.features.table import FeatureTable
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import featurize_stage, import_stage

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
WITH_IMAGES, WITHOUT = ("image", "question", "cheap"), ("question", "cheap")


@dataclass(frozen=True, kw_only=True, eq=False)
class RealLog:
    """A log, complete examples only, with its features in the same order.

    Attributes:
        name: of its folder.
        log: with what every answer really cost.
        expected: the same log, each option at its mean cost: what is known before it is asked.
            Where a cost is the length of an answer, whoever decides by the real one knows already
            how long the model will think.
        features: of its examples.
    """

    name: str
    log: OracleLog
    expected: OracleLog
    features: FeatureTable

    def matrix(self, rows: np.ndarray) -> np.ndarray:
        """Features (n, D) of some rows."""
        return self.features.matrix(ids=[self.log.ids[row] for row in rows])


def find_logs(folder: Path, work: Path) -> Iterator[tuple[str, RealLog | str]]:
    """Every log below a folder by name, or in a sentence why it is none.

    Args:
        folder: holds the logs' folders.
        work: receives a run folder for each, with the imported log and its features.
    """
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        for name, reader in _readers(place):
            try:
                yield name, _read(name, reader, work / name.replace("/", "-"))
            except DataError as error:
                yield name, str(error)


@dataclass(frozen=True)
class _Source:
    """Where a log comes from: a table, BlindTest's folder and model, or a run folder."""

    path: Path
    kind: str
    model: str | None = None


def _readers(place: Path) -> Iterator[tuple[str, _Source]]:
    if (place / "log" / MANIFEST).is_file():
        yield place.name, _Source(place, "run")
    elif (place / BLINDTEST).is_file():
        models = {str(one).split("/", 1)[1] for one in read_blindtest(place).datasets}
        for model in sorted(models):
            yield f"{place.name}/{model}", _Source(place, "blindtest", model)
    else:
        tables = sorted(path for path in place.iterdir() if path.suffix in TABLES)
        for table in tables:
            name = place.name if len(tables) == 1 else f"{place.name}/{table.stem}"
            yield name, _Source(table, "table")


def _read(name: str, source: _Source, work: Path) -> RealLog:
    run = Run(source.path if source.kind == "run" else work)
    if source.kind == "table" and not (run.log_folder / MANIFEST).is_file():
        import_stage(run, "table", source.path)
    if source.kind == "blindtest" and not (run.log_folder / MANIFEST).is_file():
        import_stage(run, "blindtest", source.path, model=source.model)
    if not (run.features_folder / MANIFEST).is_file():
        if source.kind == "run":  # the given folder is only read
            OracleLog.read(run.log_folder).write(work / "log")
            run = Run(work)
        images = source.path if source.kind == "blindtest" else None
        featurize_stage(
            run,
            images=images,
            questions="hashed",
            feature_groups=WITH_IMAGES if images else WITHOUT,
        )
    log = run.log()
    features = run.features(log)
    log = log.require_complete("drop")
    return RealLog(
        name=name,
        log=log,
        expected=_at_mean_costs(log),
        features=features.align(list(log.ids)),
    )


def _at_mean_costs(log: OracleLog) -> OracleLog:
    frame = log.frame
    frame["cost"] = frame.groupby("scale")["cost"].transform("mean")
    return OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)
