"""The head of a run's page: what was labelled, what failed and why, how good and how sure, what it cost."""

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ovsops.backbones.shipped import MINIATURE_NOTICE, MINIATURE_NOTICE_ZH, names_miniature
from pipelines.report.beside import Evaluation
from pipelines.report.charts import stacked_bar
from pipelines.report.code_texts import failure_text
from pipelines.report.counting import DECISIONS
from pipelines.report.facts import KILLED
from pipelines.report.run_report import RunReport
from pipelines.report.texts import Text, both, clean, duration, number, share, shown
from pipelines.rows import SKIP_PREFIX
from pipelines.world_shards import is_drawn

if TYPE_CHECKING:
    from ovsops.regions.calibration import ScoreCalibrator

FIGURES = {
    "box_ap50": Text("AP50 of boxes", "检测框 AP50"),
    "mask_ap50": Text("AP50 of masks", "掩码 AP50"),
    "mean_iou": Text("mean IoU", "平均 IoU"),
    "pixel_accuracy": Text("pixels right", "像素准确率"),
    "mean_boundary_f": Text("boundary F", "边界 F"),
    "instance_ece_calibrated": Text("calibration error", "校准误差"),
    "instance_ece": Text("calibration error, raw scores", "校准误差（原始分数）"),
    "calibration_error": Text("calibration error of regions", "区域校准误差"),
}
"""Figures of an evaluation that stand on the first screen, the most telling first."""
_OF_BOXES = ("box_ap50", "mask_ap50")
"""Tell little of a run without a detector."""


def head(report: RunReport) -> Iterator[str]:
    """Title, verdict, four cards."""
    facts = report.facts
    name = "/".join(facts.output.rstrip("/").split("/")[-2:])
    yield (
        f'<header class="top"><div><h1>{shown(name)}</h1><p class="fine">{_when(report)}'
        f"<code>{shown(facts.output)}</code></p></div>"
        '<div class="switch" role="group" aria-label="Language / 语言">'
        '<button type="button" data-set-lang="en" aria-pressed="true">English</button>'
        '<button type="button" data-set-lang="zh" aria-pressed="false" lang="zh-CN">中文</button></div></header>'
    )
    if _is_miniature_on_photographs(report):
        yield f'<p class="note">{both(Text(MINIATURE_NOTICE, MINIATURE_NOTICE_ZH))}</p>'
    yield _verdict(report)
    yield f'<div class="cards">{_labelled(report)}{_failed(report)}{_quality(report)}{_cost(report)}</div>'


def _is_miniature_on_photographs(report: RunReport) -> bool:
    manifest, commits = report.facts.manifest, report.facts.commits
    models = {half: manifest.get(half, {}) for half in ("recipe", "settings")}
    return names_miniature(models) and not all(is_drawn(commit.name) for commit in commits)


def _when(report: RunReport) -> str:
    if report.timeline is None:
        return ""
    started, ended = report.timeline.sessions[0][0], report.timeline.sessions[-1][1]
    first, last = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (started, ended))
    span = first if first == last else f"{first} – {last[11:] if first[:10] == last[:10] else last}"
    return f"{span} UTC · "


def _verdict(report: RunReport) -> str:
    """One sentence whether somebody has to get up."""
    facts = report.facts
    bad, notes = _problems(report)
    if bad:
        kind, title = "bad", bad
    elif facts.over_limits:
        kind, title = (
            "warn",
            Text("Finished, but over its limits: look at this", "已完成，但超出限制：请检查"),
        )
    elif notes:
        kind, title = "warn", Text("Finished; something to look at", "已完成，有事项需要查看")
    else:
        kind, title = "good", Text("Finished within its limits", "已完成，未超出限制")
    items = [shown(line, 600) for line in (*facts.over_limits, *facts.broken)] + notes
    if facts.summary.get("error"):
        items.insert(0, shown(str(facts.summary["error"]), 900))
    listed = "".join(f"<li>{item}</li>" for item in items[:12])
    return f'<section class="verdict {kind}"><b>{both(title)}</b>{f"<ul>{listed}</ul>" if listed else ""}</section>'


def _problems(report: RunReport) -> tuple[Text | None, list[str]]:
    facts, notes = report.facts, []
    bad = None
    if facts.broken:
        bad = Text("Rows do not add up: do not use these labels", "行数不符：请勿使用这些标注")
    elif facts.state == "error":
        bad = Text(
            "Stopped by an error. Mend it and run the same command again",
            "因错误停止。修复后再次运行同一命令",
        )
    elif facts.state == "not started":
        bad = Text(
            "Did not start. Mend it and run the same command again", "未能启动。修复后再次运行同一命令"
        )
    elif facts.state == "interrupted":
        bad = Text("Interrupted. Run the same command again: it goes on", "已中断。再次运行同一命令即可继续")
    elif facts.state == KILLED:
        bad = Text(
            "No summary: it still runs, or was killed. Run the same command again: it goes on",
            "没有摘要：仍在运行或已被终止。再次运行同一命令即可继续",
        )
    if facts.pending:
        notes.append(both(Text("{n} shards are not done", "{n} 个分片未完成"), n=number(facts.pending)))
    for name, why in facts.failed_shards.items():
        text = Text("shard could not be read: ", "分片无法读取：")
        notes.append(f"{both(text)}{shown(name)}: {shown(why, 400)}")
    for name, why in facts.damaged.items():
        text = Text("archive is damaged, what it lost cannot be counted: ", "归档已损坏，丢失数量无法统计：")
        notes.append(f"{both(text)}{shown(name)}: {shown(why, 400)}")
    for name in report.counts.lost_tables:
        text = Text("tables cannot be read: ", "表无法读取：")
        notes.append(f"{both(text)}{shown(name)}")
    return bad, notes


def _card(title: Text, big: str, body: str, *, bar: str = "") -> str:
    return f'<section class="card"><h3>{both(title)}</h3><div class="big">{big}</div>{bar}{body}</section>'


def _items(*lines: str) -> str:
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines if line)}</ul>"


def _labelled(report: RunReport) -> str:
    totals, counts = report.facts.totals, report.counts
    of = both(Text("of {n} images", "/ 共 {n} 张图片"), n=number(totals["read"]))
    adds_up = not report.facts.broken
    row = " + ".join(number(totals[name]) for name in ("labelled", "skipped", "failed"))
    invariant = Text("every image has its row: {read} read = {row}", "每张图片都有一行：读入 {read} = {row}")
    broken = Text("rows do not add up: {read} read, {row} written", "行数不符：读入 {read}，写出 {row}")
    mark = '<span class="good-text">✓</span> ' if adds_up else '<span class="bad-text">✗</span> '
    bar = stacked_bar(
        [(name, totals[name]) for name in ("labelled", "skipped", "failed")],
        totals["read"],
        label=f"{totals['labelled']} labelled, {totals['skipped']} skipped, {totals['failed']} failed",
    )
    num_classes = len(counts.scores)
    return _card(
        Text("Labelled", "已标注"),
        f"{number(totals['labelled'])} <small>{of}</small>",
        _items(
            both(
                Text("{n} regions of {k} classes", "{k} 个类别的 {n} 个区域"),
                n=number(totals["instances"]),
                k=num_classes,
            ),
            both(Text("{n} images without a region", "{n} 张图片没有区域"), n=number(counts.num_empty))
            if counts.num_empty
            else "",
            mark + both(invariant if adds_up else broken, read=number(totals["read"]), row=row),
        ),
        bar=bar,
    )


def _failed(report: RunReport) -> str:
    facts, totals = report.facts, report.facts.totals
    failed = totals["failed"]
    limit = facts.failed_limit
    style = (
        "good-text"
        if not failed
        else "bad-text"
        if limit is not None and failed > limit * totals["read"]
        else ""
    )
    of = f"<small>{share(failed, totals['read'])}</small>" if failed else ""
    lines = [
        f"{number(count)} × {both(failure_text(code).meaning)} <code>{shown(code, 40)}</code>"
        for code, count in facts.codes.most_common()
        if not code.startswith(SKIP_PREFIX)
    ]
    rest = len(lines) - 3
    if limit is not None:
        lines[3:] = [
            both(Text("limit: {share} of the images", "上限：图片的 {share}"), share=share(limit, 1.0))
        ]
    if rest > 0:
        lines.insert(
            3, f'<a href="#failures">{both(Text("{n} more reasons", "另有 {n} 种原因"), n=rest)}</a>'
        )
    if totals["skipped"]:
        skipped = Text("{n} skipped on purpose", "{n} 张有意跳过")
        lines.append(both(skipped, n=number(totals["skipped"])))
    if not failed:
        lines.insert(0, both(Text("no image failed", "没有图片失败")))
    return _card(
        Text("Failed", "失败"), f'<span class="{style}">{number(failed)}</span> {of}', _items(*lines)
    )


def _quality(report: RunReport) -> str:
    title = Text("How good, how sure", "质量与置信度")
    decided = report.counts.by_decision().sum(axis=1)
    lines = []
    review = int(decided[DECISIONS.index("review")])
    total = report.counts.num_regions
    if total:
        text = Text("{share} of the regions ask for a look ({n})", "{share} 的区域建议人工查看（{n}）")
        lines.append(both(text, share=share(review, total), n=number(review)))
    if report.beside.evaluations:
        has_boxes = report.facts.manifest.get("recipe", {}).get("detector") is not None
        return _measured(title, report.beside.evaluations[0], lines, has_boxes=has_boxes)
    expected = expected_right(report)
    if expected is not None:
        chance, known = expected
        source = Text(
            "mean calibrated chance over {n} regions; not measured on this run",
            "{n} 个区域的平均校准概率；未在本次运行上实测",
        )
        lines.insert(0, both(source, n=number(known)))
        lines += _fitted_on(report.beside.calibrator)
        big = f"{share(chance, 1.0)} <small>{both(Text('expected right', '预计正确'))}</small>"
        return _card(title, big, _items(*lines))
    advice = Text(
        "No truth was compared and no scores were calibrated: an `evaluate` recipe or `ovsops fit` tells",
        "尚未与真值比较，也未校准分数：可用 evaluate 配方或 ovsops fit",
    )
    return _card(title, both(Text("not measured", "未测量")), _items(both(advice), *lines))


def _fitted_on(calibrator: "ScoreCalibrator | None") -> list[str]:
    if calibrator is None:
        return []
    text = Text("fitted on {n} boxes", "基于 {n} 个框拟合")
    return [both(text, n=number(calibrator.pooled.num_samples))]


def expected_right(report: RunReport) -> tuple[float, int] | None:
    """Mean of `score_calibrated`, by bins, and how many regions have one; None where none has."""
    counts = report.counts.chances.sum(axis=0)
    known = int(counts.sum())
    if not known:
        return None
    middles = (np.arange(len(counts)) + 0.5) / len(counts)
    return float((counts * middles).sum() / known), known


def _measured(title: Text, evaluation: Evaluation, lines: list[str], *, has_boxes: bool) -> str:
    figures = {**evaluation.figures, **evaluation.instance_figures}
    found = [
        (name, figures[name])
        for name in (FIGURES if has_boxes else sorted(FIGURES, key=lambda each: each in _OF_BOXES))
        if name in figures and figures[name].get("value") is not None
    ]
    if "instance_ece_calibrated" in dict(found):
        found = [each for each in found if each[0] != "instance_ece"]
    if not found:
        return _card(title, both(Text("not measured", "未测量")), _items(*lines))
    (first, best), *others = found
    text = Text(
        "95 % interval {low} to {high}, {n} images of truth: {truth}",
        "95 % 区间 {low} 至 {high}，{n} 张有真值的图片：{truth}",
    )
    measured = [
        both(
            text,
            low=three(best["low"]),
            high=three(best["high"]),
            n=number(evaluation.num_images),
            truth=clean(evaluation.truth, 60),
        )
    ]
    measured += [
        f"{both(FIGURES[name])} {three(figure['value'])}"
        f' <span class="fine">({three(figure["low"])}–{three(figure["high"])})</span>'
        for name, figure in others[:3]
    ]
    if evaluation.is_stale:
        stale = Text("the labels changed since this was measured", "测量之后标注已改变")
        measured.insert(0, f'<span class="warn-text">{both(stale)}</span>')
    big = f"{three(best['value'])} <small>{both(FIGURES[first])}</small>"
    return _card(title, big, _items(*measured, *lines))


def three(value: float | None) -> str:
    """`0.718`; a dash where it is not defined."""
    return "–" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _cost(report: RunReport) -> str:
    facts, timeline = report.facts, report.timeline
    read = facts.totals["read"]
    model_s = sum(commit.seconds.get("segment_seconds", 0.0) for commit in facts.commits)
    lines = []
    if timeline is not None:
        big = f"{duration(timeline.working_s)} <small>{both(Text('of work', '工作时间'))}</small>"
        rate = Text("{rate} images/s", "{rate} 张/秒")
        lines.append(both(rate, rate=number(read / timeline.working_s)))
        if len(timeline.sessions) > 1:
            lines.append(both(Text("{n} stretches of work", "{n} 段工作"), n=len(timeline.sessions)))
        busy = model_s / (facts.num_actors * timeline.working_s)
        busy_text = Text("models busy {share} of it", "模型忙碌 {share}")
        lines.append(both(busy_text, share=share(min(busy, 1.0), 1.0)))
    else:
        big = f"{duration(model_s)} <small>{both(Text('in the models', '模型时间'))}</small>"
    if facts.num_gpus and timeline is not None:
        hours = facts.num_gpus * timeline.working_s / 3600
        gpus = Text("{hours} GPU hours ({n} GPUs)", "{hours} GPU 小时（{n} 块 GPU）")
        lines.append(both(gpus, hours=number(hours), n=number(facts.num_gpus)))
    elif not facts.num_gpus:
        lines.append(both(Text("no GPU; model workers: {n}", "无 GPU；模型进程：{n}"), n=facts.num_actors))
    asked = facts.summary.get("this_run", {}).get("endpoint")
    if asked:
        text = Text(
            "endpoint, last start: {cost} for {n} questions", "接口（最近一次启动）：{n} 个问题，费用 {cost}"
        )
        lines.append(both(text, cost=number(asked.get("cost", 0.0)), n=number(asked.get("questions", 0))))
    if read:
        text = Text("{ms} ms of models an image", "每张图片模型 {ms} 毫秒")
        lines.append(both(text, ms=number(1000 * model_s / read)))
    return _card(Text("Cost", "成本"), big, _items(*lines))


def hidden_title(report: RunReport) -> str:
    """Title of the page: what a tab shows."""
    totals = report.facts.totals
    name = report.facts.output.rstrip("/").rsplit("/", 1)[-1]
    return escape(clean(f"{name}: {totals['labelled']:,} labelled, {totals['failed']:,} failed", 120))
