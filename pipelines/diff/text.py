"""A diff as text for a person: what changed, what became of the labels, what drifted, why, and what now."""

from collections.abc import Iterator, Sequence

from pipelines.counted import counted
from pipelines.diff.changes import Cause, listed
from pipelines.diff.compare import DiffResult, iou_quantile
from pipelines.diff.drift import FeatureDrift
from pipelines.diff.labels import LabelTotals

_CAUSES: tuple[tuple[Cause, str], ...] = (
    ("data", "data"),
    ("checkpoint", "checkpoints"),
    ("recipe", "recipe"),
    ("code", "code"),
)
_MEANINGS = {
    "class_mix": "class mix (labels)",
    "class_area": "class mix (area)",
    "score": "score",
    "score_calibrated": "calibrated score",
    "area": "area of labels",
    "labels_per_image": "labels per image",
    "decision": "decision",
    "outcome": "outcome of images",
    "image_side": "size of images",
}
_MOST = 8


def diff_lines(result: DiffResult) -> Iterator[str]:
    """The whole text, a line each."""
    for letter, run in zip("AB", result.runs, strict=True):
        yield (
            f"{letter}  {run.url}  {counted(run.images, 'images')}, {counted(run.labels, 'labels')},"
            f" {counted(run.shards, 'shards')}, recipe {run.recipe_hash[:12]}"
        )
    yield ""
    yield from _verdict(result)
    yield ""
    yield from _changes(result)
    yield ""
    yield from _labels(result)
    yield ""
    yield from _drift(result)


def _verdict(result: DiffResult) -> Iterator[str]:
    if result.alarms:
        yield f"ALARM  {len(result.alarms)} of what is watched passed its limit:"
        yield from (f"  {alarm}" for alarm in result.alarms)
    else:
        yield "no alarm"
    for number, sentence in enumerate(result.attribution.sentences):
        yield f"{'why  ' if not number else '     '}{sentence}"


def _changes(result: DiffResult) -> Iterator[str]:
    yield "What the runs were made with"
    for cause, name in _CAUSES:
        found = result.changes.of(cause)
        if not found:
            yield f"  {name:<12}the same" + (
                f" {counted(result.runs[0].shards, 'shards')}" if cause == "data" else ""
            )
            continue
        sentences = [change.sentence() for change in found]
        if cause == "data":
            shards = result.changes.shards
            parts = [
                f"{counted(shards.same, 'shards')} the same",
                f"{len(shards.replaced)} replaced",
                f"{len(shards.only_first)} only in A",
                f"{len(shards.only_second)} only in B",
            ]
            yield f"  {name:<12}{', '.join(parts)}"
            continue
        for number, sentence in enumerate(sentences[:_MOST]):
            yield f"  {name if not number else '':<12}{sentence}"
        if len(sentences) > _MOST:
            yield f"  {'':<12}and {len(sentences) - _MOST} more (in the JSON)"
    if result.classes.moved_ids:
        yield f"  class ids   moved: {listed(result.classes.moved_ids)}"
    if result.classes.renamed:
        yield f"  class ids   renamed: {listed(result.classes.renamed)}"


def _labels(result: DiffResult) -> Iterator[str]:
    labels = result.labels
    if not labels.images and not labels.outcomes:
        yield "Labels of the same images: the runs share no image (compared by content)"
        return
    yield f"Labels of the same images ({counted(labels.images, 'images')}, compared by content)"
    if labels.is_identical:
        whole = "all " if labels.identical != 1 else ""
        yield (
            f"  identical: {whole}{counted(labels.identical, 'labels')}, pixel by pixel, with their scores and"
            " decisions"
        )
        return
    fates = labels.by_fate
    yield (
        f"  {fates['kept']} kept ({labels.identical} of them pixel by pixel), {fates['moved']} moved,"
        f" {fates['renamed']} renamed, {fates['lost']} lost, {fates['new']} new: {labels.changed_share:.1%} changed"
    )
    yield from _matched(labels)
    if labels.outcomes:
        parts = [f"{a} -> {b}: {n}" for (a, b), n in labels.outcomes.most_common(_MOST)]
        yield f"  images with another outcome: {', '.join(parts)}"
    yield from _classes(result)
    if labels.examples:
        shown = [
            f"{e.shard} {e.key or e.image_uid} ({counted(e.num_changed, 'labels')})"
            for e in labels.examples[:3]
        ]
        yield f"  most changed images: {', '.join(shown)}"


def _matched(labels: LabelTotals) -> Iterator[str]:
    if not labels.matched:
        return
    quantiles = [iou_quantile(labels, share) or 0.0 for share in (0.0, 0.05, 0.5)]
    least, low, median = quantiles
    yield f"  IoU of matched labels: least {least:.2f}, 5 % are at or below {low:.2f}, median {median:.2f}"
    mean = labels.score_difference_sum / labels.matched
    yield f"  scores of matched labels differ by {mean:.3f} on average, {labels.score_difference_max:.3f} at most"
    if labels.recalibrated:
        yield f"  calibrated scores of {counted(labels.recalibrated, 'matched labels')} changed"
    if labels.decisions:
        parts = [f"{a} -> {b}: {n}" for (a, b), n in labels.decisions.most_common(_MOST)]
        yield f"  decisions changed: {', '.join(parts)} ({labels.decisions_share:.1%} of the matched)"


def _classes(result: DiffResult) -> Iterator[str]:
    labels, names = result.labels, result.classes.names
    changed = labels.fates[:, 1:].sum(axis=1)
    places = sorted((p for p in range(len(names)) if changed[p]), key=lambda p: (-changed[p], names[p]))
    rows = [
        [names[p], *(str(n) for n in (labels.in_first[p], labels.in_second[p], *labels.fates[p].tolist()))]
        for p in places[:_MOST]
    ]
    if rows:
        head = ["class", "A", "B", "kept", "moved", "renamed", "lost", "new"]
        yield from _table(head, rows)
        if len(places) > _MOST:
            yield f"  and {len(places) - _MOST} classes more (in the JSON)"
    if labels.renames:
        parts = [f"{names[a]} -> {names[b]}: {n}" for (a, b), n in labels.renames.most_common(_MOST)]
        yield f"  renamed: {', '.join(parts)}"


def _drift(result: DiffResult) -> Iterator[str]:
    drift = result.drift
    yield "Populations (all images of both runs)"
    if drift.not_tested:
        yield f"  not tested: {drift.not_tested}"
    rows = [_feature_row(each) for each in drift.features]
    head = ["", "A", "B", "PSI", "by chance", "p", "JS", "by chance", "p", ""]
    yield from _table(head, rows)
    if drift.failed.shift is not None:
        rate = drift.failed.shift
        said = f"{rate.first:.2%} -> {rate.second:.2%}" if rate.first or rate.second else "none in either run"
        yield (
            f"  failed images: {said}; with 95 % confidence the difference lies between {rate.low:+.2%} and"
            f" {rate.high:+.2%} (p {drift.failed.p_adjusted:.2g})"
        )
    if not drift.not_tested:
        config = result.config.drift
        yield (
            f"  alarms from PSI {config.psi:g} or JS {config.js:g} on where p is {config.alpha:g} or less."
            " 'by chance': 95"
            f" % of {config.num_permutations} permutations of {sum(drift.num_permuted)} images stay below;"
            " p is adjusted"
            " for the number of tests"
        )
    for each in drift.features:
        if each.alarm and each.medians is None:
            parts = [f"{m.name} {m.first:.1%} -> {m.second:.1%}" for m in each.movers]
            yield f"  {_MEANINGS[each.name]}: {', '.join(parts)}"


def _feature_row(each: FeatureDrift) -> list[str]:
    if each.medians is None:
        sides = [f"{value:.0f}" if each.name != "class_area" else "" for value in (each.first, each.second)]
    else:
        sides = [f"~{value:.3g}" for value in each.medians]
    if each.shift is None:
        return [_MEANINGS[each.name], *sides, *[""] * 7]
    s = each.shift
    return [
        _MEANINGS[each.name],
        *sides,
        f"{s.psi:.3f}",
        f"{s.psi_by_chance:.3f}",
        f"{each.psi_p_adjusted:.2g}",
        f"{s.js:.3f}",
        f"{s.js_by_chance:.3f}",
        f"{each.js_p_adjusted:.2g}",
        "ALARM" if each.alarm else "",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if not n else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells).rstrip()}"
