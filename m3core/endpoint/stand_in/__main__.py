"""``python -m m3router.m3core.endpoint.stand_in``: the stand-in as a process of its own."""

from __future__ import annotations

import argparse

from m3router.data.errors import DataError
from m3router.m3core.endpoint.stand_in.app import StandIn
from m3router.m3core.endpoint.stand_in.dialects import DIALECTS
from m3router.m3core.endpoint.stand_in.faults import FAULTS, FaultPlan
from m3router.m3core.endpoint.stand_in.seeing import FAMILIES


def main(arguments: list[str] | None = None) -> None:
    """Serve until interrupted."""
    import uvicorn

    parser = argparse.ArgumentParser(
        prog="python -m m3router.m3core.endpoint.stand_in", description=__doc__
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--imitate", choices=sorted(DIALECTS), default="vllm")
    parser.add_argument("--family", choices=sorted(FAMILIES), help="whose images are counted")
    parser.add_argument("--model", action="append", help="a name to serve; may be repeated")
    parser.add_argument("--key", help="what clients must send as a bearer token")
    parser.add_argument("--trust-request-mm-kwargs", action="store_true")
    parser.add_argument("--enable-prompt-tokens-details", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long an answer takes")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=N",
        help=f"every N-th request goes wrong; names: {', '.join(FAULTS)}",
    )
    given = parser.parse_args(arguments)
    try:
        every = {name: int(count) for name, _, count in (one.partition("=") for one in given.fault)}
        faults = FaultPlan(every)
    except (ValueError, DataError) as error:
        parser.error(f"--fault NAME=N: {error}")
    stand_in = StandIn(
        server=given.imitate,
        family=given.family,
        models=tuple(given.model or ["stand-in"]),
        key=given.key,
        trust_request_mm_kwargs=given.trust_request_mm_kwargs,
        enable_prompt_tokens_details=given.enable_prompt_tokens_details,
        seconds=given.seconds,
        faults=faults,
    )
    uvicorn.run(stand_in.app(), host=given.host, port=given.port, log_level="info", lifespan="off")


if __name__ == "__main__":
    main()
