"""Judges: a language model that scores answers as a benchmark's published protocol has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.m3core.judging.judge import Judge as Judge
    from m3router.m3core.judging.judge import connect_judge as connect_judge
    from m3router.m3core.judging.protocols.base import JudgeRequest as JudgeRequest
    from m3router.m3core.judging.protocols.base import Protocol as Protocol
    from m3router.m3core.judging.protocols.table import PROTOCOLS as PROTOCOLS
    from m3router.m3core.judging.protocols.table import protocol as protocol
    from m3router.m3core.judging.run import JudgingStopped as JudgingStopped
    from m3router.m3core.judging.run import judge_log as judge_log
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "Judge": "m3router.m3core.judging.judge",
            "JudgeRequest": "m3router.m3core.judging.protocols.base",
            "JudgingStopped": "m3router.m3core.judging.run",
            "PROTOCOLS": "m3router.m3core.judging.protocols.table",
            "Protocol": "m3router.m3core.judging.protocols.base",
            "connect_judge": "m3router.m3core.judging.judge",
            "judge_log": "m3router.m3core.judging.run",
            "protocol": "m3router.m3core.judging.protocols.table",
        },
    )
