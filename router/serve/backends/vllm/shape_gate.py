"""Lets images of only one length be read by a vLLM server at a time.

A step of vLLM stacks the images of all prompts that it begins to read. Where their numbers of
tokens differ, its LLaVA refuses them and the engine dies, and with it every other question
(vllm-project/vllm: ``vllm/multimodal/inputs.py``, ``MultiModalBatchedField._reduce_data``, stacks
equal shapes only; ``vllm/model_executor/models/llava.py``, ``LlavaImageEmbeddingInputs``, has one
length for all; ``vllm/utils/tensor_schema.py`` raises "contains inconsistent shapes"; issues 31219
and 39681). Once a question's first token is there, its image was read, so questions of other
lengths may begin; decoding mixes freely.
"""

from __future__ import annotations

import asyncio
from collections import deque


class ShapeGate:
    """A gate for questions that are being read, fair to every length.

    Those of the length that is being read go in at once, as long as nobody waits; when the last
    one is done, all of the length that has waited longest go in together.
    """

    def __init__(self) -> None:
        self._length = 0
        self._reading = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, length: int) -> None:
        """Wait until images of this length may be read; :meth:`leave` must follow."""
        if not self._reading or (length == self._length and not self._waiting):
            self._length = length
            self._reading += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((length, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came in the same moment
                self.leave()
            elif (length, turn) in self._waiting:
                self._waiting.remove((length, turn))
            raise

    def leave(self) -> None:
        """One image was read, or never will be."""
        self._reading -= 1
        self._waiting = deque(one for one in self._waiting if not one[1].cancelled())
        if self._reading or not self._waiting:
            return
        self._length = self._waiting[0][0]
        turns = [turn for length, turn in self._waiting if length == self._length]
        self._waiting = deque(one for one in self._waiting if one[0] != self._length)
        self._reading = len(turns)
        for turn in turns:
            turn.set_result(None)
