#!/usr/bin/env bash
# Two Ray nodes on this machine, without Docker, and a job on them through the Ray job API.
#
#   infra/local_cluster.sh RECIPE [--set FIELD=VALUE ...]      what `ovsops run` takes
#
# It listens on 127.0.0.1 only, on ports that are free, keeps its files in a folder of its own, asks every client for a
# token, and at the end stops the processes that it started and no others (`ray stop` would stop every Ray of the user).
# Needs the extra `cluster`:  pip install '.[cluster]'
#
# Environment:
#   PYTHON          the interpreter that has ovsops (default: python)
#   NODE_CPUS       CPU shares of each node (default: 2); may be more than there are cores
#   STORE_MIB       shared memory for blocks, of each node (default: 200)
#   WAIT_S          longest wait for the two nodes (default: 300)
#
# Ends with the exit code of `ovsops run`; 4 where the cluster does not come up.
set -euo pipefail

python="${PYTHON:-python}"
node_cpus="${NODE_CPUS:-2}"
store_bytes=$(( ${STORE_MIB:-200} * 1024 * 1024 ))
wait_s="${WAIT_S:-300}"

if [[ $# -lt 1 || "$1" == -* ]]; then
  sed -n '2,/^set -euo/p' "$0" | sed -e '$d' -e 's/^# \{0,1\}//' >&2
  exit 2
fi
if ! "$python" -c 'import aiohttp_cors' 2>/dev/null; then
  echo "error: the job API of Ray is not installed for $python: pip install '.[cluster]'" >&2
  exit 4
fi

recipe="$1"
shift
output="$("$python" -m jobs.cli run "$recipe" "$@" --print-config | sed -n 's/^output: *//p')"

# Short: a socket's path has 107 characters at most.
work="$(mktemp -d /tmp/ovs-XXXXXX)"
(umask 077 && "$python" -c 'import secrets; print(secrets.token_hex(32))' > "$work/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$work/token" RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS RAY_AUTH_TOKEN

nodes=()
stop_nodes() {
  local node
  trap - EXIT INT TERM
  for node in "${nodes[@]}"; do kill -TERM -- "-$node" 2>/dev/null || true; done
  for _ in $(seq 100); do
    for node in "${nodes[@]}"; do
      if kill -0 -- "-$node" 2>/dev/null; then sleep 0.2; continue 2; fi
    done
    break
  done
  for node in "${nodes[@]}"; do kill -KILL -- "-$node" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap stop_nodes EXIT
trap 'exit 130' INT TERM

# A session of its own for each node: its processes, and nobody else's, are in the group that is stopped.
start_node() {
  local name="$1"
  shift
  setsid "$python" -m ray.scripts.scripts start --block --disable-usage-stats \
    --node-ip-address 127.0.0.1 --num-cpus "$node_cpus" --num-gpus 0 --object-store-memory "$store_bytes" \
    --min-worker-port 0 --max-worker-port 0 "$@" > "$work/$name.log" 2>&1 &
  nodes+=("$!")
}

read -r -a ports < <("$python" - <<'PY'
import socket

held = [socket.socket() for _ in range(15)]
for each in held:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in held))
PY
)
gcs="${ports[0]}"
api="http://127.0.0.1:${ports[1]}"

echo "starting two nodes of $node_cpus CPU shares: some seconds, minutes on a busy machine" >&2
start_node head --head --port "$gcs" --temp-dir "$work/ray" \
  --include-dashboard true --dashboard-host 127.0.0.1 --dashboard-port "${ports[1]}" \
  --ray-client-server-port "${ports[2]}" \
  --node-manager-port "${ports[3]}" --object-manager-port "${ports[4]}" \
  --dashboard-agent-listen-port "${ports[5]}" --dashboard-agent-grpc-port "${ports[6]}" \
  --runtime-env-agent-port "${ports[7]}" --metrics-export-port "${ports[8]}"

wait_for_nodes() {
  "$python" - "$api" "$1" "$wait_s" "${nodes[@]}" <<'PY'
import os
import sys
import time

from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

api, wanted, seconds, *processes = sys.argv[1:]
last = "no answer yet"
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    for process in processes:
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            sys.exit("a node ended while it started")
    try:
        alive = [node for node in list_nodes(address=api, timeout=10) if node.state == "ALIVE"]
        if len(alive) >= int(wanted):
            sys.exit(0)
        last = f"{len(alive)} of {wanted} nodes are alive"
    except (RayStateApiException, OSError) as error:
        last = str(error).splitlines()[0][:200]
    time.sleep(1)
sys.exit(f"gave up after {seconds} s: {last}")
PY
}

give_up() {
  echo "error: the cluster did not come up; the last lines of its nodes:" >&2
  tail -n 15 "$work"/*.log >&2
  exit 4
}

wait_for_nodes 1 || give_up
start_node worker --address "127.0.0.1:$gcs" \
  --node-manager-port "${ports[9]}" --object-manager-port "${ports[10]}" \
  --dashboard-agent-listen-port "${ports[11]}" --dashboard-agent-grpc-port "${ports[12]}" \
  --runtime-env-agent-port "${ports[13]}" --metrics-export-port "${ports[14]}"
wait_for_nodes 2 || give_up
echo "two nodes are up; job API on $api" >&2

job="ovsops-$$"
# The job runs where this script was called, so that relative paths of the recipe mean the same.
"$python" -m ray.scripts.scripts job submit --address "$api" --submission-id "$job" -- \
  bash -c 'cd "$0" && exec "$@"' "$PWD" "$python" -m jobs.cli run "$recipe" "$@" --set ray.address=auto || true

code="$("$python" - "$api" "$job" <<'PY'
import sys
from collections import Counter

from ray.job_submission import JobSubmissionClient
from ray.util.state import list_actors, list_nodes

api, job = sys.argv[1:]
short = {node.node_id: node.node_id[:8] for node in list_nodes(address=api)}
actors = Counter(
    (short.get(actor.node_id, "-"), actor.class_name) for actor in list_actors(address=api, limit=1000)
)
print("actors that ran, by node:", file=sys.stderr)
for (node, name), count in sorted(actors.items()):
    print(f"  {node}  {count} x {name}", file=sys.stderr)
info = JobSubmissionClient(api).get_job_info(job)
print(f"job {job}: {info.status.value}", file=sys.stderr)
code = info.driver_exit_code
print(1 if code is None else code)
PY
)"
[[ -n "$output" ]] && "$python" -m jobs.cli status "$output" || true
exit "$code"
