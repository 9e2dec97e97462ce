"""Sections that are charts: scores with their reliability, and throughput over time."""

from collections.abc import Iterator
from html import escape

import numpy as np
from jaxtyping import Int64

from pipelines.report.charts import histogram, lines, reliability
from pipelines.report.code_texts import CARRIED, UNKNOWN_CODE
from pipelines.report.counting import UNDECIDED
from pipelines.report.run_report import RunReport
from pipelines.report.sections import STYLES, code_name, folded, section, table
from pipelines.report.texts import Text, both, clean, number, share

_DECISION_NAMES = {
    "accept": Text("accept", "接受"),
    "review": Text("review", "待审"),
    "reject": Text("reject", "拒绝"),
    "none": Text("undecided", "未决定"),
}
_STAGES = {
    "segment": Text("models", "模型"),
    "encode": Text("masks to records", "掩码编码"),
    "ask": Text("endpoint", "接口"),
    "write": Text("writing", "写入"),
}


def scores(report: RunReport) -> str:
    """Histograms, the reliability curve, and codes of regions."""
    charts = [_histogram(Text("Scores as written", "写入的分数"), report.counts.by_decision())]
    if report.counts.chances.any():
        title = Text("Calibrated scores: chances of being right", "校准分数：正确的概率")
        charts.append(_histogram(title, report.counts.chances))
    charts += list(_reliability(report))
    lead = Text(
        "Green was accepted, orange asks for a look. A score is only as good as its reliability curve.",
        "绿色为接受，橙色建议人工查看。分数是否可信取决于可靠性曲线。",
    )
    return section(
        "scores",
        Text("Scores and confidence", "分数与置信度"),
        both(lead),
        f'<div class="charts">{"".join(charts)}</div>',
        _reasons(report),
    )


def _histogram(title: Text, counts: Int64[np.ndarray, "D M"]) -> str:
    stacks = [
        (STYLES[place], _DECISION_NAMES[STYLES[place]], counts[place].astype(np.float64))
        for place in range(UNDECIDED + 1)
        if counts[place].any()
    ] or [("none", _DECISION_NAMES["none"], counts[UNDECIDED].astype(np.float64))]
    return histogram(title, Text("score", "分数"), stacks)


def _reliability(report: RunReport) -> Iterator[str]:
    right = Text("share that is right", "正确比例")
    names = {
        "raw": ("c1", Text("scores as joined", "合并后的分数")),
        "calibrated": ("c0", Text("calibrated", "校准后")),
        "regions": ("c0", Text("regions", "区域")),
    }
    for evaluation in report.beside.evaluations[:1]:
        has_instances = "raw" in evaluation.reliability or "calibrated" in evaluation.reliability
        curves = [
            (*names[kind], points)
            for kind, points in evaluation.reliability.items()
            if kind in names and (kind != "regions" or not has_instances)
        ]
        if curves:
            note = Text(
                "{n} images with truth ({truth}). Dots grow with the regions they stand for; below the dashes scores"
                " promise too much.",
                "{n} 张有真值的图片（{truth}）。点的大小表示区域数；虚线以下表示分数过于自信。",
            )
            said = both(note, n=number(evaluation.num_images), truth=clean(evaluation.truth, 60))
            yield reliability(Text("Reliability", "可靠性"), curves, y_label=right, note=said)
    calibrator = report.beside.calibrator
    if calibrator is not None:
        pooled = calibrator.pooled
        points = [(score, chance, 0) for score, chance in zip(pooled.scores, pooled.chances, strict=True)]
        note = Text(
            "{kind}, fitted on {n} boxes ({source}); all classes together",
            "{kind}，基于 {n} 个框（{source}）；所有类别合并",
        )
        said = both(
            note, kind=calibrator.kind, n=number(pooled.num_samples), source=clean(calibrator.source, 60)
        )
        yield reliability(
            Text("What the calibrator makes of a score", "校准器的映射"),
            [("c2", Text("chance of a score", "分数对应的概率"), points)],
            y_label=Text("chance of being right", "正确概率"),
            note=said,
        )
    elif report.beside.why_no_calibrator:
        text = Text("The calibrator cannot be shown: {why}", "无法显示校准器：{why}")
        yield f'<p class="card">{both(text, why=clean(report.beside.why_no_calibrator))}</p>'


def _reasons(report: RunReport) -> str:
    reasons, total = report.counts.reasons, report.counts.num_regions
    if not reasons:
        return ""
    rows = "".join(
        f'<tr><td class="code"><a href="#gallery" data-filter-reason="{escape(clean(code, 40))}">'
        f"{code_name(code)}</a></td>"
        f"<td>{both(CARRIED.get(code, UNKNOWN_CODE.meaning))}</td>"
        f'<td class="n">{number(count)}</td><td class="n">{share(count, total)}</td></tr>'
        for code, count in reasons.most_common()
    )
    head = (
        f"<tr><th>{both(Text('code', '代码'))}</th><th>{both(Text('what it says', '含义'))}</th>"
        f"<th class=n>{both(Text('regions', '区域数'))}</th><th class='n'>"
        f"{both(Text('of all', '占比'))}</th></tr>"
    )
    title = Text("What was remarked about regions", "区域备注")
    return folded(title, table(head, rows), is_open=True)


def throughput(report: RunReport) -> str:
    """Images a second and busy workers over the time of work."""
    timeline = report.timeline
    title = Text("Throughput", "吞吐")
    if timeline is None:
        text = Text(
            "This run was written by a version that stored no times of stages.",
            "该运行由未记录阶段时间的版本写入。",
        )
        return section("throughput", title, both(text))
    lead = Text(
        "What each stage worked on and when, from the commit records. Idle time between starts is left out.",
        "各阶段的工作时间来自提交记录；两次启动之间的空闲时间已略去。",
    )
    stages = [stage for stage in _STAGES if stage in timeline.rates]
    styles = {stage: f"c{place}" for place, stage in enumerate(_STAGES)}
    rates = [(styles[s], _STAGES[s], timeline.rates[s]) for s in stages]
    busy = [(styles[s], _STAGES[s], timeline.busy[s]) for s in stages]
    actors = report.facts.num_actors
    gpus = report.facts.num_gpus
    note = (
        Text(
            "Dashes: every model worker busy ({n}). They hold {gpus} GPUs: their line is how busy the GPUs were kept.",
            "虚线：所有模型进程（{n} 个）全部忙碌。它们占用 {gpus} 块 GPU，因此反映 GPU 利用情况。",
        )
        if gpus
        else Text(
            "Dashes: every model worker busy ({n}). They ran on CPUs.",
            "虚线：所有模型进程（{n} 个）全部忙碌（CPU）。",
        )
    )
    charts = [
        lines(
            Text("Images a second, by stage", "各阶段每秒图片数"),
            Text("images/s", "张/秒"),
            rates,
            width_s=timeline.width_s,
            breaks=timeline.breaks,
        ),
        lines(
            Text("Workers busy, by stage", "各阶段忙碌进程数"),
            Text("busy workers", "忙碌进程"),
            busy,
            width_s=timeline.width_s,
            breaks=timeline.breaks,
            top=float(actors),
            note=both(note, n=actors, gpus=number(gpus)),
        ),
    ]
    return section(
        "throughput", title, both(lead), f'<div class="charts">{"".join(charts)}</div>', _stage_table(report)
    )


def _stage_table(report: RunReport) -> str:
    rows = []
    for stage, name in _STAGES.items():
        spans = report.facts.spans.get(stage)
        if not spans:
            continue
        images, busy = sum(span[3] for span in spans), sum(span[2] for span in spans)
        each = f"{1000 * busy / images:,.1f} ms" if images else "–"
        alone = f"{images / busy:,.1f}" if busy else "–"
        rows.append(
            f"<tr><td>{both(name)}</td><td class='n'>{number(images)}</td><td class='n'>{busy:,.1f} s</td>"
            f"<td class='n'>{each}</td><td class='n'>{alone}</td></tr>"
        )
    head = (
        f"<tr><th>{both(Text('stage', '阶段'))}</th><th class=n>{both(Text('images', '图片数'))}</th>"
        f"<th class=n>{both(Text('worked', '工作时间'))}</th><th class=n>{both(Text('an image', '每张'))}</th>"
        f"<th class='n'>{both(Text('images/s, one worker', '单进程张/秒'))}</th></tr>"
    )
    return folded(Text("Stages in numbers", "阶段数据"), table(head, "".join(rows)), is_open=True)
