#!/usr/bin/env bash
# Two Ray nodes on this machine, without Docker, and a job on them through the Ray job API.
#
#   infra/local_cluster.sh RECIPE [--set FIELD=VALUE ...]      what `ovsops run` takes
#
# It listens on loopback addresses only, on ports that are free, keeps its files in a folder of its own, asks every client for a
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

# Short: a socket's path has 107 characters at most.
work="$(mktemp -d /tmp/ovs-XXXXXX)"
(umask 077 && "$python" -c 'import secrets; print(secrets.token_hex(32))' > "$work/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$work/token" RAY_USAGE_STATS_ENABLED=0
# Ray's own patience with its parts is a minute or less: not enough where cores are busy.
export RAY_DASHBOARD_STARTUP_TIMEOUT_S="$wait_s" RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT="$wait_s"
export RAY_agent_register_timeout_ms=$(( wait_s * 1000 )) RAY_worker_register_timeout_seconds="$wait_s"
export RAY_NUM_REDIS_GET_RETRIES="$wait_s"
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

# Addresses: `ray start` takes 127.0.0.1 for "the address that others reach", which is not wanted here; 127.0.0.2 and
# 127.0.0.3 are loopback, too (Linux), and it takes them as they are.
# A session of its own for each node: its processes, and nobody else's, are in the group that is stopped.
start_node() {
  local name="$1"
  shift
  setsid "$python" -m ray.scripts.scripts start --block --disable-usage-stats \
    --num-cpus "$node_cpus" --num-gpus 0 --object-store-memory "$store_bytes" \
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
start_node head --head --node-ip-address 127.0.0.2 --port "$gcs" --temp-dir "$work/ray" \
  --include-dashboard true --dashboard-host 127.0.0.1 --dashboard-port "${ports[1]}" \
  --ray-client-server-port "${ports[2]}" \
  --node-manager-port "${ports[3]}" --object-manager-port "${ports[4]}" \
  --dashboard-agent-listen-port "${ports[5]}" --dashboard-agent-grpc-port "${ports[6]}" \
  --runtime-env-agent-port "${ports[7]}" --metrics-export-port "${ports[8]}"

# The second node joins by the head's port, as soon as somebody listens there.
end=$(( SECONDS + wait_s ))
until (exec 3<>"/dev/tcp/127.0.0.2/$gcs") 2>/dev/null; do
  if ! kill -0 "${nodes[0]}" 2>/dev/null || (( SECONDS > end )); then
    echo "error: the head did not come up:" >&2
    tail -n 30 "$work/head.log" >&2
    exit 4
  fi
  sleep 0.5
done
start_node worker --node-ip-address 127.0.0.3 --address "127.0.0.2:$gcs" \
  --node-manager-port "${ports[9]}" --object-manager-port "${ports[10]}" \
  --dashboard-agent-listen-port "${ports[11]}" --dashboard-agent-grpc-port "${ports[12]}" \
  --runtime-env-agent-port "${ports[13]}" --metrics-export-port "${ports[14]}"

code=0
"$python" "$(dirname "$0")/local_job.py" "$api" "${nodes[*]}" "$wait_s" \
  "$python" -m jobs.cli run "$@" --set ray.address=auto || code=$?
[[ $code -ne 4 ]] || tail -n 30 "$work"/*.log >&2
exit "$code"
