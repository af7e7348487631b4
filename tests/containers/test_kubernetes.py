"""Kubernetes 1.32 accepts deploy/kubernetes: kustomize builds it, and it matches the strict schemas of the API."""

import copy
import json
import pathlib
import subprocess

import pytest
import yaml
from needs import jsonschema

SCHEMAS = json.loads((pathlib.Path(__file__).parent / "kubernetes-1.32.json").read_text())


@pytest.fixture(scope="module")
def objects(root):
    built = subprocess.run(["kustomize", "build", root / "deploy/kubernetes"], capture_output=True, text=True, check=True)
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(built.stdout)}


def check(thing):
    jsonschema.Draft7Validator({**SCHEMAS["kinds"][thing["kind"]], "$defs": SCHEMAS["$defs"]}).validate(thing)


def pods(objects):
    return {name: o["spec"]["template"]["spec"] for (_, name), o in objects.items() if "template" in o["spec"]}


def test_every_kubernetes_object_matches_its_schema(objects):
    assert {kind for kind, _ in objects} == {"Service", "StatefulSet", "Deployment", "NetworkPolicy"}
    for thing in objects.values():
        check(thing)


def test_misspelt_kubernetes_field_is_detected(objects):
    wrong = copy.deepcopy(objects["Deployment", "coppice-worker"])
    wrong["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(jsonschema.ValidationError, match="resource"):
        check(wrong)


def test_kubernetes_selectors_match_their_pods(objects):
    for name in ("coppice-coordinator", "coppice-worker"):
        workload = next(o for (kind, n), o in objects.items() if n == name and kind != "NetworkPolicy")
        labels = workload["spec"]["template"]["metadata"]["labels"].items()
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels
        assert objects["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"].items() <= labels
    service = objects["Service", "coppice"]["spec"]
    coordinator = objects["StatefulSet", "coppice-coordinator"]["spec"]
    assert service["selector"].items() <= coordinator["template"]["metadata"]["labels"].items()
    assert coordinator["serviceName"] == "coppice"


def test_pods_run_unprivileged(objects):
    for spec in pods(objects).values():
        assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]
        for container in spec["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
            assert rights["capabilities"] == {"drop": ["ALL"]} and container["resources"]["limits"]["memory"]


def test_kubernetes_traffic_is_encrypted(objects):
    for spec in pods(objects).values():
        words = spec["containers"][0]["args"]
        assert not [word for word in words if word.startswith("tcp://")] and "--insecure" not in words
        assert "--tls-dir" in words
