"""Codes of rows that failed, and which of them may go better the next time; what codes of regions say."""

from collections.abc import Iterable

from ovsops.errors import ConfigError
from ovsops.regions.reasons import CARRIED, LEFT_OUT
from ovsops.text.names import nearest
from pipelines.endpoint_config import BUDGET_CODE, RETRYABLE_CODES
from pipelines.rows import SKIP_PREFIX

REASONS_CARRIED = CARRIED
"""What each code in `reason_codes` of a written region or instance says."""
REASONS_LEFT_OUT = LEFT_OUT
"""Why regions or detections have no record: the codes counted in an image's `notes` (`R_TOO_SMALL:3`)."""

RETRYABLE = frozenset({"E_TIMEOUT", "E_DECODER_CRASH", "E_MODEL", "E_STORAGE"})
"""What a slow or crowded machine, a model or a storage did; the image itself may be whole."""

FAILURES = RETRYABLE | {
    "E_BAD_HEADER",
    "E_CORRUPT",
    "E_DUPLICATE_KEY",
    "E_EMPTY",
    "E_INTERLEAVED",
    "E_MAGIC",
    "E_MEMBER_TOO_LARGE",
    "E_MEMORY",
    "E_NAME",
    "E_NO_IMAGE",
    "E_SECOND_IMAGE",
    "E_TOO_COMPLEX",
    "E_TOO_LARGE",
    "E_TRUNCATED",
    "E_TRUNCATED_ARCHIVE",
    "E_UNSUPPORTED",
    "E_UNSUPPORTED_IMAGE",
}
"""Every code that a failed image of the label job can have; those that are not retryable say that its bytes, or its
place in the archive, are at fault, and the same bytes fail again."""

UNANSWERED = RETRYABLE_CODES | {
    "E_ENDPOINT_REPLY",
    "E_ENDPOINT_DENIED",
    "E_ENDPOINT_STATUS",
    BUDGET_CODE,
}
"""Codes in the notes of images that are labelled, but some of whose questions got no answer."""


def check_failure_codes(codes: Iterable[str]) -> None:
    """Raise `ConfigError` for what is no code of a failed image, with the nearest one."""
    for code in codes:
        if code.startswith(SKIP_PREFIX):
            raise ConfigError(
                f"--code {code}: these images were left out on purpose; the recipe decides about them"
            )
        if code not in FAILURES | UNANSWERED:
            raise ConfigError(
                f"--code {code}: no image fails with this{nearest(code, sorted(FAILURES | UNANSWERED))}; "
                "`ovsops status OUT` shows the codes of an output, those that a retry can mend are "
                f"{', '.join(sorted(RETRYABLE))}"
            )
