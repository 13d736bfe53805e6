"""How many replicas answer under Ray Serve, and what each may take."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from m3router.data.errors import DataError


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """A deployment of replicas; the names are those of a ``--ray-config`` file too.

    Attributes:
        replicas: How many; where they scale by themselves, the fewest.
        most_replicas: The most that they scale up to; None for a fixed number.
        target: Questions in a replica's hands, on average, at which more replicas are started.
        ongoing: Most questions in a replica's hands; None for as many as its engine's batch.
        queue: Most questions that wait for a replica; more are turned away.
        cpus: Processor cores that Ray reserves for each replica.
        gpus: GPUs that Ray reserves for each replica; 0.5 lets two share one.
        address: Of the Ray cluster that this machine belongs to, such as "auto"; None starts Ray
            here.
        app: Name of the application in Ray Serve.
        health_seconds: Between looks at whether a replica is well.
        start_seconds: Within which the first replicas must be up.
    """

    replicas: int = 1
    most_replicas: int | None = None
    target: float = 8.0
    ongoing: int | None = None
    queue: int = 256
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None
    app: str = "m3router"
    health_seconds: float = 5.0
    start_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: If one cannot be meant.
        """
        least: dict[str, float] = {"replicas": 1, "ongoing": 1, "queue": 1, "cpus": 0, "gpus": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise DataError(f"{name} must be at least {bound:g}; it is {value:g}.")
        for name in ("target", "health_seconds", "start_seconds"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name} must be above 0; it is {getattr(self, name):g}.")
        if self.most_replicas is not None and self.most_replicas < self.replicas:
            raise DataError(
                f"most_replicas must be at least replicas, {self.replicas}; it is "
                f"{self.most_replicas}."
            )

    def scaled(self, text: str) -> RaySettings:
        """These settings with replicas from FEWEST:MOST, such as ``--autoscale 1:4``.

        Raises:
            DataError: If the text is not such a pair.
        """
        fewest, _, most = text.partition(":")
        if not (fewest.isdecimal() and most.isdecimal()):
            raise DataError(f"Replicas scale between two numbers, such as 1:4, not {text!r}.")
        return replace(self, replicas=int(fewest), most_replicas=int(most))

    @classmethod
    def read(cls, path: Path) -> RaySettings:
        """Read a TOML file of these settings.

        Raises:
            DataError: If it cannot be read, or has an entry that is none of them or of another
                type.
        """
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read as TOML: {error}.") from error
        known = {one.name for one in fields(cls)}
        unknown = sorted(set(entries) - known)
        if unknown:
            raise DataError(
                f"{path} has the entries {', '.join(unknown)}; those known are "
                f"{', '.join(sorted(known))}."
            )
        kinds = get_type_hints(cls)
        return cls(**{name: _typed(path, name, entries[name], kinds[name]) for name in entries})

    def options(self, *, ongoing: int, drain: float) -> dict[str, Any]:
        """Options of a Ray Serve deployment.

        Args:
            ongoing: Where none is set, most questions in a replica's hands.
            drain: Seconds in which a replica that is taken away may finish.
        """
        options: dict[str, Any] = {
            "max_ongoing_requests": self.ongoing or ongoing,
            "max_queued_requests": self.queue,
            "ray_actor_options": {"num_cpus": self.cpus, "num_gpus": self.gpus},
            "health_check_period_s": self.health_seconds,
            "graceful_shutdown_timeout_s": drain,
            "graceful_shutdown_wait_loop_s": 0.2,
        }
        if self.most_replicas is None:
            return {**options, "num_replicas": self.replicas}
        scaling = {
            "min_replicas": self.replicas,
            "initial_replicas": self.replicas,
            "max_replicas": self.most_replicas,
            "target_ongoing_requests": self.target,
        }
        return {**options, "autoscaling_config": scaling}


def _typed(path: Path, name: str, value: Any, kind: Any) -> Any:
    kinds = get_args(kind) or (kind,)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds or (type(value) is float and not math.isfinite(value)):
        raise DataError(f"{path}: {name} cannot be {value!r}.")
    return value
