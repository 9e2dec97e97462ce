"""What the validator of training sets found, for a terminal."""

from collections.abc import Iterator, Mapping

from rich.console import Console

from jobs.logs import escape_controls
from pipelines.counted import counted
from pipelines.validation.rules import EXAMPLES_PER_RULE, RULES, Report

_LICENSES_SHOWN = 10


def print_report(report: Report, console: Console) -> None:
    """Counts, then every broken rule with its first places, then the verdict."""
    for line in _lines(report):
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
            yield f"\n{rule}: broken {count} times. {RULES[rule]}"
            for example in report.examples[rule]:
                where = ": ".join(part for part in (example.file, example.item, example.field) if part)
                yield f"  {where}: {example.message}"
            if count > EXAMPLES_PER_RULE:
                yield f"  and {count - EXAMPLES_PER_RULE} more"
    num_broken = sum(1 for rule in RULES if report.broken[rule])
    if report.is_valid:
        yield f"\nvalid: none of {len(RULES)} rules is broken"
    else:
        yield f"\nnot valid: {num_broken} of {len(RULES)} rules are broken, {report.broken.total()} findings"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
