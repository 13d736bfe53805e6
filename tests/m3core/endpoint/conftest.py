from __future__ import annotations

import pytest

from tests.m3core.endpoint.scripted import ScriptedServer


@pytest.fixture
def server():
    made = ScriptedServer()
    yield made
    made.close()
