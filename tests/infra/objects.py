"""What the files of infra/ hold, read once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
K8S = INFRA / "k8s"
IMAGES = {"ovsops:0.1.0-cpu": "Dockerfile.cpu", "ovsops:0.1.0-gpu": "Dockerfile.gpu"}
"""Our images, and what builds them."""


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Every object of infra/k8s with the name of its file; no recipe and no kustomization."""
    found = []
    for path in sorted(K8S.glob("*.yaml")):
        if path.name in ("kustomization.yaml", "recipe.yaml", "nightly.yaml"):
            continue
        found += [(path.name, each) for each in yaml.safe_load_all(path.read_text()) if each]
    return found


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    """Objects of these kinds."""
    return [each for _, each in manifests() if each["kind"] in kinds]


def ray_cluster_specs() -> list[dict[str, Any]]:
    """Specs of the clusters in RayCluster and RayJob objects."""
    specs = [each["spec"] for each in of_kind("RayCluster")]
    return specs + [each["spec"]["rayClusterSpec"] for each in of_kind("RayJob")]


def pod_templates() -> Iterator[dict[str, Any]]:
    """Pod templates of everything that starts pods."""
    for spec in ray_cluster_specs():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            yield group["template"]
    for job in of_kind("CronJob"):
        yield job["spec"]["jobTemplate"]["spec"]["template"]
    yield from of_kind("Pod")


def containers() -> Iterator[dict[str, Any]]:
    """Containers of all pod templates."""
    for template in pod_templates():
        yield from template["spec"]["containers"]
