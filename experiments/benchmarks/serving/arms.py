"""What is compared: which server is asked for which models, by how many clients, about what."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.benchmarks.serving.material import AUTO, fixed

CLIENTS = (1, 2, 4, 8, 16, 32, 64)
OURS, NAIVE, TRANSFORMERS = "m3router serve", "one at a time", "transformers serve"
SATURATED = 64
"""Clients of the long run."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One line of the comparison.

    Attributes:
        server: Name of the server.
        models: What is asked for, equally often.
        clients: Levels of load.
        order: In which images come, a key of
            :data:`experiments.benchmarks.serving.workload.ORDERS`.
    """

    server: str
    models: tuple[str, ...]
    clients: tuple[int, ...] = CLIENTS
    order: str = "apart"

    @property
    def tells_scale(self) -> bool:
        """Whether the server says at which scale it answered."""
        return self.server != TRANSFORMERS


def arms(scales: tuple[int, ...]) -> dict[str, Arm]:
    """The table, for the scales of a model."""
    finest = fixed(scales[-1])
    every = (AUTO, *map(fixed, scales))
    return {
        "auto": Arm(server=OURS, models=(AUTO,)),
        "finest": Arm(server=OURS, models=(finest,)),
        "transformers": Arm(server=TRANSFORMERS, models=(finest,)),
        "one at a time": Arm(server=NAIVE, models=(AUTO,), clients=(1, 16)),
        "all scales": Arm(server=OURS, models=every, clients=(1, 16, 64)),
        "auto, together": Arm(server=OURS, models=(AUTO,), clients=(1, 16, 64), order="together"),
        "one at a time, together": Arm(
            server=NAIVE, models=(AUTO,), clients=(1, 16), order="together"
        ),
    }
