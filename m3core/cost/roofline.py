"""How long an answer must take at least on a device: the roofline model.

Each operation takes the longer of computing (operations by peak rate) and of moving its data
(bytes by bandwidth), and all run one after the other, as in LLM-Viewer (Yuan et al., 2024, arXiv
2402.16363, section 2.2; hahnyuan/LLM-Viewer, ``model_analyzer.py``, ``analyze``). No real kernel
reaches this bound, and nothing is counted for launching kernels, for sampling, or for unpacking
quantised weights. One question at a time; the vision tower is not part of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from m3router.data.errors import MismatchError
from m3router.m3core.cost.operations import Memory, ModelShape, Numbers

LINEAR = "linear layers"
ATTENTION = "attention"
ELEMENTS = "norms and sums"
HEAD = "output head"
GROUPS = (LINEAR, ATTENTION, ELEMENTS, HEAD)


@dataclass(frozen=True, kw_only=True)
class Device:
    """Peak rates of a device.

    Attributes:
        name: How it is called.
        flops: Dense half-precision operations per second.
        bandwidth: Bytes per second between its memory and its processors.

    Raises:
        MismatchError: If a rate is not above zero.
    """

    name: str
    flops: float
    bandwidth: float

    def __post_init__(self) -> None:
        """Check the rates."""
        for rate, value in (("flops", self.flops), ("bandwidth", self.bandwidth)):
            if not value > 0:
                raise MismatchError(f"{rate} of the device {self.name} must be above 0: {value}")


DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        device.name: device
        for device in (
            Device(name="V100", flops=125e12, bandwidth=900e9),
            Device(name="A6000", flops=154.8e12, bandwidth=768e9),
            Device(name="A100", flops=312e12, bandwidth=2039e9),
            Device(name="H100", flops=989e12, bandwidth=3350e9),
        )
    }
)
"""Peak rates from NVIDIA's data sheets: V100 SXM2, RTX A6000, A100 SXM 80 GB, H100 SXM; tensor
cores, float16, without sparsity. LLM-Viewer's table has 112e12 for the V100, that of its PCIe form.
"""


def find_device(name: str) -> Device:
    """A device of the table.

    Raises:
        MismatchError: If there is none of that name; the message lists them.
    """
    if name not in DEVICES:
        close = difflib.get_close_matches(name.upper(), DEVICES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise MismatchError(
            f"unknown device {name!r}; known: {', '.join(DEVICES)}.{hint} For another one give "
            "its peak rates"
        )
    return DEVICES[name]


def choose_device(
    name: str, *, tflops: float | None = None, gigabytes: float | None = None
) -> Device:
    """A device of the table, or one of the user's own.

    Args:
        name: A key of :data:`DEVICES`; not used where both rates are given.
        tflops: Peak rate in 10^12 operations a second.
        gigabytes: Bandwidth in 10^9 bytes a second.

    Raises:
        MismatchError: If only one rate is given, one is not above zero, or the name is unknown.
    """
    if tflops is None and gigabytes is None:
        return find_device(name)
    if tflops is None or gigabytes is None:
        raise MismatchError(
            "a device of your own needs both rates, operations and bandwidth; got one of them"
        )
    return Device(name="your device", flops=tflops * 1e12, bandwidth=gigabytes * 1e9)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step of a forward pass.

    Attributes:
        group: One of :data:`GROUPS`.
        flops: Floating-point operations.
        reads: Bytes read, weights included.
        writes: Activations written, in bytes.
        cached: Keys or values written to the cache, in bytes.
        repeats: How often it is done in the pass, once in each layer.
    """

    group: str
    flops: float
    reads: float
    writes: float = 0.0
    cached: float = 0.0
    repeats: int = 1

    @property
    def traffic(self) -> float:
        """Bytes moved, each time."""
        return self.reads + self.writes + self.cached

    def seconds(self, device: Device) -> float:
        """All repetitions together."""
        return self.repeats * max(self.flops / device.flops, self.traffic / device.bandwidth)


def forward_pass(
    shape: ModelShape, new: int, past: int = 0, *, numbers: Numbers, fused: bool = True
) -> list[Operation]:
    """What the language model does for ``new`` tokens behind ``past`` cached ones.

    The output head is run for the last token only, as ``generate`` does.

    Args:
        shape: The model.
        new: Tokens.
        past: Tokens in the cache.
        numbers: Their formats.
        fused: Whether attention never writes its scores, (new, new + past) for each head.
    """
    text, size = shape.text, numbers.bytes
    operations = []
    for place, (inputs, outputs) in enumerate(text.matrices):
        kept = outputs * new * size
        stored = place in (1, 2)  # keys and values go to the cache
        operations.append(
            Operation(
                group=LINEAR,
                flops=2 * inputs * outputs * new,
                reads=inputs * outputs * numbers.matrix_bytes + inputs * new * size,
                writes=0 if stored else kept,
                cached=kept if stored else 0,
                repeats=text.layers,
            )
        )
    operations += _attention(shape, new, new + past, size, fused)
    stream = text.hidden * new * size
    # Two norms and two sums of 7 and 1 operations a number; the activation reads two streams.
    # NOTE: LLM-Viewer counts the activation at the model's width, not at that of the feed-forward
    # block; we follow it so that its numbers can be compared.
    for each, streams in ((7, 1), (7, 1), (1, 1), (1, 1), (2, 2)):
        operations.append(
            Operation(
                group=ELEMENTS,
                flops=each * text.hidden * new,
                reads=streams * stream,
                writes=stream,
                repeats=text.layers,
            )
        )
    operations.append(
        Operation(
            group=HEAD,
            flops=2 * text.hidden * shape.vocabulary,
            reads=(text.hidden * shape.vocabulary + text.hidden) * size,
            writes=shape.vocabulary * size,
        )
    )
    return operations


def _attention(shape: ModelShape, new: int, keys: int, size: int, fused: bool) -> list[Operation]:
    """Scores, softmax (5 operations a score) and mixing of values; fused they are one step."""
    text = shape.text
    products = 2 * new * keys * text.query_width  # each of the two
    scores = new * keys * text.heads
    queries, cached = new * text.query_width * size, keys * text.key_width * size
    steps = (
        [(2 * products + 5 * scores, queries + 2 * cached, queries)]
        if fused
        else [
            (products, queries + cached, scores * size),
            (5 * scores, scores * size, scores * size),
            (products, scores * size + cached, queries),
        ]
    )
    return [
        Operation(group=ATTENTION, flops=flops, reads=reads, writes=writes, repeats=text.layers)
        for flops, reads, writes in steps
    ]


def seconds_by_group(operations: Sequence[Operation], device: Device) -> dict[str, float]:
    """Shortest time of each of :data:`GROUPS`, in seconds."""
    return {
        group: sum(one.seconds(device) for one in operations if one.group == group)
        for group in GROUPS
    }


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one answer costs in the language model.

    Attributes:
        prefill: Seconds by group until the first token.
        decode: Seconds for all further tokens.
        flops: Operations, as :meth:`m3router.m3core.cost.operations.ModelShape.answer_flops`.
        memory: What must fit.
    """

    prefill: Mapping[str, float]
    decode: float
    flops: float
    memory: Memory

    @property
    def prefill_seconds(self) -> float:
        """All groups together."""
        return sum(self.prefill.values())


def estimate(
    shape: ModelShape,
    prompt_tokens: int,
    answer_tokens: int = 1,
    *,
    device: Device,
    numbers: Numbers | None = None,
) -> Estimate:
    """Cost of one answer with fused attention.

    Raises:
        MismatchError: If prompt or answer has no token.
    """
    if min(prompt_tokens, answer_tokens) < 1:
        raise MismatchError(
            f"an answer needs at least one prompt token and one token of its own, got "
            f"{prompt_tokens} and {answer_tokens}"
        )
    numbers = numbers or Numbers()
    prefill = forward_pass(shape, prompt_tokens, numbers=numbers)
    decode = sum(
        one.seconds(device)
        for past in range(prompt_tokens, prompt_tokens + answer_tokens - 1)
        for one in forward_pass(shape, 1, past, numbers=numbers)
    )
    return Estimate(
        prefill=seconds_by_group(prefill, device),
        decode=decode,
        flops=shape.answer_flops(prompt_tokens, answer_tokens),
        memory=shape.memory(prompt_tokens, answer_tokens, numbers=numbers),
    )
