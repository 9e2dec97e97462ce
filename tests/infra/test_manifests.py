"""Manifests: fields of the published schemas, options that Ray has, references that lead somewhere, nothing secret."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.scripts.scripts import start

from jobs.recipe import LoadedNightly, LoadedRecipe, load_recipe
from tests.infra import kubernetes
from tests.infra.kuberay import SCHEMAS
from tests.infra.objects import (
    IMAGES,
    INFRA,
    K8S,
    ROOT,
    containers,
    manifests,
    of_kind,
    pod_templates,
    ray_cluster_specs,
)

RAY_KINDS = tuple(SCHEMAS)
NAMES = [f"{name}-{each['kind']}" for name, each in manifests()]
CREDENTIALS = ("KEY", "SECRET", "TOKEN", "PASSWORD")


def constrained(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


@pytest.mark.parametrize(("name", "plain"), manifests(), ids=NAMES)
def test_every_object_has_the_fields_of_its_schema(name: str, plain: dict[str, Any]) -> None:
    if plain["kind"] in RAY_KINDS:
        jsonschema.Draft202012Validator(SCHEMAS[plain["kind"]]).validate(plain)
    else:
        kubernetes.validate(plain)


def test_every_pod_template_is_one_of_kubernetes() -> None:
    for found in pod_templates():
        template = {name: found[name] for name in ("metadata", "spec")}
        kubernetes.validate({"apiVersion": "v1", "kind": "PodTemplate", "template": template})


@pytest.mark.parametrize("place", ["spec", "containers", "resources"])
def test_a_field_that_kubernetes_does_not_know_is_refused(place: str) -> None:
    wrong = json.loads(json.dumps(of_kind("Pod")[0]))
    container = wrong["spec"]["containers"][0]
    {"spec": wrong["spec"], "containers": container, "resources": container["resources"]}[place]["memroy"] = 3
    with pytest.raises(jsonschema.ValidationError, match="memroy"):
        kubernetes.validate(wrong)


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_a_field_that_the_operator_does_not_know_is_refused(kind: str) -> None:
    plain = next(each for _, each in manifests() if each["kind"] == kind)
    wrong = json.loads(json.dumps(plain))
    wrong["spec"]["activeDeadline"] = 3
    with pytest.raises(jsonschema.ValidationError, match="activeDeadline"):
        jsonschema.Draft202012Validator(SCHEMAS[kind]).validate(wrong)


@pytest.mark.skipif(
    "KUBERAY_CRDS" not in os.environ, reason="KUBERAY_CRDS names no folder with KubeRay's CRDs"
)
@pytest.mark.parametrize("kind", RAY_KINDS)
def test_the_crds_themselves_accept_it(kind: str) -> None:
    path = Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{kind.lower()}s.yaml"
    crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    versions = {each["name"]: each for each in crd["spec"]["versions"]}
    schema = closed(versions["v1"]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    for _, plain in manifests():
        if plain["kind"] == kind:
            jsonschema.Draft202012Validator(schema).validate(plain)


def closed(schema: Any) -> Any:
    """The same schema, in which an object that names its fields has no others: the API server would drop them."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    plain = {key: closed(value) for key, value in schema.items()}
    if isinstance(plain.get("properties"), dict) and plain.get("type") == "object":
        plain.setdefault("additionalProperties", False)
    return plain


def test_ray_start_knows_every_parameter_and_images_have_that_ray() -> None:
    options = {name.removeprefix("--") for each in start.params for name in each.opts}
    for spec in ray_cluster_specs():
        assert spec["rayVersion"] == constrained("ray")
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert set(group["rayStartParams"]) <= options


def test_images_are_ours_or_pinned() -> None:
    for container in containers():
        image = container["image"]
        if image in IMAGES:
            assert (INFRA / "docker" / IMAGES[image]).is_file()
        else:
            assert image.count(":") == 1
            assert image.rsplit(":", 1)[1].startswith("v1.")


def test_containers_are_unprivileged_and_bounded() -> None:
    for template in pod_templates():
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            limits = container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(limits)
            # A GPU is an integer that is the same in both: the API server refuses anything else.
            gpu = "nvidia.com/gpu"
            assert container["resources"]["requests"].get(gpu) == limits.get(gpu)
            assert (gpu in limits) == container["image"].endswith("-gpu")


def test_credentials_come_by_reference_only() -> None:
    for container in containers():
        for variable in container.get("env", ()):
            if any(word in variable["name"] for word in CREDENTIALS):
                assert "value" not in variable
                assert set(variable["valueFrom"]) == {"secretKeyRef"}
    for name, plain in manifests():
        assert plain["kind"] != "Secret", f"{name}: secrets are made by hand, never kept in a file"
        if plain["kind"] == "ConfigMap":
            assert not [key for key in plain["data"] if any(word in key for word in CREDENTIALS)]


def test_what_pods_mount_exists() -> None:
    kustomization = yaml.safe_load((K8S / "kustomization.yaml").read_text())
    files = [K8S / each for each in kustomization["resources"]]
    generated = {each["name"]: each["files"] for each in kustomization["configMapGenerator"]}
    files += [K8S / each for names in generated.values() for each in names]
    assert all(path.is_file() for path in files)
    named = {(each["kind"], each["metadata"].get("name")) for _, each in manifests()}
    maps = {name for kind, name in named if kind == "ConfigMap"} | set(generated)
    for template in pod_templates():
        volumes = template["spec"]["volumes"]
        for volume in volumes:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in named
        for container in template["spec"]["containers"]:
            mounted = {each["name"] for each in container["volumeMounts"]}
            assert mounted == {each["name"] for each in volumes}
            for source in container.get("envFrom", ()):
                assert source["configMapRef"]["name"] in maps


def test_the_cron_job_may_do_what_it_does() -> None:
    job, role, binding = (
        next(each for _, each in manifests() if each["kind"] == kind)
        for kind in ("CronJob", "Role", "RoleBinding")
    )
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == binding["subjects"][0]["name"]
    assert role["metadata"]["name"] == binding["roleRef"]["name"]
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    (container,) = pod["containers"]
    assert container["args"] == ["create", "-f", "/rayjob/rayjob.yaml"]
    assert container["volumeMounts"][0]["mountPath"] == "/rayjob"


def test_the_nightly_recipe_is_the_one_that_runs() -> None:
    assert isinstance(load_recipe(K8S / "nightly.yaml"), LoadedNightly)
    job = next(each for _, each in manifests() if each["kind"] == "RayJob")
    assert job["spec"]["entrypoint"].startswith("ovsops nightly /etc/ovsops/nightly.yaml")


def test_a_night_with_an_alarm_is_not_tried_again() -> None:
    """The retry would find nothing new, succeed, and hide exit 3."""
    (job,) = of_kind("RayJob")
    assert job["spec"]["backoffLimit"] == 0


def test_only_the_workbench_writes_to_the_weights() -> None:
    for template in pod_templates():
        component = template["metadata"]["labels"].get("app.kubernetes.io/component")
        for volume in template["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim.get("readOnly", False) == (component != "workbench")


def test_the_recipe_of_the_cluster_fits_its_workers() -> None:
    loaded = load_recipe(K8S / "recipe.yaml")
    assert isinstance(loaded, LoadedRecipe)
    recipe = loaded.recipe
    assert recipe.ray.address == "auto"
    job = next(each for _, each in manifests() if each["kind"] == "RayJob")
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"]
    assert recipe.segment_on.actors * recipe.segment_on.num_gpus == workers["replicas"] * int(
        limits["nvidia.com/gpu"]
    )
    per_worker = recipe.segment_on.num_cpus + recipe.encode_on.num_cpus + recipe.ray.read_cpus
    assert per_worker <= float(limits["cpu"])
