"""A drawn sample and an audit's result as text for a person."""

from collections.abc import Iterator, Sequence

from pipelines.audit.form import VERDICTS
from pipelines.audit.record import SampleRecord
from pipelines.audit.result import AuditResult, StratumResult, next_steps
from pipelines.counted import counted

_MOST = 12


def drawn_lines(record: SampleRecord, out: str, *, num_pictures: int, page: str) -> Iterator[str]:
    """What was drawn and what to do with it."""
    yield (
        f"{len(record.rows)} of {counted(sum(record.sizes), 'labels')} drawn from"
        f" {counted(len(record.strata), 'strata')} (seed {record.seed}) into {out}"
    )
    if num_pictures:
        yield f"{counted(num_pictures, 'pictures')}: open {page}"
    else:
        yield "no pictures: shard, key and box say where each label is"
    yield "1. fill the column `verdict` of audit.csv (or audit.jsonl) with:"
    yield from (f"     {verdict:<12}{meaning}" for verdict, meaning in VERDICTS.items())
    yield f"2. ovsops audit {record.run} --filled {out}/audit.csv"
    yield "Labels alone are judged: an audit says how many of them are right, not what was never labelled."


def result_lines(result: AuditResult) -> Iterator[str]:
    """Shares, the decision, and what to do next."""
    whole = result.overall.interval()
    yield (
        f"{result.answered} of {counted(result.drawn, 'rows')} answered, {result.judged}"
        f" {'counts' if result.judged == 1 else 'count'}"
        + (f" ({result.verdicts['unsure']} unsure)" if result.verdicts["unsure"] else "")
        + f"; the run has {counted(result.labels, 'labels')}"
    )
    yield f"right labels: {whole.value:.1%}, between {whole.low:.1%} and {whole.high:.1%} (95 %)"
    wrong = {v: n for v, n in result.verdicts.items() if v not in ("right", "unsure")}
    if wrong:
        yield f"wrong ones: {', '.join(f'{verdict} {count}' for verdict, count in sorted(wrong.items()))}"
    a, config = result.acceptance, result.config
    bounds = (
        f"at least {a.at_least:.1%}, at most {a.at_most:.1%}, each with {1 - config.alpha:.0%} confidence"
    )
    yield f"{a.decision.upper()}  wanted {config.quality:.1%} right; they are {bounds}"
    yield ""
    yield from _table("class", result.classes)
    if len(result.strata) > len(result.classes):
        yield ""
        weak = sorted(result.strata, key=lambda each: (each.share.high, each.name))
        yield from _table("weakest strata", [each for each in weak if each.count.judged])
    for number, step in enumerate(next_steps(result)):
        yield f"{'next: ' if not number else '      '}{step}"


def _table(title: str, rows: Sequence[StratumResult]) -> Iterator[str]:
    width = max(len(title), *(len(each.name) for each in rows[:_MOST]), 8)
    yield f"  {title:<{width}}  labels  judged  right    share  (95 %)"
    for each in rows[:_MOST]:
        share, count = each.share, each.count
        seen = f"{share.value:>6.1%}  ({share.low:.1%} to {share.high:.1%})" if count.judged else "not judged"
        yield f"  {each.name:<{width}}  {count.size:>6}  {count.judged:>6}  {count.right:>5}   {seen}"
    if len(rows) > _MOST:
        yield f"  and {len(rows) - _MOST} more (in the JSON)"
