"""Models inside the package: said whenever one is used, so that none is taken for a real one."""

from __future__ import annotations

from m3router.m3core.checkpoints.places import EMBEDDED, FAKE
from m3router.router.cli.console import say


def say_if_toy(model: str | None, *, flag: str = "--model") -> None:
    """Say what the models inside the package can read.

    Args:
        model: What is used; None for the embedded model, which nobody named.
        flag: The option that names another.
    """
    if model is None or model == EMBEDDED:
        chosen = "No model was given: the" if model is None else "The"
        say(
            f"{chosen} embedded model answers, which reads drawn scenes only. For your own images "
            f"give {flag}, the folder or hub id of a model."
        )
    elif model == FAKE:
        say(
            "The fake model is no model: its yes and no follow from the image's contrast and the "
            "question's length, to try the program."
        )
