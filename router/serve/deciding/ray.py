"""Decides by replicas under Ray Serve: the gateway's processes relay, others look at images.

Each replica is a `ProcessDecider`, so that what is decided, batched and kept is the same as beside
the gateway. A question whose replica dies is decided by another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from m3router.data.errors import M3RouterError
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.backends.ray.application import RayApplication
from m3router.router.serve.backends.ray.fence import keep_inside
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.deciding.decider import (
    Asked,
    AskedImage,
    Decider,
    Judged,
    RouterFacts,
    Wish,
)
from m3router.router.serve.deciding.wire import NeedsPixels, Refused

ONGOING = 64
"""Most questions in a replica's hands, where nothing else is set: they are decided in batches."""
TIMES = 3
"""That a question is asked, where replicas are lost."""
PAUSE = 0.2
"""Seconds before it is asked again."""
logger = logging.getLogger(__name__)


class UnseenError(Exception):
    """A replica has not seen the image yet."""


class DecidingReplica:
    """One decider in a process of its own.

    Args:
        make: Makes it.
    """

    async def __init__(self, make: Callable[[], Decider]) -> None:  # type: ignore[misc]
        keep_inside()
        # Ray Serve awaits it; a replica takes questions when it returns.
        self._decider = make()
        self._facts = await self._decider.start()

    def facts(self) -> RouterFacts:
        """What decides."""
        return self._facts

    def load(self) -> dict[str, float]:
        """What a `Decider` tells about itself, with the id of this "process"."""
        return {**self._decider.load(), "process": os.getpid()}

    async def decide(
        self,
        question: str,
        wish: Wish,
        digest: str,
        size: tuple[int, int] | None,
        pixels: npt.NDArray[np.uint8] | None,
        again: bool = True,
    ) -> Judged | Refused | NeedsPixels:
        """Decide for one question; errors come as values.

        Args:
            question: The question.
            wish: How it wants to be routed.
            digest: Of the image; "" for not known.
            size: Width and height; None without an image.
            pixels: RGB (height, width, 3); None to be asked for them where that is not enough.
            again: Whether another option can be asked after the answer.
        """

        async def seen() -> Image.Image:
            if pixels is None:
                raise UnseenError
            return Image.fromarray(pixels)

        image = None if size is None else AskedImage(size=size, pixels=seen, digest=digest)
        try:
            return await self._decider.decide(
                Asked(question=question, image=image, wish=wish, again=again)
            )
        except UnseenError:
            return NeedsPixels(0)
        except M3RouterError as error:
            return Refused.because(0, error)


class RayDecider:
    """Replicas that decide; a `m3router.router.serve.deciding.decider.Decider`.

    Args:
        make: Makes the decider of a replica; can be pickled. What it reads must lie at the same
            place on every node of the cluster.
        ray: How many replicas.
    """

    def __init__(self, make: Callable[[], Decider], ray: RaySettings) -> None:
        self._app = RayApplication(ray, DecidingReplica, make, ongoing=ONGOING)
        self._facts: RouterFacts | None = None
        self._waiting = 0

    async def start(self) -> RouterFacts:
        """Start Ray where it is not running, and the replicas; see the protocol.

        Raises:
            DataError: If Ray is not installed.
            UnavailableError: If the replicas do not come up.
        """
        self._facts = cast("RouterFacts", await self._app.start("facts"))
        return self._facts

    async def decide(self, asked: Asked) -> Judged:
        """Decide for one question; see the protocol."""
        if self._facts is None:
            raise UnavailableError("The replicas that decide are not there.")
        image, pixels = asked.image, None
        digest, size = ("", None) if image is None else (image.digest, image.size)
        lost = 0
        self._waiting += 1
        try:
            while lost < TIMES:
                told = await self._once(
                    asked.question, asked.wish, digest, size, pixels, asked.again
                )
                if isinstance(told, Judged):
                    return told
                if isinstance(told, Refused):
                    raise told.error
                if isinstance(told, NeedsPixels):
                    assert image is not None, "a replica asks for what there is"
                    pixels = await asyncio.to_thread(self._put, await image.pixels())
                    continue
                lost += 1
                await asyncio.sleep(PAUSE)
            raise UnavailableError("The replicas that decide were lost, one after the other.")
        finally:
            self._waiting -= 1

    def load(self) -> dict[str, float]:
        """Questions "waiting"; what replicas keep is not known here."""
        return {"waiting": self._waiting}

    async def loads(self) -> dict[str, float]:
        """What one of the replicas has in hand."""
        return cast("dict[str, float]", await self._app.handle.load.remote())

    async def stop(self) -> None:
        """Take the replicas away; see the protocol."""
        if self._facts is not None:
            await self._app.stop()

    def _put(self, image: Image.Image) -> Any:
        """Pixels where replicas find them: once for all that are asked."""
        return self._app.ray.put(np.asarray(image.convert("RGB")))

    async def _once(self, *arguments: object) -> Judged | Refused | NeedsPixels | None:
        """Ask one replica; None where it is lost."""
        response = self._app.handle.decide.remote(*arguments)
        try:
            return cast("Judged | Refused | NeedsPixels", await response)
        except asyncio.CancelledError:
            response.cancel()
            raise
        except self._app.lost as error:
            logger.warning("a replica that decides was lost: %s", type(error).__name__)
            return None
        except self._app.serve.exceptions.BackPressureError as error:
            raise UnavailableError("Too many questions wait for a decision.") from error
        except self._app.ray.exceptions.RayTaskError as error:
            logger.exception("a replica that decides failed")
            raise UnavailableError("A replica failed to decide.") from error
