"""`ovsops report`: one HTML page about a label run."""

from collections.abc import Sequence
from pathlib import Path

from ovsops.errors import ConfigError
from pipelines.report.run_page import run_page
from pipelines.report.run_report import ReportConfig, gather
from pipelines.storage import Storage, StorageOptions, local_path, open_storage, scheme_of

PAGE = "report.html"
"""Where the page lies in the run's folder when no other place is named."""


def write_report(
    output: str,
    options: StorageOptions,
    *,
    out: Path | None,
    beside: Sequence[Path] = (),
    config: ReportConfig | None = None,
) -> str:
    """Write the page; where it lies and how large it is. Raises `OutputError` for what is no label run."""
    storage = open_storage(output, options)
    page = run_page(gather(storage, config or ReportConfig(), options, beside=beside)).encode()
    place = _put(storage, page, out)
    return f"report: {place} ({len(page) / 1e6:.1f} MB)"


def _put(storage: Storage, page: bytes, out: Path | None) -> str:
    if out is None:
        storage.put(PAGE, page)
        return f"{storage.url}/{PAGE}"
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name the file to write, {out / PAGE}")
    if scheme_of(str(out)) != "file":
        raise ConfigError(
            f"--out {out}: the page is written to a local file; leave --out away to put it into the run"
        )
    target = local_path(str(out))
    target.parent.mkdir(parents=True, exist_ok=True)
    open_storage(str(target.parent)).put(target.name, page)
    return str(target)
