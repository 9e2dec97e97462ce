"""The live view of a run on a terminal: totals and time left, stages, devices, failures by code."""

import threading
import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from jobs.devices import DeviceUse, device_use
from jobs.logs import is_json
from jobs.progress import LineObserver, Tally, duration, listed_codes
from jobs.stage_rates import StageRate

DEVICES_EVERY_S = 5.0
REDRAWS_PER_SECOND = 4
MOST_CODES = 6
BAR_WIDTH = 30


class LiveObserver(LineObserver):
    """Redraws a few lines at the foot of the terminal; nothing of it stays when the run ends."""

    def __init__(self, console: Console, rows: str = "images") -> None:
        super().__init__(rows)
        self.devices: Sequence[DeviceUse] = ()
        self.spinner = Spinner("dots")
        self.live = Live(
            console=console,
            get_renderable=self.view,
            refresh_per_second=REDRAWS_PER_SECOND,
            transient=True,
        )
        self._asking = threading.Thread(target=self._ask_devices, name="devices", daemon=True)

    def __enter__(self) -> "LiveObserver":
        self._asking.start()
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.live.stop()
        self._asking.join()

    def _ask_devices(self) -> None:
        self.devices = device_use()
        while not self._ended.wait(DEVICES_EVERY_S):
            self.devices = device_use()

    def view(self) -> RenderableType:
        """What is shown now."""
        return view_of(self.tally, self.devices, self.spinner)


def view_of(tally: Tally, devices: Sequence[DeviceUse], spinner: Spinner) -> RenderableType:
    """Three to a dozen lines."""
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(1, tally.shards), completed=tally.shards_done, width=BAR_WIDTH)
    head.add_row(spinner, bar, Text(duration(time.monotonic() - tally.started), style="dim"))
    parts: list[RenderableType] = [head, Text(f"  {tally.line()}")]
    if rates := tally.stages.rates():
        parts.append(_stage_table(tally, rates))
    if devices:
        parts.append(Text("  this machine: " + "; ".join(device.line() for device in devices), style="dim"))
    if tally.codes:
        told = listed_codes(tally.codes, MOST_CODES)
        parts.append(Text(f"  left out or failed: {told}", style="yellow"))
    return Group(*parts)


def _stage_table(tally: Tally, rates: Sequence[StageRate]) -> Table:
    """One row a stage; the queue is what waits before it."""
    waiting = dict(tally.queued())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column("stage")
    table.add_column(f"{tally.unit}/s", justify="right")
    table.add_column("workers busy", justify="right")
    table.add_column("blocks waiting", justify="right")
    for rate in rates:
        queue = str(waiting[rate.stage]) if rate.stage in waiting else ""
        table.add_row(rate.stage, f"{rate.rows_per_second:.1f}", f"{rate.busy_workers:.2f}", queue)
    return table


def make_observer(console: Console, rows: str = "images") -> LineObserver:
    """A live view on a terminal, lines elsewhere and where lines are JSON; `rows` is what is counted."""
    return LiveObserver(console, rows) if console.is_terminal and not is_json() else LineObserver(rows)
