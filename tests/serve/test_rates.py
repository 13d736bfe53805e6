"""Token buckets against a log of all requests that were let in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.serve.guard.rates import Rates, neighbourhood


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    per_minute=st.sampled_from([0.5, 1, 6, 60, 1000]),
    burst=st.integers(1, 10),
    gaps=st.lists(st.sampled_from([0.0, 0.01, 0.5, 1.0, 7.0, 61.0]), max_size=60),
)
def test_never_more_than_the_burst_and_the_rate(
    per_minute: float, burst: int, gaps: list[float]
) -> None:
    clock = Clock()
    rates = Rates(per_minute, burst, clock=clock)
    let_in: list[float] = []
    for gap in gaps:
        clock.now += gap
        if rates.take("a") == 0:
            let_in.append(clock.now)
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            allowed = burst + per_minute * (let_in[last] - let_in[first]) / 60
            assert last - first + 1 <= math.floor(allowed + 1e-6)


@given(per_minute=st.sampled_from([1, 7, 60]), burst=st.integers(1, 5))
def test_the_wait_is_exact(per_minute: float, burst: int) -> None:
    clock = Clock()
    rates = Rates(per_minute, burst, clock=clock)
    assert [rates.take("a") for _ in range(burst)] == [0.0] * burst
    wait = rates.take("a")
    assert wait == pytest.approx(60 / per_minute)
    clock.now += wait * 0.99
    assert rates.take("a") > 0, "asking too early costs nothing and gains nothing"
    clock.now += wait * 0.02
    assert rates.take("a") == 0


def test_everybody_has_a_bucket_and_keys_their_own_rate() -> None:
    rates = Rates(1, 1, clock=Clock())
    assert rates.take("a") == 0 and rates.take("b") == 0
    assert rates.take("a") == pytest.approx(60)
    assert rates.take("c", per_minute=600) == 0
    assert rates.take("c", per_minute=600) == pytest.approx(0.1)


def test_no_rate_is_no_limit_and_keeps_nothing() -> None:
    rates = Rates(None, 1, clock=Clock())
    assert {rates.take(str(number)) for number in range(1000)} == {0.0}
    assert len(rates) == 0
    assert rates.take("a", per_minute=1) == 0 and rates.take("a", per_minute=1) > 0


def test_memory_is_bounded_and_the_busy_are_kept() -> None:
    rates = Rates(1, 1, most=100, clock=Clock())
    assert rates.take("busy") == 0
    for number in range(10_000):
        rates.take(f"passer-by {number}")
        assert rates.take("busy") > 0
    assert len(rates) == 100


@pytest.mark.parametrize(
    ("per_minute", "burst", "most"), [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1, 0)]
)
def test_numbers_out_of_range(per_minute: float, burst: int, most: int) -> None:
    with pytest.raises(DataError, match="must be"):
        Rates(per_minute, burst, most=most)


def test_addresses_of_one_customer_are_one() -> None:
    assert neighbourhood("2001:db8:1:2::5") == neighbourhood("2001:db8:1:2:ffff::1")
    assert neighbourhood("2001:db8:1:2::5") != neighbourhood("2001:db8:1:3::5")
    assert neighbourhood("fe80::1%eth0") == "fe80::/64"
    assert neighbourhood("192.0.2.1") != neighbourhood("192.0.2.2")
