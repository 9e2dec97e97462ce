"""docs/codes.md is what the code says, and says it of every code."""

import re
from pathlib import Path

from jobs.codes_page import EXITS, codes_page, endpoint_codes
from jobs.exits import ExitCode
from pipelines.codes import FAILURES, REASONS_CARRIED, REASONS_LEFT_OUT, UNANSWERED

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"\"([EN]_[A-Z0-9_]+)\"")


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "codes.md").read_text(encoding="utf-8") == codes_page(), (
        "run: python -m jobs.codes_page > docs/codes.md"
    )


def test_every_code_of_the_tables_is_on_it() -> None:
    page = codes_page()
    for code in FAILURES | UNANSWERED | set(REASONS_CARRIED) | set(REASONS_LEFT_OUT):
        assert f"| `{code}` | " in page, code
    assert set(endpoint_codes()) == UNANSWERED
    assert set(EXITS) == set(ExitCode)


def test_a_note_that_the_decoder_writes_is_on_it() -> None:
    page = codes_page()
    written = {
        code
        for path in (ROOT / "ovsops" / "images").glob("*.py")
        for code in CODE.findall(path.read_text(encoding="utf-8"))
    }
    assert len(written) > 10
    assert not sorted(code for code in written if f"`{code}`" not in page)
