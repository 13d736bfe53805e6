"""Whether a server answered as the model that was asked."""

from __future__ import annotations

import re

VERSION = re.compile(r"[-@:](\d{4}-\d{2}(-\d{2})?|\d{4,8}|\d{3}|latest|main|[0-9a-f]{7,40})$")
"""What a name may have behind it: a date, a short version, a branch or a commit."""


def same_model(asked: str, reported: str) -> bool:
    """Whether a reported name stands for the model that was asked.

    Dated snapshots and revisions do, and so do names without the provider in front of them. A name
    that only begins alike does not.

    >>> same_model("gpt-4o", "gpt-4o-2024-08-06"), same_model("gpt-4o", "gpt-4o-mini")
    (True, False)
    >>> same_model("openai/gpt-4o", "gpt-4o"), same_model("mine", "mine@main")
    (True, True)
    """
    if asked == reported:
        return True
    names = [_bare(asked), _bare(reported)]
    if names[0] == names[1]:
        return True
    versions = [VERSION.search(name) for name in names]
    stems = [VERSION.sub("", name) for name in names]
    both_dated = all(found is not None and found[1] != "latest" for found in versions)
    return stems[0] == stems[1] and not both_dated


def _bare(name: str) -> str:
    """The name without providers or folders before it."""
    return name.rstrip("/").rpartition("/")[2].casefold()
