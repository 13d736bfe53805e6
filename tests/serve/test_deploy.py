"""What deploy/ has fits together, and fits this program; nothing of it is started here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from m3router.router.cli.main import app
from m3router.router.serve.gateway.metrics import GatewayMetrics
from tests.serve.test_gateway_metrics import OPTIONS, names, some_traffic

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMETHEUS, GRAFANA = DEPLOY / "prometheus", DEPLOY / "grafana"


def read(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


SERVICES = read(DEPLOY / "compose.yaml")["services"]


def parsed(arguments: list[str]) -> dict:
    """What `m3router` takes arguments for; fails as it does."""
    group = typer.main.get_command(app)
    return group.commands[arguments[0]].make_context(arguments[0], arguments[1:]).params


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_pinned_and_reachable_from_here_only(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["mem_limit"] == service["memswap_limit"]
    assert service["pids_limit"] > 0 and service["cpus"] > 0
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] or name == "prometheus"
    assert "build" in service or re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    volumes = read(DEPLOY / "compose.yaml")["volumes"]
    for source, _, *mode in (one.split(":") for one in service.get("volumes", ())):
        if source.startswith("."):
            assert (DEPLOY / source).exists() and mode == ["ro"]
        else:
            assert source in volumes
    assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_the_commands_are_this_programs():
    program, *serve = SERVICES["gateway"]["command"]
    given = parsed(serve)
    assert program == "m3router" and given["log_format"] == "json" and given["processes"] == 1
    asked = SERVICES["clients"]["command"][2]
    assert asked == f"http://gateway:{given['port']}"
    (scraped,) = read(PROMETHEUS / "prometheus.yaml")["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [asked.removeprefix("http://")]}]
    upstream = SERVICES["upstream"]["command"]
    wrong = [sys.executable, *upstream[1:], "--fault", "nothing"]  # refused once all is parsed
    told = subprocess.run(wrong, capture_output=True, text=True, timeout=60)
    assert told.returncode == 2 and "--fault NAME=N" in told.stderr
    assert given["upstream"] == f"http://upstream:{upstream[4].partition('=')[2]}/v1"


def test_the_scripts_commands_are_this_programs():
    script = DEPLOY / "demo" / "make_run.sh"
    subprocess.run(["sh", "-n", script], check=True)
    lines = script.read_text().replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("m3router ")]
    assert [parsed(one[1:]) is not None for one in commands] == [True] * 3
    for name in SERVICES["clients"]["command"], SERVICES["run"]["command"]:
        assert (DEPLOY / name[1].removeprefix("/")).is_file()


def test_whatever_the_dashboard_and_the_rules_ask_for_is_on_the_page():
    metrics = GatewayMetrics(options=OPTIONS)
    some_traffic(metrics)
    known = names(metrics.page())
    board = json.loads((GRAFANA / "dashboards" / "gateway.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [one["query"]["query"] for one in board["templating"]["list"]]
    rules = [one for group in read(PROMETHEUS / "rules.yaml")["groups"] for one in group["rules"]]
    asked += [rule["expr"] for rule in rules]
    used = set(re.findall(r"m3router_\w+", " ".join(asked)))
    assert used <= known, used - known
    shown = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in used}
    told = {re.sub(r"_(bucket|sum|count|total|created)$", "", name) for name in known}
    assert told == shown, told - shown  # and nothing is counted that nobody can see
    assert len({panel["title"] for panel in board["panels"]}) == len(board["panels"])


def test_grafana_finds_prometheus_and_the_dashboard():
    (source,) = read(GRAFANA / "provisioning/datasources/prometheus.yaml")["datasources"]
    board = (GRAFANA / "dashboards" / "gateway.json").read_text()
    assert set(re.findall(r'"uid": "(\w+)"\s*}', board)) == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read(GRAFANA / "provisioning/dashboards/dashboards.yaml")["providers"]
    mounted = [one.split(":") for one in SERVICES["grafana"]["volumes"]]
    assert ["./grafana/dashboards", provider["options"]["path"], "ro"] in mounted
    rules = read(PROMETHEUS / "prometheus.yaml")["rule_files"]
    assert all((PROMETHEUS / one).is_file() for one in rules)
