"""Every code that a row, a region or a set can carry, as a page: `python -m jobs.codes_page > docs/codes.md`."""

import sys
from collections.abc import Iterable, Iterator, Mapping

from jobs.exits import ExitCode
from jobs.negate import LINE_REASONS
from ovsops.negatives.candidates import MEANINGS as NEGATIVES
from ovsops.negatives.candidates import TOO_FEW
from ovsops.negatives.llm_replies import REPLY_FAULTS
from pipelines import codes
from pipelines.embedding import REASONS as VECTOR_REASONS
from pipelines.endpoint_config import RETRYABLE_CODES, EndpointError
from pipelines.llm_batch import BatchError
from pipelines.report.code_texts import CARRIED, FAILURES, LEFT_OUT, NOTES
from pipelines.training_sets.drops import REASONS as DROPS

EXITS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "Done.",
    ExitCode.INTERNAL: "A fault of ovsops. `status`: rows are missing or doubled.",
    ExitCode.USAGE: "The command line or the recipe is wrong: an unknown field, a path that holds no input or no run,"
    " or that cannot become an output.",
    ExitCode.OVER_LIMITS: "Finished, but over the limits of the recipe or of a `diff`; a set breaks its contract.",
    ExitCode.PREFLIGHT: "Something that the run needs is not there: device, weights, licence, endpoint, storage,"
    " room.",
    ExitCode.OUTPUT: "The output is locked by another run, or was made with another recipe.",
    ExitCode.AUDIT: "An audit did not show the run to be good enough.",
    ExitCode.INTERRUPTED: "Interrupted: `run`, `retry` and `nightly` go on where they stopped if the same command is"
    " given again; the other verbs start anew.",
}


def codes_page() -> str:
    """The page, whole."""
    return "\n".join(_lines()) + "\n"


def endpoint_codes() -> dict[str, str]:
    """Codes of questions without an answer, as the docstring of `EndpointError` explains them."""
    return _explained(EndpointError)


def batch_codes() -> dict[str, str]:
    """The same of `BatchError`: questions to a model that Ray Data's own stage runs."""
    return _explained(BatchError)


def _explained(error: type[Exception]) -> dict[str, str]:
    lines = (error.__doc__ or "").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip().startswith("E_"))
    return {code: _sentence(text) for code, text in pairs}


def _lines() -> Iterator[str]:
    yield "# Codes"
    yield ""
    yield "*Written by `python -m jobs.codes_page` from the tables of the code; edits here are lost.*"
    yield ""
    yield "A code that begins with `E_` is a failure, `S_` a skip on purpose, `N_` a note, `R_` a reason about a region"
    yield "or a caption, `D_` a drop on the way into a training set, `V_` a negative or a vector that is refused."
    yield "Which ones an output has: `ovsops status OUT`. Codes that are not here (of archives, of foreign sets) come"
    yield "with a message that says all."
    yield from _section("Exit codes", "Of every verb.")
    yield from _table(("exit", "says"), ((str(int(code)), text) for code, text in EXITS.items()))
    yield from _section(
        "Images that failed or were skipped",
        "`error_code` of a row in `images/`. *Again* marks what a retry may mend; of others the bytes, or their place"
        " in the archive, are at fault.",
    )
    yield from _table(
        ("code", "says", "again", "way out"),
        (
            (
                code,
                text.meaning.en,
                "yes" if code in codes.RETRYABLE else "",
                text.way_out.en.format(code=code),
            )
            for code, text in sorted(FAILURES.items())
        ),
    )
    yield from _section(
        "Questions without an answer",
        "Counted in the `notes` of an image that is labelled all the same (`E_ENDPOINT_TIMEOUT:3`); the region has"
        " `R_NO_ANSWER`. `ovsops retry OUT --code CODE` asks again. In the negatives job they are counted in"
        " `llm.unanswered` of the summary; the last two are of a recipe with `llm.vllm`.",
    )
    yield from _table(
        ("code", "says", "again"),
        (
            (code, text, "yes" if code in RETRYABLE_CODES else "")
            for code, text in [*sorted(endpoint_codes().items()), *sorted(batch_codes().items())]
        ),
    )
    yield from _section("Regions", "`reason_codes` of a row in `instances/`: what is to be known of it.")
    yield from _table(("code", "says"), ((code, text.en) for code, text in sorted(CARRIED.items())))
    yield from _section("Regions that are left out", "Counted in the `notes` of an image (`R_TOO_SMALL:3`).")
    yield from _table(("code", "says"), ((code, text.en) for code, text in sorted(LEFT_OUT.items())))
    yield from _section(
        "Notes of images",
        "In `notes`: the image is labelled, and this was done to it or found in it. What follows a colon says more: the"
        " field (`N_REDACTED:source_url`), or how often. Summary and report count images, each once for a code.",
    )
    yield from _table(("code", "says"), ((code, text.en) for code, text in sorted(NOTES.items())))
    yield from _section("Captions without negatives", "`reason` of a line of `ovsops negate`.")
    yield from _table(("code", "says"), _sentences(LINE_REASONS))
    yield from _section(
        "Negatives that are dropped", "By the checks of texts and the validators of the negatives job."
    )
    yield from _table(
        ("code", "says"), _sentences({**NEGATIVES, TOO_FEW: "fewer than ten are left: the region gets none"})
    )
    yield from _section(
        "Answers that are refused",
        "Counted in `llm.refused` of the summary of the negatives job: a language model's words. An endpoint is asked"
        " once more.",
    )
    yield from _table(("code", "says"), _sentences(REPLY_FAULTS))
    yield from _section("Training sets", "Counted in the card and the report of a set.")
    yield from _table(("code", "says"), _sentences(DROPS))
    yield from _section("Vectors", "Why a region has none.")
    yield from _table(("code", "says"), _sentences(VECTOR_REASONS))


def _section(title: str, text: str) -> Iterator[str]:
    yield from ("", f"## {title}", "", text, "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for first, *others in rows:
        yield f"| {' | '.join([f'`{first}`', *(each.replace('|', '/') for each in others)])} |"


def _sentences(table: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted((code, _sentence(text)) for code, text in table.items())


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


if __name__ == "__main__":
    sys.stdout.write(codes_page())
