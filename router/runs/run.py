"""A run folder: where each stage keeps its files, and proof that they belong together.

Every stage records the SHA-256 of what it read. Whoever reads a stage's files checks that the
recorded inputs are the ones that lie in the folder now. A command opens a run once (`Run.opened`)
and hands it on: an open run reads, hashes and verifies each of its files once.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.files import PARQUET
from m3router.data.log.journal import JOURNAL
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import (
    COMMANDS,
    MANIFEST,
    atomic_write_bytes,
    library_versions,
    read_manifest,
    sha256_file,
    write_manifest,
)
from m3router.data.paths import StrPath, as_path
from m3router.data.plain_files import is_there, real_path
from m3router.data.registry import load, unknown_name
from m3router.data.splits.split import Split
from m3router.router.cascade.rule import Cascade, cascade_path
from m3router.router.evaluation_document import Evaluation
from m3router.router.features.examples import of_same_examples, without_featureless
from m3router.router.features.table import FILE as FEATURES_FILE
from m3router.router.features.table import FeatureTable
from m3router.router.policies.policy import Policy
from m3router.router.runs.notebook import run_card
from m3router.router.training.held_out import HeldOut
from m3router.router.training.scale_router import FILE as ROUTER_FILE
from m3router.router.training.scale_router import ScaleRouter

ARMS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "router": ("router", None),
    "image-only": ("router-image", ("image",)),
    "question-only": ("router-question", ("question",)),
}
"""Name -> (folder, feature blocks it reads; None for all)."""

MADE = {
    "train": "the router was trained",
    "calibrate": "the policies were calibrated",
    "evaluate": "the run was evaluated",
    "importance": "the report was written",
    "report": "the report was written",
    "learning-curve": "the study was made",
    "leave-one-out": "the study was made",
}
"""Stage -> what it did, in the middle of a sentence."""
MADE_AGAIN = {
    "log": "log was labelled or imported again",
    "features": "features were computed again",
    "split": "split was made again",
    "evaluation": "evaluation was made again",
}
"""Input -> what happened to it where it is another one now; all others are routers."""
MISSING = "missing"
"""In place of the hash of a file that is not there."""
MAKES = "`m3router label` or `m3router import` makes one"
LACKS = {"evaluate": "evaluation", "featurize": "features", "train": "router"}
"""Command -> what a run lacks before it."""

_READS_EVALUATIONS = "m3router.router.evaluation.documents:evaluation_in"
"""Evaluations know runs; a run asks for their reader by its name."""

BY_NAME = ("embedded", "fake")
"""Models that their name alone finds anywhere."""


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        root: the folder; need not exist yet.
    """

    root: Path

    def __init__(self, root: StrPath) -> None:
        """Name the folder, as a text or a path; nothing is read."""
        object.__setattr__(self, "root", as_path(root))

    def opened(self) -> OpenRun:
        """This run, to read each part of it once; an open run is itself."""
        return OpenRun(self.root)

    @property
    def log_folder(self) -> Path:
        """Folder of the oracle log."""
        return self.root / "log"

    @property
    def features_folder(self) -> Path:
        """Folder of the feature table."""
        return self.root / "features"

    @property
    def split_file(self) -> Path:
        """File of the split."""
        return self.root / "split.json"

    @property
    def policies_folder(self) -> Path:
        """Folder of the policies."""
        return self.root / "policies"

    @property
    def evaluation_folder(self) -> Path:
        """Folder of the evaluation."""
        return self.root / "evaluation"

    @property
    def report_folder(self) -> Path:
        """Folder of the report."""
        return self.root / "report"

    @property
    def published(self) -> bool:
        """Whether it holds a router and policies alone, as hubs do: nothing they were made from."""
        return not any(map(is_there, (self.log_folder, self.features_folder, self.split_file)))

    def arm(self, name: str = "router") -> Path:
        """Folder of the router, or of an ablation in `ARMS`."""
        return self.root / ARMS[name][0]

    def policy_file(self, name: str) -> Path:
        """File of a policy.

        Raises:
            DataError: when the name is not a plain file name.
        """
        if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
            raise DataError(
                f"A policy's name must be letters, digits, '-', '_' and '.', not {name!r}."
            )
        return self.policies_folder / f"{name}.json"

    def arms(self) -> list[str]:
        """The router and the ablations that were trained."""
        return [name for name in ARMS if is_there(self.arm(name) / MANIFEST)]

    def log(self, *, as_labelled: bool = False) -> OracleLog:
        """The oracle log; examples that can get no features are gaps unless `as_labelled`.

        Raises:
            DataError: when it is missing or damaged.
        """
        self.need(self.log_folder / MANIFEST, "label")
        log = OracleLog.read(self.log_folder, sha256=self.sha256)
        return log if as_labelled else without_featureless(log, self.features_folder)

    def features(self, log: OracleLog | None = None) -> FeatureTable:
        """The feature table of this log.

        Args:
            log: The run's, where it was read before; None reads it.

        Raises:
            DataError: when it is missing or damaged.
            MismatchError: when it was computed for other examples.
        """
        log = self.log() if log is None else log
        self.need(self.features_folder / MANIFEST, "featurize")
        table = FeatureTable.read(self.features_folder, sha256=self.sha256)
        ours, theirs = (one.metadata.get("examples_sha256") for one in (log, table))
        if None not in (ours, theirs) and ours != theirs:
            raise MismatchError(
                f"The features in {self.features_folder} were computed for other examples than the "
                f"log in {self.log_folder} holds. Compute those of this log: "
                f"`{self._command('featurize')}`. (Examples {str(theirs)[:12]}, in the log "
                f"{str(ours)[:12]})"
            )
        if not of_same_examples(table, log):
            raise MismatchError(
                f"{self.features_folder} was computed for other ids, questions or images than "
                f"{self.log_folder} holds. Compute the features of this log: "
                f"`{self._command('featurize')}`."
            )
        return table

    def router(self, arm: str = "router") -> ScaleRouter:
        """The router, or an ablation, after checking what it was trained on.

        Raises:
            DataError: when it is missing or damaged.
            MismatchError: when log, features or split changed since.
        """
        self.need(self.arm(arm) / MANIFEST, "train")
        self.verify(self.arm(arm), "train")
        folder = self.arm(arm)
        return replace(ScaleRouter.read(folder), held_out=HeldOut.read(folder))

    def split(self, log: OracleLog | None = None) -> Split:
        """The split, applied to the log.

        Args:
            log: The run's, where it was read before; None reads it.

        Raises:
            DataError: when it is missing or damaged.
            MismatchError: when it was made from another log.
        """
        log = self.log() if log is None else log
        self.need(self.split_file, "train")
        return Split.read(self.split_file, log.groups)

    def write_split(self, split: Split) -> None:
        """Write the split of the run's log."""
        split.write(self.split_file)

    def policies(
        self, router: ScaleRouter | None = None, split: Split | None = None
    ) -> dict[str, Policy]:
        """All policies, by name.

        Args:
            router: The run's, where it was read before; None reads it.
            split: That they must have been calibrated on; None leaves that unchecked.

        Raises:
            DataError: when one is damaged.
            MismatchError: when one was calibrated for another router, or split where one is given.
        """
        router = self.router() if router is None else router
        policies = {}
        for name in self.policy_names():
            path = self.policy_file(name)
            policies[name] = Policy.read(path)
            self._fits(path, policies[name], router, split)
        return policies

    def need_policy(self, name: str) -> Path:
        """The file of a policy that there is.

        Raises:
            DataError: when there is none of that name; the message has the nearest.
        """
        path = self.policy_file(name)
        if is_there(path):
            return path
        make = f"`{self._command('calibrate')} --budget COST --policy {name}` makes it"
        if known := self.policy_names():
            raise DataError(f"{self.root}: {unknown_name('policy', name, known)} {make}.")
        self.need_router()
        raise DataError(f"{self.root} has no policy {name!r}, and no other, yet: {make}.")

    def policy_names(self) -> list[str]:
        """Names of the policies that there are."""
        return sorted(
            one.stem for one in self.policies_folder.glob("*.json") if one.name != MANIFEST
        )

    def policy(self, name: str = "default", router: ScaleRouter | None = None) -> Policy:
        """One policy, after checking that it was calibrated for the run's router.

        Args:
            name: Its name.
            router: The run's, where it was read before; None reads it.

        Raises:
            DataError: when there is none of that name, or it is damaged.
            MismatchError: when it was calibrated for another router.
        """
        path = self.need_policy(name)
        policy = Policy.read(path)
        self._fits(path, policy, self.router() if router is None else router, None)
        return policy

    def cascades(self, router: ScaleRouter | None = None) -> dict[str, Cascade]:
        """The cascades that go with policies, by name; arguments and errors as `policies`."""
        router = self.router() if router is None else router
        found = {name: self.cascade(name, router) for name in self.policy_names()}
        return {name: one for name, one in found.items() if one is not None}

    def cascade(self, name: str = "default", router: ScaleRouter | None = None) -> Cascade | None:
        """The cascade that goes with the policy of that name; None where none does.

        Args:
            name: Of the policy.
            router: The run's, where it was read before; None reads it.

        Raises:
            DataError: when it is damaged.
            MismatchError: when it was calibrated for another router.
        """
        path = cascade_path(self.root, name)
        if not is_there(path):
            return None
        cascade = Cascade.read(path)
        router = self.router() if router is None else router
        cascade.check_fits(options=router.options, router=router.fingerprint)
        return cascade

    def evaluation(self) -> Evaluation:
        """What `m3router evaluate` found, after checking that it is of this run.

        Raises:
            DataError: when it is missing or damaged.
            MismatchError: when the run changed since.
        """
        path = self.inputs("evaluation")["evaluation"]
        self.need(path, "evaluate")
        self.verify(self.evaluation_folder, "evaluate")
        found: Evaluation = load(_READS_EVALUATIONS)(path)
        return found

    def _repr_html_(self) -> str:
        """What a notebook shows: the stages done, the sizes, and what comes next."""
        return run_card(self)

    def model_name(self) -> str:
        """The name of the model that labelled the log, where it is enough to load it.

        Raises:
            DataError: when the model must be given by its folder or hub id.
        """
        if is_there(self.log_folder / MANIFEST) or not self.arm().is_dir():
            name = str(self.log().metadata.get("model", ""))
        else:
            name = ScaleRouter.read(self.arm()).model
        if name not in BY_NAME:
            of = f"belongs to the model {name!r}" if name else "does not say which model it is of"
            raise DataError(f"{self.root} {of}: give its folder or hub id (--model).")
        return name

    def copy_data(self, root: StrPath) -> Run:
        """Copy log and features into another run folder, to train there.

        Raises:
            DataError: when they are missing or damaged.
            MismatchError: when the other folder holds another log.
        """
        other = Run(root)
        self.features()
        theirs = other.inputs("log")["log"]
        if theirs.is_file() and sha256_file(theirs) != sha256_file(self.inputs("log")["log"]):
            raise MismatchError(
                f"{other.log_folder} holds another log than {self.log_folder}. Choose a new folder."
            )
        for ours, copy, file in (
            (self.log_folder, other.log_folder, PARQUET),
            (self.features_folder, other.features_folder, FEATURES_FILE),
        ):
            for name in (file, MANIFEST):
                atomic_write_bytes(copy / name, (ours / name).read_bytes())
        return other

    def inputs(self, *names: str) -> dict[str, Path]:
        """Files that stages read, by name: log, features, split, evaluation, or an arm."""
        known = {
            "log": self.log_folder / PARQUET,
            "features": self.features_folder / FEATURES_FILE,
            "split": self.split_file,
            "evaluation": self.evaluation_folder / "evaluation.json",
            **{name: self.arm(name) / ROUTER_FILE for name in ARMS},
        }
        return {name: known[name] for name in names}

    def record(
        self,
        folder: StrPath,
        stage: str,
        *,
        inputs: Mapping[str, StrPath],
        params: Mapping[str, Any],
        files: Sequence[StrPath],
    ) -> None:
        """Write a stage's manifest: what it read, how it ran, and what it wrote."""
        folder = as_path(folder)
        written = [as_path(path) for path in files]
        hashes = {path.relative_to(folder).as_posix(): self.sha256(path) for path in written}
        write_manifest(
            folder, stage=stage, inputs=inputs, params=params, sha256=self.sha256, files=hashes
        )

    def verify(self, folder: StrPath, stage: str) -> dict[str, Any]:
        """Check a stage's own files and that it read what lies in the run folder now.

        Inputs from outside of the run folder are not looked for: they may be elsewhere.

        Returns:
            The manifest.

        Raises:
            DataError: when the manifest or a file of the stage is missing or damaged.
            MismatchError: when an input is another one than the stage read.
        """
        folder = as_path(folder)
        manifest = read_manifest(folder, stage=stage)
        redo = f"Run `{self._command(COMMANDS[stage])}` again."
        try:
            files = {name: str(digest) for name, digest in manifest["files"].items()}
            inputs = {n: (one["path"], one["sha256"]) for n, one in manifest["inputs"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"The manifest in {folder} is damaged: {error!r}. {redo}") from error
        for name, recorded in files.items():
            found = self._digest(folder / name)
            if found != recorded:
                if found == MISSING:
                    raise DataError(f"{folder / name} is missing, which the stage wrote. {redo}")
                raise DataError(
                    f"{folder / name} is damaged or was changed. {redo} (SHA-256 {found[:12]}, as "
                    f"written {recorded[:12]})"
                )
        for name, (relative, recorded) in inputs.items():
            path = real_path(folder / relative)
            if not path.is_relative_to(real_path(self.root)):
                continue
            found = self._digest(path)
            if found != recorded:
                self._refuse_damaged(path, found)
                if found == MISSING:
                    told = f"{path} is missing, from which {folder} was made"
                    raise MismatchError(f"{told}. {redo}")
                again = MADE_AGAIN.get(name, "router was trained again")
                raise MismatchError(
                    f"The {again} after {MADE.get(stage, f'{folder} was made')}, so that they do "
                    f"not belong together any more. {redo} (SHA-256 of {path} now {found[:12]}, "
                    f"then {recorded[:12]})"
                )
        return manifest

    def _refuse_damaged(self, path: Path, found: str) -> None:
        """Tell a file that is damaged from one that was made anew: its own folder knows."""
        for stage, folder in (("log", self.log_folder), ("features", self.features_folder)):
            if path.parent != real_path(folder) or not is_there(folder / MANIFEST):
                continue
            own = read_manifest(folder, stage=stage).get("files", {}).get(path.name, found)
            if own != found:
                if found == MISSING:
                    told = f"{path} is missing. Copy the run again, or run"
                    raise DataError(f"{told} `m3router {COMMANDS[stage]}` again.")
                raise DataError(
                    f"{path} is damaged or was changed. Copy it again, or run `m3router "
                    f"{COMMANDS[stage]}` again. (SHA-256 {found[:12]}, as written {own[:12]})"
                )

    def is_current(
        self,
        folder: StrPath,
        stage: str,
        *,
        inputs: Mapping[str, StrPath],
        params: Mapping[str, Any],
    ) -> bool:
        """Whether a stage was run on these very inputs, with these options and libraries."""
        folder = as_path(folder)
        try:
            manifest = self.verify(folder, stage)
            hashes = {name: self.sha256(path) for name, path in inputs.items()}
        except (DataError, MismatchError):
            return False
        recorded = {name: source["sha256"] for name, source in manifest["inputs"].items()}
        return bool(
            recorded == hashes
            and manifest["params"] == dict(params)
            and manifest["versions"] == library_versions()
        )

    def _fits(self, path: Path, policy: Policy, router: ScaleRouter, split: Split | None) -> None:
        try:
            policy.check_fits(
                options=router.options,
                router=router.fingerprint,
                split="" if split is None else split.fingerprint,
            )
        except MismatchError as error:
            raise MismatchError(
                f"{path}: {error} ({self._command('calibrate')} --policy {path.stem})"
            ) from error

    def need_router(self) -> None:
        """Refuse a folder without a router; one from a hub has it without manifests.

        Raises:
            DataError: when there is none.
        """
        self.need(self.arm() / ROUTER_FILE, "train")

    def need(self, path: StrPath, command: str) -> None:
        """Refuse a run that lacks a file, with the command that writes it.

        Raises:
            DataError: when it is not there.
        """
        path = as_path(path)
        if is_there(path):
            return
        root = self.root
        if not is_there(root):
            raise DataError(f"{root} does not exist. Check the path; {MAKES}.")
        if not root.is_dir():
            raise DataError(f"{root} is a file, not a run folder. Give the folder; {MAKES}.")
        if self.published and (self.policies_folder.is_dir() or self.arm().is_dir()):
            raise DataError(
                f"{root} has no log: it holds a router and policies alone. Use the run that they "
                "were made in, or `m3router ask`, `route` or `serve`, which need no log."
            )
        if self.published:
            raise DataError(f"{root} is not a run folder: it has no log. {MAKES.capitalize()}.")
        begun = is_there(self.log_folder / JOURNAL) and not is_there(self.log_folder / PARQUET)
        if begun and not is_there(self.log_folder / MANIFEST):
            raise DataError(
                f"The log in {root} is not finished: run the same `m3router label` command again."
            )
        if command == "label":
            raise DataError(f"{path} is missing. Copy the run again, or label again.")
        lacking = LACKS.get(command, command)
        raise DataError(f"{root} has no {lacking} yet. Run `{self._command(command)}` first.")

    def _command(self, command: str) -> str:
        """A stage's command for this run, as it is typed."""
        return f"m3router {command} {shlex.quote(str(self.root))}"

    def _digest(self, path: Path) -> str:
        return self.sha256(path) if is_there(path) else MISSING

    def sha256(self, path: StrPath) -> str:
        """Hash a file of the run.

        Raises:
            DataError: when it cannot be read.
        """
        path = as_path(path)
        return sha256_file(path)


@dataclass(frozen=True)
class OpenRun(Run):
    """A run folder whose parts are read, and whose files are hashed, once each.

    What a stage records as its inputs is thus what it read, even where somebody replaces a file
    meanwhile. Files that are written while the run is open must be told to `wrote`.
    """

    _hashes: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)
    _parts: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def opened(self) -> OpenRun:
        """Itself."""
        return self

    def wrote(self, *paths: StrPath) -> None:
        """Forget what is known of files that were written anew."""
        places = {
            "log": self.log_folder,
            "log as labelled": self.log_folder,
            "features": self.features_folder,
        }
        places |= {"split": self.split_file, **{name: self.arm(name) for name in ARMS}}
        for path in map(as_path, paths):
            self._hashes.pop(real_path(path), None)
            for part, place in places.items():
                if path.is_relative_to(place):
                    self._parts.pop(part, None)

    def record(
        self,
        folder: StrPath,
        stage: str,
        *,
        inputs: Mapping[str, StrPath],
        params: Mapping[str, Any],
        files: Sequence[StrPath],
    ) -> None:
        """As in `Run`; the files are those that the stage has just written."""
        self.wrote(*files)
        super().record(folder, stage, inputs=inputs, params=params, files=files)

    def log(self, *, as_labelled: bool = False) -> OracleLog:
        """As in `Run`, once."""
        if "log as labelled" not in self._parts:
            self._parts["log as labelled"] = super().log(as_labelled=True)
        if as_labelled:
            return self._parts["log as labelled"]
        if "log" not in self._parts:
            self._parts["log"] = without_featureless(
                self._parts["log as labelled"], self.features_folder
            )
        return self._parts["log"]

    def features(self, log: OracleLog | None = None) -> FeatureTable:
        """As in `Run`, once for the run's own log."""
        log = self.log() if log is None else log
        if log is not self._parts.get("log"):
            return super().features(log)
        if "features" not in self._parts:
            self._parts["features"] = super().features(log)
        return self._parts["features"]

    def router(self, arm: str = "router") -> ScaleRouter:
        """As in `Run`, once."""
        if arm not in self._parts:
            self._parts[arm] = super().router(arm)
        return self._parts[arm]

    def split(self, log: OracleLog | None = None) -> Split:
        """As in `Run`, once for the run's own log."""
        log = self.log() if log is None else log
        if log is not self._parts.get("log"):
            return super().split(log)
        if "split" not in self._parts:
            self._parts["split"] = super().split(log)
        return self._parts["split"]

    def write_split(self, split: Split) -> None:
        """As in `Run`; what was written is not read again."""
        super().write_split(split)
        self.wrote(self.split_file)
        self._parts["split"] = split

    def sha256(self, path: StrPath) -> str:
        """As in `Run`, once."""
        path = as_path(path)
        key = real_path(path)
        if key not in self._hashes:
            self._hashes[key] = super().sha256(path)
        return self._hashes[key]


AnyRun = Run | StrPath
"""A run, or its folder."""


def as_run(run: AnyRun) -> Run:
    """The run of a folder; a run is itself.

    >>> as_run("runs/first").root.name
    'first'
    """
    return run if isinstance(run, Run) else Run(run)
