"""The label job on a simulated cluster of two nodes, one of which dies half way.

python -m tests.node_loss_job '{"shards": [...], "output": ..., "kill_after_images": 20}'
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from pipelines.label import run_label
from pipelines.ledger import ShardRecord
from pipelines.runner import RayConfig, RayEngine
from pipelines.watch import Queued, nothing_queued
from tests.kill_job import make_job


class NodeKiller:
    """Observer that removes a node once so many images are written."""

    def __init__(self, cluster: Any, node: Any, after: int) -> None:
        self.cluster, self.node, self.after, self.images = cluster, node, after, 0

    def started(self, *, shards: int, done: int, queued: Queued = nothing_queued) -> None:
        """Nothing to do."""

    def committed(self, commit: ShardRecord) -> None:
        """Nothing to do."""

    def shard_failed(self, code: str) -> None:
        """Nothing to do."""

    def part(self, *, images: int, spans: Mapping[str, Sequence[float]]) -> None:
        self.images += images
        if self.node is not None and self.images >= self.after:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None
            Path(sys.argv[2]).write_text("removed")


def main() -> None:
    arguments = json.loads(sys.argv[1])
    health = {
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
        "health_check_timeout_ms": 1000,
    }
    node = {"num_cpus": 2, "object_store_memory": 120 * 2**20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**node, "include_dashboard": False, "_system_config": health},
    )
    second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    job = make_job(arguments | {"actors": 2})
    killer = NodeKiller(cluster, second, arguments["kill_after_images"])
    with RayEngine(RayConfig(address=cluster.address, block_mib=0.004), job.storage) as engine:
        summary = run_label(job, engine, run="run0", observer=killer)
    ray.shutdown()
    cluster.shutdown()
    sys.stdout.write(json.dumps(summary))


if __name__ == "__main__":
    main()
