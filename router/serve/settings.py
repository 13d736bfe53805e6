"""What a server loads and takes on; plain values."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import DataError


@dataclass(frozen=True, kw_only=True)
class FrontSettings:
    """Limits of single requests.

    Attributes:
        max_bytes: Longest body.
        body_seconds: Within which a body must have come.
        max_depth: Deepest nesting of JSON.
        max_pixels: Largest picture.
        seconds: Within which a question must be answered, from its body on.
        max_tokens: Longest answer in tokens; None for the model's own limit.
        drain_seconds: For answers that run when the server is told to stop.
    """

    max_bytes: int = 20 << 20
    body_seconds: float = 30.0
    max_depth: int = 16
    max_pixels: int = 40_000_000
    seconds: float = 60.0
    max_tokens: int | None = None
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: If one is not above 0.
        """
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise DataError(f"{name} must be above 0, not {value}.")


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What an engine loads and how much it takes on; plain values that can be pickled.

    Attributes:
        run: Run folder with a router and policies.
        model: Name, folder or hub id of the model that the run labelled; "" for the run's own.
        policy: Name of the policy.
        device: As for `m3core.load_model`.
        queue: Most questions that wait.
        workers: Threads that answer, each its own batch; None for one on a GPU, and on a processor
            for one for each core, up to four.
        batch: Most questions that are answered at once, by all of them.
        wave: Most pictures that the tower reads in one turn.
        pictures: Encodings of pictures that are kept for further questions about them.
        threads: Of the processor; None for torch's own choice.
    """

    run: str
    model: str = ""
    policy: str = "default"
    device: str = "auto"
    queue: int = 64
    workers: int | None = None
    batch: int = 32
    wave: int = 4
    pictures: int = 32
    threads: int | None = None
