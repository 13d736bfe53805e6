"""What an answer cost, in words."""

from __future__ import annotations

from m3router.m3core.options import Usage
from m3router.router.text.numbers import number


def cost_text(cost: float, unit: str) -> str:
    """A cost with its unit; prices have none of their own.

    >>> cost_text(64.0, "image tokens"), cost_text(0.5, "price")
    ('64 image tokens', 'price 0.5')
    """
    return f"{unit} {number(cost)}" if unit == "price" else f"{number(cost)} {unit}"


def usage_text(usage: Usage, cost_unit: str) -> str:
    """What is known of a usage, on one line.

    >>> usage_text(Usage(cost=64.0, image_tokens=64, answer_tokens=3), "image tokens")
    '64 image tokens, 3 answer tokens'
    """
    parts = [] if usage.cost is None else [cost_text(usage.cost, cost_unit)]
    for name in ("image_tokens", "prompt_tokens", "cached_tokens", "answer_tokens"):
        value = getattr(usage, name)
        if value is not None and name.replace("_", " ") != cost_unit:
            parts.append(f"{value} {name.replace('_', ' ')}")
    flops = {"tower": usage.tower_flops, "language model": usage.language_flops}
    parts += [f"{number(n / 1e9)} GFLOPs in the {where}" for where, n in flops.items() if n]
    if usage.price is not None and cost_unit != "price":
        parts.append(f"price {number(usage.price)}")
    return ", ".join(parts)
