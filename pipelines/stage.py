"""The contract of a stage: Arrow rows in, Arrow rows out, keys kept."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa


class Stage(ABC):
    """One step of a job. Built on the driver (keeps its arguments, pickles in bytes), set up on the worker.

    `process` may yield several tables for one batch, so that memory stays flat. Rows whose `error_code` is set
    and closing rows pass through. A row that fails keeps its key and gets `error_code`, `error_stage`,
    `error_message`; it never disappears. Running a stage twice on the same batch gives the same rows.
    """

    name: ClassVar[str]

    def setup(self) -> None:  # noqa: B027  most stages load nothing
        """Load what `process` needs: once a worker."""

    @abstractmethod
    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Rows out for rows in."""
