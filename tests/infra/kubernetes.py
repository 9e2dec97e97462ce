"""Schemas of the Kubernetes objects that our manifests use, closed: a field that Kubernetes does not know is refused.

`kubernetes-1.34.json` is a part of `v1.34.0-local-strict/_definitions.json` of the package kubernetes-validate 1.37.0
(Apache-2.0, Copyright 2018 its author), which is made of the OpenAPI description of Kubernetes v1.34.0 (Apache-2.0,
Copyright The Kubernetes Authors). Changed: only what `ROOTS` lead to, without descriptions, references shortened. It is
made by

    python -m tests.infra.kubernetes FOLDER/v1.34.0-local-strict/_definitions.json
"""

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

VERSION = "1.34"
FILE = Path(__file__).with_name(f"kubernetes-{VERSION}.json")
ROOTS = {
    ("v1", "ConfigMap"): "io.k8s.api.core.v1.ConfigMap",
    ("v1", "Namespace"): "io.k8s.api.core.v1.Namespace",
    ("v1", "PersistentVolumeClaim"): "io.k8s.api.core.v1.PersistentVolumeClaim",
    ("v1", "Pod"): "io.k8s.api.core.v1.Pod",
    ("v1", "PodTemplate"): "io.k8s.api.core.v1.PodTemplate",
    ("v1", "ServiceAccount"): "io.k8s.api.core.v1.ServiceAccount",
    ("batch/v1", "CronJob"): "io.k8s.api.batch.v1.CronJob",
    ("rbac.authorization.k8s.io/v1", "Role"): "io.k8s.api.rbac.v1.Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "io.k8s.api.rbac.v1.RoleBinding",
}
"""Definition by API version and kind."""


@cache
def _definitions() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def validate(plain: dict[str, Any]) -> None:
    """Raise `jsonschema.ValidationError` for an object that Kubernetes would not take, or take in part."""
    root = ROOTS[plain["apiVersion"], plain["kind"]]
    jsonschema.Draft7Validator({"$ref": f"#/$defs/{root}", "$defs": _definitions()}).validate(plain)


def _referred(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value.rsplit("/", 1)[1]
            else:
                yield from _referred(value)
    elif isinstance(node, list):
        for value in node:
            yield from _referred(value)


def _short(node: Any) -> Any:
    if isinstance(node, list):
        return [_short(value) for value in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return {"$ref": "#/$defs/" + node["$ref"].rsplit("/", 1)[1]}
    is_said = isinstance(node.get("description"), str)
    return {key: _short(value) for key, value in node.items() if not (key == "description" and is_said)}


def part_of(definitions: dict[str, Any]) -> dict[str, Any]:
    """What the roots lead to, without descriptions."""
    part: dict[str, Any] = {}
    todo = list(ROOTS.values())
    while todo:
        if (name := todo.pop()) not in part:
            part[name] = _short(definitions[name])
            todo += _referred(part[name])
    return part


if __name__ == "__main__":
    whole = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["$defs"]
    FILE.write_text(
        json.dumps(part_of(whole), sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8"
    )
