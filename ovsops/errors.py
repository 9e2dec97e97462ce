"""Every error that ovsops raises on purpose.

    OvsopsError
    ├── ShapeError          a tensor or mask that cannot mean what was asked         (ValueError)
    ├── ConfigError         a field of a recipe or config                            (ValueError)  exit 2
    │   └── VocabularyError a vocabulary that cannot be used as it is
    ├── CheckpointError     weights: missing, wrong keys or shapes, refused format                 exit 4
    ├── TrainingError       a training that cannot go on: its recipe or its scenes                 exit 2
    │   └── WorkerError     a process of many ended without a reason that we know                  exit 1
    ├── StorageError        a path or bucket that cannot be read or written
    ├── OutputError         the output is locked or was made with another recipe                   exit 5
    │   └── NoRunError      a path where no run of ovsops is                                       exit 2
    └── RowError            what is wrong with one row; `code` goes into the row
        └── ImageDecodeError

An error says what, where, what was expected, and the way out.
"""


class OvsopsError(Exception):
    """Root of the tree: catch this to catch everything raised on purpose."""


class ShapeError(OvsopsError, ValueError):
    """A tensor or mask that cannot mean what was asked."""


class ConfigError(OvsopsError, ValueError):
    """A field of a recipe or config that cannot be used."""


class VocabularyError(ConfigError):
    """A vocabulary that cannot be used as it is."""


class CheckpointError(OvsopsError):
    """Weights that are missing, do not fit, or come in a refused format."""


class TrainingError(OvsopsError):
    """A training that cannot go on: the loss is not finite, or the data do not suffice."""


class WorkerError(TrainingError):
    """A worker of a training ended without a reason that we know."""


class StorageError(OvsopsError):
    """A path or bucket that cannot be read or written."""


class OutputError(OvsopsError):
    """The output is locked, or was made with another recipe."""


class NoRunError(OutputError):
    """A path that should hold a run and does not."""


class RowError(OvsopsError):
    """What is wrong with one row. `code` is stable and machine-readable (`E_TRUNCATED`)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.code, str(self))


class ImageDecodeError(RowError):
    """Bytes that are not a whole, allowed image."""
