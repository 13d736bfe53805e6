"""At which option an image was answered: a short memory, so that a conversation stays as it was.

Kept in this process alone. After a restart, or behind another process, nothing is remembered:
images of earlier turns are then asked at the finest option.
"""

from __future__ import annotations

from collections import OrderedDict

CLIENTS = 1024
"""Clients that are remembered; those unused longest are forgotten."""
IMAGES = 256
"""Images and responses that are remembered of each."""


class Memory:
    """What each client's images were answered at; used from one thread.

    One client's images push out its own older ones only.

    Args:
        clients: Most clients.
        images: Most images of one client.
    """

    def __init__(self, clients: int = CLIENTS, images: int = IMAGES) -> None:
        self._clients = clients
        self._images = images
        self._known: OrderedDict[str, OrderedDict[str, str]] = OrderedDict()

    def option(self, who: str, what: str) -> str | None:
        """At which option something was answered; None where that is not remembered.

        Args:
            who: The client.
            what: An image's digest, or a response's id.
        """
        own = self._known.get(who)
        if own is None or what not in own:
            return None
        self._known.move_to_end(who)
        own.move_to_end(what)
        return own[what]

    def keep(self, who: str, what: str, option: str) -> None:
        """Remember an answer."""
        own = self._known.setdefault(who, OrderedDict())
        self._known.move_to_end(who)
        own[what] = option
        own.move_to_end(what)
        if len(own) > self._images:
            own.popitem(last=False)
        if len(self._known) > self._clients:
            self._known.popitem(last=False)

    def forget(self, who: str, what: str) -> None:
        """Forget what was deleted."""
        self._known.get(who, OrderedDict()).pop(what, None)
