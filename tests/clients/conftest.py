from __future__ import annotations

import os
from pathlib import Path

import pytest

collect_ignore = ["scripts"]  # run in the environments of their clients, not imported here


@pytest.fixture(scope="session")
def cache(request, tmp_path_factory) -> Path:
    if os.environ.get("M3ROUTER_CLIENTS_CACHE"):
        return Path(os.environ["M3ROUTER_CLIENTS_CACHE"])
    kept = getattr(request.config, "cache", None)
    return kept.mkdir("clients") if kept else tmp_path_factory.mktemp("clients")
