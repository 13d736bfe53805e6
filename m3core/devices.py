"""Where a model computes: the name of a torch device, looked at before anything is loaded."""

from __future__ import annotations

import torch

from m3router.data.errors import ModelError
from m3router.data.registry import unknown_name

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
KINDS = (AUTO, CPU, CUDA, "mps", "xpu")


def chosen_device(name: str) -> str:
    """The device that a name stands for; ``auto`` is a GPU where there is one.

    Raises:
        ModelError: There is no such device, or not on this machine.

    >>> chosen_device("cpu")
    'cpu'
    """
    if name == AUTO:
        return CUDA if torch.cuda.is_available() else CPU
    kind, _, number = name.partition(":")
    if kind not in KINDS or (number and not number.isdecimal()):
        raise ModelError(unknown_name("device", name, KINDS))
    if kind == CUDA and not torch.cuda.is_available():
        built = "" if torch.version.cuda else ": this torch is built without CUDA"
        raise ModelError(
            f"The device {name!r} was asked for, but torch finds no CUDA GPU here{built}. Leave "
            "the device out, or use 'cpu'."
        )
    if kind == CUDA and number and int(number) >= (there := torch.cuda.device_count()):
        raise ModelError(
            f"The device {name!r} was asked for, but there are {there} GPUs, counted from cuda:0."
        )
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The device {name!r} is not there ({reason}). Use 'cpu'.") from error
    return name
