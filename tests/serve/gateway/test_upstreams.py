"""Which servers a run's options are asked of, and which server `m3router serve` starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from m3router.data.errors import DataError
from m3router.router.serve.gateway.upstreams import Upstream, upstreams_of, with_models
from m3router.router.serve.launch import upstreams_for
from m3router.router.serve.settings import ServeSettings
from tests.serve.gateway.endpoint_run import OPTIONS

NAMES = ("coarse", "fine")
SPEC = {"kind": "endpoint", "url": "http://labelled:1/v1", "options": OPTIONS, "key": None}
LABELLED = {"log": {"spec": SPEC}}
TWO = """
[[upstream]]
name = "one"
url = "http://one:8000"
options = ["coarse"]
key_env = "ONE_KEY"

[[upstream]]
name = "two"
url = "http://two:8000/api/v1/"
options = ["fine"]
"""


def test_a_run_of_an_endpoint_goes_to_it_or_elsewhere(monkeypatch):
    own = upstreams_of(LABELLED, NAMES)
    assert [one.url for one in own.servers] == ["http://labelled:1/v1"]
    assert own.finest == "fine" and own.models == {"stand-in"}
    assert own.options["coarse"].body == OPTIONS["option"][0]["body"]
    there = upstreams_of(LABELLED, NAMES, upstream="http://there", model="other")
    assert there.servers[0].url == "http://there/v1" and there.models == {"other"}
    keyed = {"log": {"spec": {**SPEC, "key": {"environment": "OWN_KEY"}}}}
    with pytest.raises(DataError, match="OWN_KEY"):
        upstreams_of(keyed, NAMES)
    assert upstreams_of(keyed, NAMES, upstream="http://there").servers[0].key is None
    monkeypatch.setenv("OWN_KEY", "sk-own")
    assert upstreams_of(keyed, NAMES).servers[0].key.reveal() == "sk-own"


def test_a_file_of_upstreams(tmp_path, monkeypatch):
    path = tmp_path / "up.toml"
    path.write_text(TWO)
    with pytest.raises(DataError, match="upstream 1: the environment variable ONE_KEY"):
        upstreams_of(LABELLED, NAMES, upstream=str(path))
    monkeypatch.setenv("ONE_KEY", "sk-one")
    monkeypatch.setenv("REST", "sk-rest")
    found = upstreams_of(LABELLED, NAMES, upstream=str(path), key_env="REST")
    assert [(one.name, one.url, one.key.reveal()) for one in found.servers] == [
        ("one", "http://one:8000/v1", "sk-one"),
        ("two", "http://two:8000/api/v1", "sk-rest"),
    ]
    assert not found.alike("coarse", "fine") and found.alike("fine", "fine")
    path.write_text('[[upstream]]\nurl = "http://one"\n')
    assert upstreams_of(LABELLED, NAMES, upstream=str(path)).servers[0].name == "upstream"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there must be tables"),
        ("[[upstream]]\nname = 'a'\n", "it has no url"),
        ("[[upstream]]\nurl = 'ftp://x'\n", "must begin with http"),
        ("[[upstream]]\nurl = 'http://u:p@x'\n", "a user or a password"),
        ("[[upstream]]\nurl = 'http://x'\nkey = 'sk'\n", "Did you mean 'key_env'"),
        ("[[upstream]]\nurl = 'http://x'\noptions = ['coarsee']\n", "Did you mean 'coarse'"),
        ("[[upstream]]\nurl = 'http://x'\noptions = ['coarse']\n", "no upstream has the options"),
        (TWO.replace("fine", "coarse").replace('key_env = "ONE_KEY"', ""), "has the upstream"),
        (TWO.replace("two", "one", 1).replace('key_env = "ONE_KEY"', ""), "is used twice"),
        ("upstream = 5", "there must be tables"),
        ("x = 1\n[[upstream]]\nurl = 'http://x'\n", "Unknown key 'x'"),
        ("[", "nor a TOML file"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, text, told):
    path = tmp_path / "up.toml"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        upstreams_of(LABELLED, NAMES, upstream=str(path))
    assert told in str(error.value)


def test_what_is_missing_is_said(tmp_path):
    for upstream in ("localhost:8000", str(tmp_path / "none.toml")):
        with pytest.raises(DataError, match="neither an address that begins with http"):
            upstreams_of(LABELLED, NAMES, upstream=upstream)
    with pytest.raises(DataError, match=r"--preset NAME or --options FILE"):
        upstreams_of({"log": {}}, NAMES, upstream="http://x")
    with pytest.raises(DataError, match="The router chooses between the options coarse, fine"):
        upstreams_of({}, NAMES, upstream="http://x", preset="openai-detail", model="m")
    named = upstreams_of({}, ("high", "low"), upstream="http://x", preset="openai-detail")
    assert named.finest == "low", "the router's order counts"
    assert upstreams_of({"log": {"model": "embedded"}}, ("1", "9")) is None
    with pytest.raises(DataError, match="--preset says how an upstream is asked"):
        upstreams_of({}, NAMES, preset="openai-detail")
    with pytest.raises(DataError, match=r"kind 'vlm', which is not served here.*--upstream"):
        upstreams_of({"log": {"spec": {"kind": "vlm"}}}, NAMES)
    with pytest.raises(DataError, match=r"several models"):
        two = {"option": [{"name": "coarse", "model": "a"}, {"name": "fine", "model": "b"}]}
        spec = {"log": {"spec": {**SPEC, "options": two}}}
        upstreams_of(spec, NAMES, upstream="http://x", model="m")


def test_options_without_a_model_take_the_servers_only_one():
    asked = upstreams_of({}, ("low", "high"), upstream="http://x", preset="openai-detail")
    assert with_models(asked, lambda server: ["m"]).models == {"m"}
    for listed in ([], ["a", "b"]):
        with pytest.raises(DataError, match="give --model NAME"):
            with_models(asked, lambda server, listed=listed: listed)
    assert isinstance(asked.servers[0], Upstream)


def test_which_server_a_run_starts(small_run, endpoint_run):
    assert upstreams_for(ServeSettings(run=str(small_run.root))) is None
    found = upstreams_for(ServeSettings(run=str(endpoint_run.root)))
    assert tuple(found.options) == NAMES
    with pytest.raises(DataError, match="--preset NAME or --options FILE"):
        upstreams_for(ServeSettings(run=str(small_run.root), upstream="http://x"))


def test_what_relays_loads_no_torch():
    code = (
        "import sys; import m3router.router.serve.gateway.app; import m3router.router.serve.launch;"
        "print([one for one in ('torch', 'transformers', 'aiohttp', 'fastapi') "
        "if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
