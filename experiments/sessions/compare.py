"""What a page of a session shows that is not said any more.

Machines round differently, and small samples feel it: numbers may be off by a tenth, or by 3. Words
may not.
"""

from __future__ import annotations

import re

from experiments.sessions.record import steps_of

_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?")


def differences(shown: str, said: str) -> list[str]:
    """Sentences on what differs between a page and the same page made now."""
    before, now = list(steps_of(shown)), list(steps_of(said))
    if [typed for typed, _ in before] != [typed for typed, _ in now]:
        return ["other commands are typed"]
    found = []
    for (typed, old), (_, new) in zip(before, now, strict=True):
        found += [f"{typed.splitlines()[0]!r} {one}" for one in _lines(old, new)]
    return found


def _lines(old: str, new: str) -> list[str]:
    told, left = [], new.splitlines()
    for line in old.splitlines():
        same = next((one for one in left if alike(line, one)), None)
        if same is None:
            told.append(f"no longer says {line!r}")
        else:
            left.remove(same)
    return told + [f"says {line!r}, which is not shown" for line in left]


def alike(one: str, other: str) -> bool:
    """Whether two lines say the same but for what rounding does to numbers.

    >>> alike("87.9 % right", "88.1 % right"), alike("87.9 % right", "87.9 % wrong")
    (True, False)
    """
    words = [" ".join(_NUMBER.sub("#", line).split()) for line in (one, other)]
    values = [[_value(n) for n in _NUMBER.findall(line)] for line in (one, other)]
    return words[0] == words[1] and all(
        abs(a - b) <= max(3.0, 0.1 * abs(a)) for a, b in zip(*values, strict=True)
    )


def _value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))
