"""Manifests and Helm values of the cluster: valid for Kubernetes' own models, and of one mind with each other and with the code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.deploy

CLUSTER = Path(__file__).resolve().parents[2] / "deploy" / "cluster"
FILES = sorted((CLUSTER / "manifests").glob("*.yaml"))
DAGSTER = yaml.safe_load((CLUSTER / "dagster-values.yaml").read_text())
RAY = yaml.safe_load((CLUSTER / "ray-values.yaml").read_text())
# kind → name of the model in Kubernetes' Python client
MODELS = {
    **{name: f"V1{name}" for name in ("Namespace", "ResourceQuota", "LimitRange", "PriorityClass", "ConfigMap", "Service")},
    **{name: f"V1{name}" for name in ("PersistentVolumeClaim", "NetworkPolicy", "Deployment")},
}
CUSTOM = {"RayJob": "ray.io/v1", "PodMonitor": "monitoring.coreos.com/v1"}
POD, CONTAINER = "V1PodSpec", "V1Container"


def documents() -> list[dict[str, Any]]:
    return [document for file in FILES for document in yaml.safe_load_all(file.read_text())]


def faults(value: Any, model: str, where: str) -> Iterator[str]:
    """What Kubernetes would refuse: unknown keys, wrong types, required keys that are missing."""
    from kubernetes import client

    if listed := re.fullmatch(r"list\[(.+)\]", model):
        if not isinstance(value, list):
            yield f"{where}: a list is wanted"
            return
        for number, item in enumerate(value):
            yield from faults(item, listed[1], f"{where}[{number}]")
    elif mapped := re.fullmatch(r"dict\(str, (.+)\)", model):
        if not isinstance(value, dict):
            yield f"{where}: a mapping is wanted"
            return
        for name, item in value.items():
            yield from faults(item, mapped[1], f"{where}.{name}")
    elif hasattr(client, model):
        kind = getattr(client, model)
        attributes = {key: name for name, key in kind.attribute_map.items()}
        for key in value:
            if key not in attributes:
                yield f"{where}.{key}: unknown to {model}"
        known = {attributes[key]: item for key, item in value.items() if key in attributes}
        try:
            kind(**known)
        except ValueError as error:
            yield f"{where}: {error}"
        for name, item in known.items():
            yield from faults(item, kind.openapi_types[name], f"{where}.{kind.attribute_map[name]}")
    elif model in ("str", "int", "bool") and type(value).__name__ != model:
        yield f"{where}={value!r}: {model} is wanted"


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Where → pod spec, of manifests and values."""
    for document in documents():
        if document["kind"] == "Deployment":
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]
        if document["kind"] == "RayJob":
            cluster = document["spec"]["rayClusterSpec"]
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                yield f"pretraining {group.get('groupName', 'head')}", group["template"]["spec"]
    launched = DAGSTER["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    yield "run", {**launched["podSpecConfig"], "containers": [{"name": "dagster", **launched["containerConfig"]}]}
    for name, group in {"head": RAY["head"], "worker": RAY["worker"], **RAY["additionalWorkerGroups"]}.items():
        kept = ("volumes", "nodeSelector", "tolerations", "priorityClassName")
        container = {"name": name, "env": group["containerEnv"]} | {
            key: group[key] for key in ("resources", "securityContext", "volumeMounts", "envFrom") if key in group
        }
        spec = {key: group[key] for key in kept if key in group} | {"securityContext": group["podSecurityContext"]}
        yield f"ray {name}", {**spec, "containers": [container, *group.get("sidecarContainers", ())]}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", ())]


@pytest.mark.parametrize("document", documents(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_every_manifest_is_valid_for_kubernetes(document):
    if document["kind"] in CUSTOM:
        assert document["apiVersion"] == CUSTOM[document["kind"]]
        return
    assert list(faults(document, MODELS[document["kind"]], document["kind"])) == []


def test_a_wrong_key_and_a_wrong_type_are_found():
    wrong = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": "5000"}], "selektor": {}}}
    found = list(faults(wrong, "V1Service", "Service"))
    assert found == ["Service.spec.selektor: unknown to V1ServiceSpec", "Service.spec.ports[0].port='5000': int is wanted"]


@pytest.mark.parametrize(("where", "pod"), list(pods()), ids=[where for where, _ in pods()])
def test_every_pod_is_valid_and_meets_the_restricted_standard(where, pod):
    assert list(faults(pod, POD, where)) == []
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(pod):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]["memory"]
        assert container["resources"]["limits"]["memory"]
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


def faults_of_values(values: dict[str, Any], chart: Path) -> list[str]:
    """What Helm itself would refuse: the chart's values with ours over them, against the chart's schema."""
    import jsonschema

    def local(node: Any) -> Any:
        """Without what is looked up on the network: Kubernetes' own kinds, which other tests look at."""
        if isinstance(node, list):
            return [local(each) for each in node]
        if not isinstance(node, dict):
            return node
        return {key: local(each) for key, each in node.items() if key != "$ref" or each.startswith("#")}

    def over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
        both = {
            key: over(base[key], each) for key, each in own.items() if isinstance(each, dict) and isinstance(base.get(key), dict)
        }
        return {**base, **own, **both}

    schema = local(json.loads((chart / "values.schema.json").read_text()))
    merged = over(yaml.safe_load((chart / "values.yaml").read_text()), values)
    return [f"{list(error.absolute_path)}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(merged)]


def test_values_are_checked_as_helm_does(tmp_path):
    port = {"type": "object", "properties": {"port": {"type": "integer"}}, "additionalProperties": False}
    properties = {"web": {"$ref": "#/definitions/Web"}, "pod": {"$ref": "https://example.org/pod.json"}}
    schema = {"properties": properties, "required": ["web", "pod"], "definitions": {"Web": port}}
    (tmp_path / "values.schema.json").write_text(json.dumps(schema))
    (tmp_path / "values.yaml").write_text("web: {port: 80}\npod: {}\n")
    assert faults_of_values({"web": {"port": 81}, "pod": {"a": 1}}, tmp_path) == []
    assert faults_of_values({"web": {"port": "81"}}, tmp_path) == ["['web', 'port']: '81' is not of type 'integer'"]
    assert len(faults_of_values({"web": {"ports": 81}}, tmp_path)) == 1


def test_the_values_follow_the_schema_of_dagsters_chart():
    charts = os.environ.get("CACO_CHARTS")
    if not charts:
        pytest.skip("CACO_CHARTS names no folder of charts: `helm pull dagster/dagster --version 1.13.27 --untar` in it")
    assert faults_of_values(DAGSTER, Path(charts) / "dagster") == []


def test_names_that_refer_to_each_other_exist():
    made = {(one["kind"], one["metadata"]["name"]) for one in documents()}
    for where, pod in pods():
        if "priorityClassName" in pod:
            assert ("PriorityClass", pod["priorityClassName"]) in made, where
        for volume in pod.get("volumes", ()):
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in made, where
        for container in containers(pod):
            for source in container.get("envFrom", ()):
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in made, where
    text = (CLUSTER / "README.md").read_text()
    for file in CLUSTER.rglob("*.yaml"):
        for secret in re.findall(r"secretRef: \{name: ([\w-]+)|postgresqlSecretName: ([\w-]+)", file.read_text()):
            assert f"`{next(filter(None, secret))}`" in text, "a secret that the README does not say how to make"


def test_settings_of_the_cluster_are_settings(monkeypatch, tmp_path):
    from caco_assets.settings import load_settings

    (config,) = (one for one in documents() if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "caco")
    for name, value in config["data"].items():
        assert isinstance(value, str)
        monkeypatch.setenv(name, value)
    # what the secrets hold
    for name in ("PGPASSWORD", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "of-the-test")
    settings = load_settings(config["data"]["CACO_PROFILE"], home=tmp_path)
    assert settings.imagery.launcher == settings.pretraining.launcher == "ray"
    # a worker of Ray has the cores that one shard asks for, and the GPU group the GPUs of a training
    assert int(RAY["worker"]["resources"]["requests"]["cpu"]) >= settings.imagery.workers
    gpus = RAY["additionalWorkerGroups"]["gpu"]
    assert int(gpus["resources"]["limits"]["nvidia.com/gpu"]) == settings.pretraining.processes
    assert gpus["maxReplicas"] >= settings.pretraining.nodes


def test_workers_come_from_nothing_and_the_head_has_no_tasks():
    for group in (RAY["worker"], *RAY["additionalWorkerGroups"].values()):
        assert group["replicas"] == group["minReplicas"] == 0
        assert {"key": "caco/spot", "operator": "Exists", "effect": "NoSchedule"} in group["tolerations"]
    assert RAY["head"]["enableInTreeAutoscaling"] is True
    assert RAY["head"]["rayStartParams"]["num-cpus"] == "0"


def test_dagster_accepts_the_limits(tmp_path):
    import dagster as dg

    chart = DAGSTER["concurrency"]
    runs = {
        "max_concurrent_runs": chart["runs"]["maxConcurrentRuns"],
        "tag_concurrency_limits": chart["runs"]["tagConcurrencyLimits"],
    }
    pools = {"default_limit": chart["pools"]["defaultLimit"], "granularity": chart["pools"]["granularity"]}
    watch = DAGSTER["dagsterDaemon"]["runMonitoring"]
    names = {name: re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name) for name in watch}
    told = {"concurrency": {"runs": runs, "pools": pools}, "run_monitoring": {names[key]: value for key, value in watch.items()}}
    told["telemetry"] = {"enabled": False}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(told))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 8
        assert instance.run_monitoring_start_timeout_seconds == 900


def test_no_manifest_holds_a_secret():
    for file in CLUSTER.rglob("*.yaml"):
        text = file.read_text()
        assert "kind: Secret" not in text
        assert not re.search(r"(?i)\b(password|secret_key|token): *[\"']?\w", text), file
