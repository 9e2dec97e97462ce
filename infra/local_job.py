"""Waits for the nodes of `local_cluster.sh`, gives Ray's job API a command, shows its output, says which nodes worked.

    python infra/local_job.py API "PID PID" WAIT_S COMMAND...      a process of `ray start --block` for each node

Ends with the exit code of the command; 4 where the nodes do not come.
"""

import asyncio
import os
import shlex
import sys
import time
from collections import Counter

from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_actors, list_nodes
from ray.util.state.exception import RayStateApiException
from requests import RequestException

NODES_MISSING = 4


def wait_for_nodes(api: str, processes: list[int], seconds: float) -> list[str]:
    """Ids of the nodes, once all are alive. TimeoutError or ProcessLookupError when they do not come."""
    num_nodes = len(processes)
    end = time.monotonic() + seconds
    seen = "no answer"
    while time.monotonic() < end:
        for process in processes:
            os.kill(process, 0)  # raises where it has ended
        try:
            alive = [node.node_id for node in list_nodes(address=api) if node.state == "ALIVE"]
            if len(alive) >= num_nodes:
                return alive
            seen = f"{len(alive)} of {num_nodes} nodes are alive"
        except (RayStateApiException, RayError, ConnectionError, RequestException, RuntimeError) as error:
            seen = " ".join(str(error).split())[:200]
        time.sleep(1)
    raise TimeoutError(f"after {seconds:g} s: {seen}")


async def show_output(client: JobSubmissionClient, job: str) -> None:
    """Copy the job's output as it comes, until the job has ended."""
    async for text in client.tail_job_logs(job):
        sys.stdout.write(text)
        sys.stdout.flush()


def actors_by_node(api: str) -> Counter[tuple[str, str]]:
    """How many actors of each class ran on each node."""
    return Counter(
        (actor.node_id or "no node", actor.class_name) for actor in list_actors(address=api, limit=1000)
    )


def main(api: str, processes: list[int], seconds: float, command: list[str]) -> int:
    """Exit code of the command."""
    try:
        nodes = wait_for_nodes(api, processes, seconds)
    except (TimeoutError, ProcessLookupError) as error:
        sys.stderr.write(f"error: the nodes did not come up: {error}\n")
        return NODES_MISSING
    sys.stderr.write(f"{len(nodes)} nodes are up: {', '.join(node[:8] for node in nodes)}\n")
    client = JobSubmissionClient(api)
    # Where this was called: relative paths of the command mean the same there.
    job = client.submit_job(entrypoint=f"cd {shlex.quote(os.getcwd())} && exec {shlex.join(command)}")
    asyncio.run(show_output(client, job))
    info = client.get_job_info(job)
    for (node, name), count in sorted(actors_by_node(api).items()):
        sys.stderr.write(f"node {node[:8]}: {count} x {name}\n")
    sys.stderr.write(f"{job}: {info.status.value}, exit code {info.driver_exit_code}\n")
    return 1 if info.driver_exit_code is None else info.driver_exit_code


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], [int(each) for each in sys.argv[2].split()], float(sys.argv[3]), sys.argv[4:]))
