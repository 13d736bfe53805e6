"""Where a study is kept, and proof that it belongs to this run."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from m3router.data.errors import DataError, MismatchError
from m3router.router.tuning.objective import OBJECTIVES
from m3router.router.tuning.spaces import block_choices, start
from m3router.router.tuning.workers import retry_once

JOURNAL = "journal"
MADE_FROM = "made_from"
HEARTBEAT, GRACE = 60, 300  # seconds
PATIENCE = 10.0  # seconds to wait for the process that made a study to say what it is made from


class TrialSampler(BaseSampler):
    """Optuna's TPE, seeded anew by (seed, number of the trial).

    A search that was stopped goes on as if it had not been, and processes that share a study and
    a seed draw different settings, where one generator per process would draw equal ones.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self._sampler = TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed."""
        digest = hashlib.sha256(f"{self.seed}:{trial.number}".encode()).digest()
        self._sampler = TPESampler(seed=int.from_bytes(digest[:4], "big"))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The distributions that the wrapped sampler draws together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What the wrapped sampler draws together."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """One value, as the wrapped sampler draws it."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the wrapped sampler how a trial ended."""
        self._sampler.after_trial(study, trial, state, values)


def open_study(
    storage: str,
    *,
    name: str,
    journal: Path,
    made_from: Mapping[str, Any],
    seed: int,
) -> optuna.Study:
    """Make a study, or go on with it.

    Args:
        storage: "journal", or a database URL.
        name: of the study.
        journal: file for "journal".
        made_from: hashes and settings that must be the same for every trial, with "estimators"
            and "blocks".
        seed: of the sampler.

    Raises:
        DataError: when the storage cannot be opened or is damaged.
        MismatchError: when the study was made from something else, naming it.
    """
    opened = _open_storage(storage, journal)
    sampler = TrialSampler(seed=seed)
    try:
        study = optuna.create_study(
            directions=["maximize"] * len(OBJECTIVES),
            study_name=name,
            storage=opened,
            sampler=sampler,
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=opened, sampler=sampler)
    except ValueError as error:  # from Optuna's reading of the journal
        raise DataError(
            f"{journal} is damaged: {error}. Move it away and tune again; finished trials before "
            "the damage can be read with Optuna."
        ) from error
    else:
        _enqueue(study, made_from)
        study.set_user_attr(MADE_FROM, dict(made_from))
    _check(study, made_from)
    return study


def _enqueue(study: optuna.Study, made_from: Mapping[str, Any]) -> None:
    """Begin with every estimator's defaults on all blocks, so that nothing worse is chosen."""
    for estimator in made_from["estimators"]:
        blocks = block_choices(made_from["blocks"])[0]
        study.enqueue_trial({"estimator": estimator, "blocks": blocks, **start(estimator)})


def _check(study: optuna.Study, made_from: Mapping[str, Any]) -> None:
    began = time.monotonic()
    while (found := study.user_attrs.get(MADE_FROM)) is None:
        if time.monotonic() - began > PATIENCE:
            raise MismatchError(
                f"The study {study.study_name!r} does not say what it was made from: it is not "
                "one of `m3router tune`, or was killed as it began. Choose another --study."
            )
        time.sleep(0.1)
    other = [name for name in made_from if found.get(name) != made_from[name]]
    if other:
        sides = "; ".join(
            f"{name} {_short(found.get(name))} there, {_short(made_from[name])} here"
            for name in other
        )
        raise MismatchError(
            f"The study {study.study_name!r} was made from something else: {sides}. Its trials "
            "cannot be compared with new ones: give a new one another name with --study."
        )


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def _open_storage(storage: str, journal: Path) -> BaseStorage:
    if storage == JOURNAL:
        return _open_journal(journal)
    if "://" not in storage:
        raise DataError(
            f"A storage is {JOURNAL!r} or a database URL such as sqlite:///tuning.db, not "
            f"{storage!r}."
        )
    kind = storage.partition("://")[0]  # a message must not show the password in a URL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeats
            return RDBStorage(
                storage,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=retry_once,
            )
    except (ImportError, ValueError, StorageInternalError, SQLAlchemyError) as error:
        raise DataError(
            f"The {kind} database of --storage cannot be opened ({type(error).__name__}). Check "
            "the URL, that the database runs, and that its driver is installed."
        ) from error


def _open_journal(path: Path) -> JournalStorage:
    """Open a journal, after cutting away a last line that a killed process left torn.

    Optuna passes over such a line, but the next one would be appended to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path))
    try:
        lock.acquire()
        try:
            if path.is_file():
                content = path.read_bytes()
                whole = content.rfind(b"\n") + 1
                if whole < len(content):
                    with path.open("r+b") as file:
                        file.truncate(whole)
        finally:
            lock.release()
        return JournalStorage(JournalFileBackend(str(path), lock))
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. Move it away and tune again.") from error
