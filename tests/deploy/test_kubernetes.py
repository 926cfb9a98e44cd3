"""deploy/kubernetes: valid for Kubernetes, and in step with the image and the service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.app import create_app
from service.http.middleware import PROBES
from service.processes.supervisor import SPARE_SECONDS
from service.settings import Settings, read_settings
from tests.helpers import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes"
VERSION = "1.37"
# What the schemas of Kubernetes itself do not know.
FOREIGN = {"kustomization.yaml", "servicemonitor.yaml"}
# `tandem serve` reads these beside the settings.
FLAGS = {"TANDEM_HOST", "TANDEM_PORT", "TANDEM_WORKERS", "TANDEM_INSECURE"}

Manifest = dict[str, Any]


def load(name: str) -> Manifest:
    manifest: Manifest = yaml.safe_load((FOLDER / name).read_text())
    return manifest


@pytest.fixture
def deployment() -> Manifest:
    return load("deployment.yaml")


@pytest.fixture
def pod(deployment: Manifest) -> Manifest:
    spec: Manifest = deployment["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    [only] = pod["containers"]
    assert isinstance(only, dict)
    return only


@pytest.fixture
def dockerfile() -> str:
    return (REPOSITORY / "Dockerfile").read_text()


@pytest.mark.parametrize("name", sorted({path.name for path in FOLDER.iterdir()} - FOREIGN))
def test_a_manifest_has_the_schema_of_its_kind(name: str):
    manifest = load(name)
    assert kubernetes_validate.validate(manifest, VERSION, strict=True) == VERSION
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest | {"specs": {}}, VERSION, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "template", "spec", "container"), []),
        (("spec", "template", "spec", "containers", 0, "readinessProbe", "httpGet", "pth"), "/readyz"),
        (("spec", "template", "spec", "containers", 0, "resources", "limits"), ["cpu"]),
        (("spec", "strategy", "rollingUpdate", "maxSurge"), {}),
    ],
)
def test_a_field_that_is_wrong_deep_inside_is_found(deployment: Manifest, path: tuple[str | int, ...], value: object):
    place: Any = deployment
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSION, strict=True)


def test_kustomization_has_all_that_kubernetes_itself_knows(container: Manifest):
    kustomization = load("kustomization.yaml")
    assert sorted(kustomization["resources"]) == sorted({path.name for path in FOLDER.iterdir()} - FOREIGN)
    assert load("namespace.yaml")["metadata"]["name"] == kustomization["namespace"]
    assert kustomization["namespace"] == load("servicemonitor.yaml")["metadata"]["namespace"]
    [image] = kustomization["images"]
    name, _, tag = container["image"].partition(":")
    assert (image["name"], image["newTag"]) == (name, tag)
    assert f'version = "{tag}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_everything_selects_the_pods_of_the_deployment(deployment: Manifest, pod: Manifest):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        load("service.yaml")["spec"]["selector"],
        load("disruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        load("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        load("servicemonitor.yaml")["spec"]["selector"]["matchLabels"],
        pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * len(selectors)
    assert load("service.yaml")["metadata"]["labels"] == labels  # which the ServiceMonitor selects
    target = load("autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]


def test_ports_are_those_of_the_image(container: Manifest, dockerfile: str):
    [port] = container["ports"]
    assert re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE) == [str(port["containerPort"])]
    [served] = load("service.yaml")["spec"]["ports"]
    [allowed] = load("networkpolicy.yaml")["spec"]["ingress"][0]["ports"]
    [scraped] = load("servicemonitor.yaml")["spec"]["endpoints"]
    assert served["targetPort"] == allowed["port"] == port["name"]
    assert scraped["port"] == served["name"]
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[kind]["httpGet"]["port"] == port["name"]


def test_probes_ask_what_the_service_answers_without_a_key(container: Manifest):
    routes = set(create_app().openapi()["paths"])
    paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    assert paths == ["/readyz", "/readyz", "/healthz"]
    assert set(paths) <= routes & PROBES
    assert load("servicemonitor.yaml")["spec"]["endpoints"][0]["path"] in routes


def environment(container: Manifest) -> Iterator[tuple[str, str]]:
    [source] = container["envFrom"]
    config = load("configmap.yaml")
    assert source["configMapRef"]["name"] == config["metadata"]["name"]
    yield from config["data"].items()
    yield from ((entry["name"], entry["value"]) for entry in container["env"])


def test_the_environment_holds_settings_that_there_are(container: Manifest, monkeypatch: pytest.MonkeyPatch):
    known = {f"TANDEM_{name.upper()}" for name in Settings.model_fields} | FLAGS
    variables = dict(environment(container))
    assert {name for name in variables if name.startswith("TANDEM_")} <= known
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert settings.log_format == "json"
    assert settings.drain_seconds > Settings.model_fields["drain_seconds"].default


def test_a_pod_may_take_as_long_to_end_as_the_service_does(
    container: Manifest, pod: Manifest, monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment(container):
        monkeypatch.setenv(name, value)
    settings = read_settings()
    longest = settings.drain_seconds + 2 * settings.shutdown_timeout_seconds + SPARE_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= longest


def test_links_to_services_do_not_become_settings(pod: Manifest):
    service = load("service.yaml")["metadata"]["name"]
    assert f"{service.upper()}_PORT" in FLAGS  # what Kubernetes would set to tcp://...
    assert pod["enableServiceLinks"] is False


def test_keys_come_from_the_secret(container: Manifest, pod: Manifest):
    text = (FOLDER / "deployment.yaml").read_text()
    [volume] = [volume for volume in pod["volumes"] if "secret" in volume]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    [item] = volume["secret"]["items"]
    assert dict(environment(container))["TANDEM_API_KEYS_FILE"] == f"{mount['mountPath']}/{item['path']}"
    assert f"create secret generic {volume['secret']['secretName']} --from-file={item['key']}=" in text
    # Root's file, and readable by the group that the service runs in.
    assert volume["secret"]["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    credentials = load("servicemonitor.yaml")["spec"]["endpoints"][0]["authorization"]["credentials"]
    command = f"create secret generic {credentials['name']} --from-literal={credentials['key']}=KEY"
    assert command in (FOLDER / "servicemonitor.yaml").read_text()


def test_pods_are_as_restricted_as_their_namespace_asks(container: Manifest, pod: Manifest, dockerfile: str):
    assert load("namespace.yaml")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    [uid] = re.findall(r"--uid (\d+)", dockerfile)
    assert pod["securityContext"]["runAsUser"] == int(uid)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # All that is written goes to the one place that can be.
    [scratch] = [volume["name"] for volume in pod["volumes"] if "emptyDir" in volume]
    [place] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == scratch]
    variables = dict(environment(container))
    for name in ("TMPDIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        assert Path(variables[name]).is_relative_to(place)


def test_what_is_asked_for_is_within_the_limits(container: Manifest):
    units = {"Mi": 2**20, "Gi": 2**30}
    memory = {
        kind: int(amount["memory"][:-2]) * units[amount["memory"][-2:]]
        for kind, amount in container["resources"].items()
    }
    assert 2**30 < memory["requests"] <= memory["limits"]
    assert int(container["resources"]["requests"]["cpu"]) <= int(container["resources"]["limits"]["cpu"])
    autoscaler = load("autoscaler.yaml")["spec"]
    # A budget of one pod would keep a node from being drained if there were only one.
    assert 2 <= autoscaler["minReplicas"] < autoscaler["maxReplicas"]
