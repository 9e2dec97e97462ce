"""Schema of the RayJob and RayCluster fields that our manifests use.

Names, types, enums and required fields as in the CRDs `ray.io_rayjobs.yaml` and `ray.io_rayclusters.yaml` (v1) of
KubeRay v1.7.0, 2026-08-19, github.com/ray-project/kuberay, ray-operator/config/crd/bases. The CRDs themselves, 2.3 MB,
are not kept here: a field that is not in this table is refused until somebody looked it up there. With `KUBERAY_CRDS`
naming a folder that holds the CRDs, `test_manifests` checks against them, too. Pod templates: `test_manifests`.
"""

from typing import Any

VERSION = "v1.7.0"

_STRING = {"type": "string"}
_BOOLEAN = {"type": "boolean"}
_INTEGER = {"type": "integer"}
_OPEN: dict[str, Any] = {"type": "object"}
_STRINGS = {"type": "object", "additionalProperties": _STRING}


def _closed(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_GROUP = {"rayStartParams": _STRINGS, "template": _OPEN, "resources": _STRINGS, "labels": _STRINGS}

RAY_CLUSTER_SPEC = _closed(
    {
        "rayVersion": _STRING,
        "authOptions": _closed({"mode": {"enum": ["disabled", "token"]}, "secretName": _STRING}),
        "enableInTreeAutoscaling": _BOOLEAN,
        "autoscalerOptions": _closed(
            {
                "version": {"enum": ["v1", "v2"]},
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                "idleTimeoutSeconds": _INTEGER,
                "resources": _OPEN,
            }
        ),
        "headGroupSpec": _closed(_GROUP | {"serviceType": _STRING}, ("template",)),
        "workerGroupSpecs": {
            "type": "array",
            "items": _closed(
                _GROUP
                | {
                    "groupName": _STRING,
                    "replicas": _INTEGER,
                    "minReplicas": _INTEGER,
                    "maxReplicas": _INTEGER,
                    "idleTimeoutSeconds": _INTEGER,
                },
                ("groupName", "minReplicas", "maxReplicas", "template"),
            ),
        },
    },
    ("headGroupSpec",),
)

RAY_JOB_SPEC = _closed(
    {
        "entrypoint": _STRING,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
        "shutdownAfterJobFinishes": _BOOLEAN,
        "ttlSecondsAfterFinished": _INTEGER,
        "activeDeadlineSeconds": _INTEGER,
        "preRunningDeadlineSeconds": _INTEGER,
        "backoffLimit": _INTEGER,
        "suspend": _BOOLEAN,
        "runtimeEnvYAML": _STRING,
        "rayClusterSpec": RAY_CLUSTER_SPEC,
    }
)


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}, "metadata": _OPEN, "spec": spec},
        ("apiVersion", "kind", "metadata", "spec"),
    )


SCHEMAS = {"RayCluster": _object("RayCluster", RAY_CLUSTER_SPEC), "RayJob": _object("RayJob", RAY_JOB_SPEC)}
"""By kind."""
