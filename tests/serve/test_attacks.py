"""Whoever means harm to the model server harms nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.attacks import ATTACKS
from tests.serve.others import Attacked, served, unharmed
from tests.serve.small_run import SmallRun


@pytest.fixture(scope="module")
def attacked(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("model_server")
    with served(folder, str(small_run.root), model="m3-auto") as found:
        yield found


@pytest.mark.slow  # some ten seconds each, on two idle cores
@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_not_harmed(attacked: Attacked, name: str) -> None:
    unharmed(name, attacked)
