"""deploy/compose: valid, pinned, and in step with the service; its board and alerts ask for metrics that there are."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from compose_spec import PyCompose
from prometheus_client.parser import text_string_to_metric_families

import service.errors
from service.app import create_app
from service.errors import RequestError
from service.processes.supervisor import SPARE_SECONDS
from service.settings import ModelSettings, Settings
from tests.helpers import REPOSITORY, eventually_async

FOLDER = REPOSITORY / "deploy" / "compose"
FLAGS = {"TANDEM_WORKERS"}
OWN_LABELS = {"job", "instance"}
"""Prometheus adds these to every metric."""
NOT_COUNTED = {"replica-lost"}
"""Kinds of problems that the service itself never answers with."""

Labels = dict[str, set[str]]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return parsed


@pytest.fixture(scope="module")
def prometheus() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
    return parsed


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboards" / "tandem.json").read_text())
    return parsed


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    parsed = yaml.safe_load((FOLDER / "prometheus" / "alerts.yml").read_text())
    [group] = parsed["groups"]
    assert set(parsed) == {"groups"}
    return list(group["rules"])


async def scrape() -> list[str]:
    """What /metrics of a service says, ready and draining, after a request that failed."""
    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
    pair = ModelSettings(id="pair", code="bb72", decoder="tandem", rounds=1, second_processes=1)
    app = create_app(Settings(models=(model, pair)))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://m") as client:

        async def ready() -> bool:
            return (await client.get("/readyz")).is_success

        await eventually_async(ready)
        assert (await client.post("/v1/models/m/decode", content=b"?")).status_code == 415
        texts = [(await client.get("/metrics")).text]
        app.state.engine.drain()
        return [*texts, (await client.get("/metrics")).text]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return asyncio.run(scrape())


@pytest.fixture(scope="module")
def exported(texts: list[str]) -> Labels:
    """Metrics by name, with their labels."""
    found: Labels = {"up": set(OWN_LABELS)}
    for family in text_string_to_metric_families(texts[0]):
        for sample in family.samples:
            found.setdefault(sample.name, set(OWN_LABELS)).update(sample.labels)
    return found


def test_a_service_says_whether_it_is_ready(texts: list[str]):
    assert ["\ntandem_ready 1.0\n" in text for text in texts] == [True, False]
    assert "\ntandem_ready 0.0\n" in texts[1]


def nodes_of(expression: promql_parser.Expr, kind: type) -> list[Any]:
    """All parts of one kind."""
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(expression, pre_visit=lambda node: nodes.append(node) and None)
    return [node for node in nodes if isinstance(node, kind)]


def problems(query: str, exported: Labels) -> list[str]:
    """What a query asks for that is not exported."""
    expression = promql_parser.parse(query.replace("$__rate_interval", "5m"))
    selectors = nodes_of(expression, promql_parser.VectorSelector)
    assert selectors, query
    used = [(one.name, matcher.name) for one in selectors for matcher in one.matchers.matchers]
    for aggregate in nodes_of(expression, promql_parser.AggregateExpr):
        labels = aggregate.modifier.labels if aggregate.modifier else []
        within = nodes_of(aggregate.expr, promql_parser.VectorSelector)
        used += [(one.name, label) for one in within for label in labels]
    missing = [one.name for one in selectors if one.name not in exported]
    return missing + [f"{name}{{{label}}}" for name, label in used if label not in exported.get(name, {label})]


def test_a_query_for_what_is_not_exported_is_found(exported: Labels):
    assert problems("sum(rate(tandem_shots_total[5m]))", exported) == []
    assert problems("sum(rate(tandem_shot_total[5m]))", exported) == ["tandem_shot_total"]
    assert problems("sum by (kind) (rate(tandem_failures_total[5m]))", exported) == ["tandem_failures_total{kind}"]
    assert problems('tandem_ready{model="m"}', exported) == ["tandem_ready{model}"]
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(tandem_shots_total[5m])")


def queries(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in board["templating"]["list"]:
        yield from re.findall(r"^label_values\((\w+), \w+\)$", variable["definition"])


def test_the_board_asks_for_metrics_that_there_are(board: dict[str, Any], exported: Labels):
    asked = list(queries(board))
    assert len(asked) > 20
    assert [problem for query in asked for problem in problems(query, exported)] == []
    # And shows all that the service has of its own.
    ours = {re.sub("_(count|sum|bucket|created)$", "", name) for name in exported if name.startswith("tandem_")}
    ours -= {name.removesuffix("_total") for name in ours if name.endswith("_total")}
    shown = " ".join(asked)
    assert {name for name in ours if name not in shown} == set()


def test_panels_do_not_overlap_and_ask_the_provisioned_source(board: dict[str, Any]):
    [source] = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    sources = [panel["datasource"] for panel in board["panels"]]
    sources += [target["datasource"] for panel in board["panels"] for target in panel["targets"]]
    assert all(one == {"type": source["type"], "uid": source["uid"]} for one in sources)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_alerts_ask_for_metrics_that_there_are(rules: list[dict[str, Any]], exported: Labels):
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 6
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert problems(rule["expr"], exported) == []
        assert re.fullmatch(r"\d+[ms]", rule.get("for", "0s"))


def test_alerts_know_the_kinds_of_problems_and_the_bounds(rules: list[dict[str, Any]]):
    by_name = {rule["alert"]: rule["expr"] for rule in rules}
    kinds = {
        error.kind: error.status
        for error in vars(service.errors).values()
        if isinstance(error, type) and issubclass(error, RequestError) and error is not RequestError
    }
    reasons = {
        name: set(re.findall(r'reason=~"([^"]+)"', query)[0].split("|"))
        for name, query in by_name.items()
        if "reason" in query
    }
    assert reasons["TandemServerErrors"] == {kind for kind, status in kinds.items() if status >= 500} - NOT_COUNTED
    assert reasons["TandemTooLate"] <= set(kinds)
    [bound] = re.findall(r"tandem_queued_shots > (\d+)", by_name["TandemQueueNearlyFull"])
    assert int(bound) == 0.8 * Settings.model_fields["max_queued_shots"].default


def test_compose_is_what_the_specification_allows():
    text = (FOLDER / "compose.yaml").read_text()
    parsed = PyCompose.from_yaml(text)
    parsed.validate()
    assert parsed.service_names() == ["tandem", "caddy", "prometheus", "grafana"]
    for wrong in ("restrat: always", "stop_grace_period: 75 parsecs", "ports: [eight]"):
        with pytest.raises(ValueError, match=r"services\.tandem"):
            PyCompose.from_yaml(text.replace("restart: unless-stopped", wrong, 1))


def test_images_are_pinned(compose: dict[str, Any]):
    tags = {name: one["image"].partition(":")[2] for name, one in compose["services"].items()}
    assert all(re.fullmatch(r"v?\d+\.\d+\.\d+", tag) for tag in tags.values()), tags
    assert f'version = "{tags["tandem"]}"' in (REPOSITORY / "pyproject.toml").read_text()
    assert (FOLDER / compose["services"]["tandem"]["build"] / "Dockerfile").is_file()


def test_only_what_speaks_tls_is_open_to_other_machines(compose: dict[str, Any]):
    ports = {name: one["ports"] for name, one in compose["services"].items()}
    assert ports == {
        "tandem": ["127.0.0.1:8000:8000"],
        "caddy": ["443:443", "443:443/udp", "80:80"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    [exposed] = re.findall(r"^EXPOSE (\d+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert ports["tandem"][0].endswith(f":{exposed}")


def test_what_is_mounted_is_there_or_kept_out_of_git(compose: dict[str, Any]):
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    sources = [volume.split(":")[0] for one in compose["services"].values() for volume in one.get("volumes", ())]
    folders = [source for source in sources if source.startswith(".")]
    assert len(folders) == 5
    for folder in folders:
        secret = f"/{(FOLDER / folder).resolve().relative_to(REPOSITORY)}/" in ignored
        assert secret or (FOLDER / folder).is_dir(), folder
    assert "/deploy/compose/secrets/" in ignored
    assert all(secret["file"].startswith("./secrets/") for secret in compose["secrets"].values())
    assert set(sources) - set(folders) == set(compose["volumes"])
    for one in compose["services"].values():
        assert set(one.get("depends_on", ())) <= set(compose["services"])
        assert set(one.get("secrets", ())) <= set(compose["secrets"])


def test_everything_is_bounded_and_the_service_as_on_kubernetes(compose: dict[str, Any]):
    assert all(one["mem_limit"] and one["pids_limit"] for one in compose["services"].values())
    deployment = yaml.safe_load((REPOSITORY / "deploy" / "kubernetes" / "deployment.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    tandem = compose["services"]["tandem"]
    limit = tandem["mem_limit"]
    assert container["resources"]["limits"]["memory"] == limit.replace("g", "Gi")
    assert tandem["memswap_limit"] == limit


def test_caddy_lets_through_what_the_service_takes(compose: dict[str, Any]):
    text = (FOLDER / "caddy" / "Caddyfile").read_text()
    fields = Settings.model_fields
    [most] = re.findall(r"max_size (\d+)MiB", text)
    assert int(most) * 2**20 == fields["max_body_bytes"].default
    for name, setting in (("read_header", "header_timeout"), ("read_body", "body_timeout"), ("idle", "keep_alive")):
        assert float(re.findall(rf"{name} (\d+)s", text)[0]) == fields[f"{setting}_seconds"].default
    [upstream] = re.findall(r"reverse_proxy \{\$TANDEM_UPSTREAM:([^}]+)\}", text)
    host, _, port = upstream.partition(":")
    assert compose["services"][host]["ports"][0].endswith(f":{port}")
    assert "./caddy:/etc/caddy:ro" in compose["services"]["caddy"]["volumes"]
    [network] = compose["networks"]["default"]["ipam"]["config"]
    assert json.loads(compose["services"]["tandem"]["environment"]["TANDEM_TRUSTED_PROXIES"]) == [network["subnet"]]


@pytest.mark.skipif(shutil.which("caddy") is None, reason="this machine has no caddy")
def test_caddy_understands_its_file():
    command = ["caddy", "validate", "--config", str(FOLDER / "caddy" / "Caddyfile"), "--adapter", "caddyfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_service_is_given_settings_that_there_are(compose: dict[str, Any]):
    tandem = compose["services"]["tandem"]
    known = {f"TANDEM_{name.upper()}" for name in Settings.model_fields} | FLAGS
    assert {name for name in tandem["environment"] if name.startswith("TANDEM_")} <= known
    [keys] = [volume.split(":")[1] for volume in tandem["volumes"]]
    assert tandem["environment"]["TANDEM_API_KEYS_FILE"] == f"{keys}/api-keys"
    assert tandem["read_only"] is True
    fields = Settings.model_fields
    longest = fields["drain_seconds"].default + 2 * fields["shutdown_timeout_seconds"].default + SPARE_SECONDS
    assert int(tandem["stop_grace_period"].removesuffix("s")) >= longest


def test_prometheus_scrapes_the_service_with_the_key(compose: dict[str, Any], prometheus: dict[str, Any]):
    [job] = prometheus["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert compose["services"][host]["ports"][0].endswith(f":{port}")
    assert job["metrics_path"] in create_app().openapi()["paths"]
    secret = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert secret in compose["services"]["prometheus"]["secrets"]
    assert all((FOLDER / "prometheus" / name).is_file() for name in prometheus["rule_files"])
    [configuration] = [word for word in compose["services"]["prometheus"]["command"] if "config.file" in word]
    assert configuration == "--config.file=/etc/prometheus/prometheus.yml"
    assert "./prometheus:/etc/prometheus:ro" in compose["services"]["prometheus"]["volumes"]


def test_grafana_finds_its_source_and_its_board(compose: dict[str, Any]):
    provisioning = FOLDER / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    name, _, port = source["url"].removeprefix("http://").partition(":")
    assert compose["services"][name]["ports"][0].endswith(f":{port}")
    [provider] = yaml.safe_load((provisioning / "dashboards" / "tandem.yml").read_text())["providers"]
    grafana = compose["services"]["grafana"]
    folder = provider["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in grafana["volumes"]
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/tandem.json"
    password = grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"].removeprefix("/run/secrets/")
    assert password in grafana["secrets"]
