"""What the gateway tells the recorder of traffic, and the further routes that it mounts."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.routing import BaseRoute

from m3router.router.serve.deciding.decider import RouterFacts
from m3router.router.serve.errors import ApiError
from m3router.router.serve.gateway.bodies import Json
from m3router.router.serve.gateway.examples import as_labelled
from m3router.router.serve.gateway.exchange import Gateway, Served, client_of
from m3router.router.serve.gateway.judging import Images
from m3router.router.serve.gateway.route_api import Judgement, RouteApi
from m3router.router.serve.gateway.wishes import shown_headers
from m3router.router.serve.http.feedback import TrafficRoutes
from m3router.router.traffic.recorder import Recorder
from m3router.router.traffic.records import MadeBy, ServedRequest

DECODE_SECONDS = 10.0
"""That an image to be kept may take."""
logger = logging.getLogger(__name__)


def more_routes(gateway: Gateway, recorder: Recorder | None) -> Sequence[BaseRoute]:
    """`/v1/route`, `/v1/feedback` and the deletion of what was kept.

    Args:
        gateway: Decides.
        recorder: Where requests are kept; None where none are.
    """

    async def judge(body: Json, request: Request) -> Judgement:
        headers = shown_headers(request.scope["headers"])
        plan = await gateway.plan(body, headers, who=client_of(request.scope))

        async def image() -> str | None:
            current = [one for one in plan.turn.images if one.current]
            if len(current) != 1:
                return None
            part: Any = await gateway.judge().body(plan, body)
            for step in current[0].place:
                part = part[step]
            found = part.get("image_url")
            url = found.get("url") if isinstance(found, Mapping) else found
            return url if isinstance(url, str) and url != current[0].url else None

        return Judgement(
            judged=plan.judged,
            option=plan.shown,
            reason=plan.told.text,
            guarantee=plan.guarantee,
            image=image,
        )

    def who(request: Request) -> str:
        name = getattr(request.state, "key", "")
        return owner(recorder, name, client_of(request.scope)) if recorder else ""

    traffic = TrafficRoutes(recorder, who=who)
    return [*RouteApi(judge, lambda: gateway.upstreams().options).routes(), *traffic.routes()]


def owner(recorder: Recorder, key: str, who: str) -> str:
    """Whose record it is: a key of the gateway's by its name, another by its hash."""
    return key or (recorder.owner(who) if who else "")


async def record(recorder: Recorder, images: Images, served: Served) -> None:
    """Offer an answered request to the recorder, where it can be an example.

    Its image is decoded once more, so that no pixels are held while an answer is written.

    Args:
        recorder: Started.
        images: Reads images.
        served: The request.
    """
    plan = served.plan
    (file, *others) = plan.files or (None,)
    if file is None or file.data is None or others or plan.judged is None:
        return
    if not as_labelled(served.body):
        return
    store = served.body.get("store")
    consented = store if isinstance(store, bool) else None
    image = Image.new("RGB", (1, 1))  # of those that are only counted
    if recorder.would_take(served.id, consented):
        try:
            image = await images.decode(file.data, deadline=time.monotonic() + DECODE_SECONDS)
        except ApiError as error:
            logger.warning("a request is not kept: its image cannot be read (%s)", error.code)
            return
    wishes = {name: value for name, value in asdict(plan.wish).items() if value is not None}
    length = served.body.get("max_completion_tokens") or served.body.get("max_tokens")
    counts = served.said.counts
    usage = {
        "prompt_tokens": counts.prompt,
        "answer_tokens": counts.answer,
        "image_tokens": counts.image,
    }
    recorder.offer(
        ServedRequest(
            id=served.id,
            answer_id=served.said.id,
            key=owner(recorder, served.key, served.who),
            image=image,
            question=plan.turn.question,
            asked=wishes | ({"max_tokens": length} if isinstance(length, int) else {}),
            option=plan.option,
            estimates=plan.judged.decision.estimates,
            answer=served.said.text,
            usage={name: value for name, value in usage.items() if value is not None},
            reason=str(plan.told),
            escalated=served.escalated,
            fallback=plan.judged.decision.fallback,
            finish=served.said.finish,
            consented=consented,
        )
    )


def made_by(facts: RouterFacts) -> MadeBy:
    """What answers and decides, as the recorder keeps it."""
    return MadeBy(
        model=facts.model,
        revision=facts.revision,
        router=facts.router,
        policy=facts.policy,
        options=facts.options,
    )
