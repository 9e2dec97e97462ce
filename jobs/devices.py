"""How busy this machine is: its processor cores, and its GPUs where NVIDIA's tool is installed.

Of this machine alone: nodes of a cluster publish theirs through Ray (`ray_node_gpus_utilization`).
"""

import csv
import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

import psutil

TOOL = "nvidia-smi"
TOOL_TIMEOUT_S = 5.0
_ASKED = "--query-gpu=index,utilization.gpu,memory.used,memory.total"


@dataclass(frozen=True, kw_only=True)
class DeviceUse:
    """One device at one moment."""

    name: str
    """`cpu`, `gpu 0`."""
    busy_percent: float
    """Of all cores; of a GPU the share of the last second or so in which a kernel ran."""
    used_gib: float
    total_gib: float

    def line(self) -> str:
        """`gpu 0 93 %, 21.3 of 80.0 GiB`."""
        return f"{self.name} {self.busy_percent:.0f} %, {self.used_gib:.1f} of {self.total_gib:.1f} GiB"

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def device_use() -> list[DeviceUse]:
    """Every device that can be asked. The first call in a process says 0 % of the cores: there is no earlier one."""
    memory = psutil.virtual_memory()
    cpu = DeviceUse(
        name="cpu",
        busy_percent=float(psutil.cpu_percent()),
        used_gib=(memory.total - memory.available) / 2**30,
        total_gib=memory.total / 2**30,
    )
    return [cpu, *gpu_use()]


def gpu_use() -> list[DeviceUse]:
    """The GPUs; none where the tool is missing, fails or hangs."""
    tool = shutil.which(TOOL)
    if tool is None:
        return []
    try:
        asked = subprocess.run(
            [tool, _ASKED, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        _gpu(*row) for row in csv.reader(asked.stdout.splitlines(), skipinitialspace=True) if _is_told(row)
    ]


def _is_told(row: list[str]) -> bool:
    """Some GPUs do not tell (`[N/A]`, `[Not Supported]`): partitions of one, for example."""
    return len(row) == 4 and all(field.strip().replace(".", "", 1).isdigit() for field in row)


def _gpu(index: str, busy_percent: str, used_mib: str, total_mib: str) -> DeviceUse:
    return DeviceUse(
        name=f"gpu {index}",
        busy_percent=float(busy_percent),
        used_gib=float(used_mib) / 1024,
        total_gib=float(total_mib) / 1024,
    )
