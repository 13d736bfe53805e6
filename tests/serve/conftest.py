from __future__ import annotations

import pytest

from tests.serve.small_run import SmallRun, make_small_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> SmallRun:
    return make_small_run(tmp_path_factory.getbasetemp() / "small_run")
