"""A target that goes wrong in every way that the driver must notice."""

import os
import time
from itertools import count

from tests.fuzz.driver import Limits

LIMITS = Limits(seconds=0.5, asleep=1.5, memory=256 << 20, growth=16 << 20)
KEPT: list[bytes] = []


def cases(seed):
    return count()


def check(case):
    if case == 3:
        raise KeyError("no such thing")
    if case == 5:
        os.abort()
    if case == 7:
        while True:
            pass
    if case == 9:
        time.sleep(60)
    if case == 11:
        bytearray(1 << 30)
    if case > 100:
        KEPT.append(b"x" * (1 << 18))
