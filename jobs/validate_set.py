"""What the validator of training sets found, for a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console

from jobs.logs import escape_controls
from pipelines.counted import counted
from pipelines.validation.rules import EXAMPLES_PER_RULE, NOTES, RULES, Report

_LICENSES_SHOWN = 10


def print_reports(reports: Sequence[Report], console: Console) -> None:
    """Of each set its counts, every broken rule with its first places, the verdict; then the verdict over all."""
    for place, report in enumerate(reports):
        for line in ["", *_lines(report)] if place else _lines(report):
            console.print(escape_controls(line), markup=False, highlight=False, soft_wrap=True)
    if len(reports) > 1:
        for line in _verdict_over(reports):
            console.print(escape_controls(line), markup=False, highlight=False, soft_wrap=True)


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.path}: {report.format}, {counted(report.files, 'files')}"
    yield (
        f"{counted(report.images, 'images')}, {counted(report.regions, 'regions')},"
        f" {report.regions_with_negatives} with negatives,"
        f" {report.masks} with masks"
    )
    for name, counts in (("splits", report.splits), ("languages", report.languages)):
        if counts:
            yield f"{name}: {_listed(counts)}"
    if report.licenses:
        rest = len(report.licenses) - _LICENSES_SHOWN
        more = f", and {rest} others" if rest > 0 else ""
        yield f"licences: {_listed(dict(report.licenses.most_common(_LICENSES_SHOWN)))}{more}"
    for sentence in report.not_checked:
        yield f"not checked: {sentence}"
    for rule in RULES:
        if count := report.broken[rule]:
            yield ""
            yield f"{rule}: broken {count} times. {RULES[rule]}"
            yield from _examples(report, rule, count)
    for name, count in report.noted.items():
        yield ""
        yield f"note, no fault: {name}: {count} times. {NOTES[name]}"
        yield from _examples(report, name, count)
    yield ""
    num_broken = sum(1 for rule in RULES if report.broken[rule])
    if report.is_valid:
        yield f"valid: none of {len(RULES)} rules is broken ({report.pictures})"
    else:
        yield (
            f"not valid: {num_broken} of {len(RULES)} rules are broken, {report.broken.total()} findings"
            f" ({report.pictures})"
        )


def _examples(report: Report, name: str, count: int) -> Iterator[str]:
    for example in report.examples[name]:
        where = ": ".join(part for part in (example.file, example.item, example.field) if part)
        yield f"  {where}: {example.message}" if where else f"  {example.message}"
    if count > EXAMPLES_PER_RULE:
        yield f"  and {count - EXAMPLES_PER_RULE} more"


def _verdict_over(reports: Sequence[Report]) -> Iterator[str]:
    yield ""
    yield f"{len(reports)} sets:"
    for report in reports:
        yield f"  {'valid' if report.is_valid else 'not valid'}: {report.path} ({report.format})"
    num_valid = sum(report.is_valid for report in reports)
    if num_valid == len(reports):
        yield f"valid: all {len(reports)} sets"
    else:
        yield f"not valid: {len(reports) - num_valid} of {len(reports)} sets"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
