"""Several processes, on one machine or many, that label together (``torchrun``, ``accelerate``).

accelerate is slow to import: where a process is alone, it is not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from m3router.data.errors import DataError
from m3router.data.example import Example

PATIENCE = timedelta(days=30)
"""How long a process that is done waits for the others."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that label together.

    Attributes:
        index: Its rank, from 0.
        count: How many there are.
        local: How many there are on this machine.
    """

    index: int = 0
    count: int = 1
    local: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """As the launcher says; without one this process is alone.

        Where there are several, the process group is made and this process's GPU becomes the
        current one.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return cls(state.process_index, state.num_processes, local)

    @property
    def is_first(self) -> bool:
        """Whether this process checks, merges and reports for all."""
        return self.index == 0

    def share(self, examples: Sequence[Example]) -> list[Example]:
        """The examples that this process labels.

        Examples of one image stay together, so that it is encoded once. What goes where
        depends on the images' names alone, not on what is already done.
        """
        return [example for example in examples if self._owner(example.image) == self.index]

    def _owner(self, image: str) -> int:
        return int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") % self.count

    def wait(self) -> None:
        """Wait until all have come this far."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, by rank, once all have come this far."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        values: list[T] = gather_object([value])
        return values

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Let the first process work, then the others; none of them if it fails.

        Raises:
            DataError: In the other processes, if the first one failed.
        """
        if self.count == 1:
            return work()
        from accelerate.utils import broadcast_object_list

        if self.is_first:
            try:
                result = work()
            except BaseException as error:
                broadcast_object_list([str(error) or type(error).__name__])
                raise
            broadcast_object_list([None])
            return result
        told: list[str | None] = [None]
        broadcast_object_list(told)
        if told[0] is not None:
            raise DataError(f"process 0 could not begin: {told[0]}")
        return work()
