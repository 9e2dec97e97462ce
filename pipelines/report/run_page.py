"""One HTML page about a label run. It loads nothing, runs one script of ours, and takes no word of the data for markup.

The policy in its head names the one style and the one script by hash: nothing else can run, whatever a caption says.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from pipelines.report import chart_sections, negatives_section, sections
from pipelines.report.code_texts import CARRIED
from pipelines.report.first_screen import head, hidden_title
from pipelines.report.gallery import gallery_data, page_json
from pipelines.report.run_report import RunReport
from pipelines.report.texts import Text, both, clean, number, share, shown

_RESERVE = 20_000
"""Bytes kept free for the parts around the gallery that are not measured."""

_TEXTS = {
    "all_classes": Text("all classes", "全部类别"),
    "all_decisions": Text("all decisions", "全部决定"),
    "all_reasons": Text("all reasons", "全部原因"),
    "area": Text("area", "面积"),
    "by_class": Text("class", "类别"),
    "by_decision": Text("decision", "决定"),
    "by_reason": Text("reason", "原因"),
    "caption": Text("caption", "说明"),
    "chance": Text("chance of being right", "正确概率"),
    "close": Text("close", "关闭"),
    "before": Text("previous picture", "上一张"),
    "after": Text("next picture", "下一张"),
    "decision_accept": Text("accept", "接受"),
    "decision_none": Text("undecided", "未决定"),
    "decision_reject": Text("reject", "拒绝"),
    "decision_review": Text("review", "待审"),
    "drawn": Text("drawn", "已绘制"),
    "empty_image": Text("no region", "无区域"),
    "found": Text(
        "{images} of {all} pictures, {regions} regions", "{images} / {all} 张图片，{regions} 个区域"
    ),
    "licence": Text("licence", "许可证"),
    "long_caption": Text("long caption", "长说明"),
    "low": Text("lowest score", "最低分"),
    "high": Text("highest score", "最高分"),
    "missing_changed": Text("The image's bytes changed", "图片内容已改变"),
    "missing_decode": Text("The image cannot be decoded", "图片无法解码"),
    "missing_image": Text("The image is gone", "图片已不存在"),
    "missing_page": Text("The page is full", "页面已满"),
    "missing_shard": Text("The shard is gone", "分片已不存在"),
    "n_of_regions": Text("{n} of {m} regions", "{n} / {m} 个区域"),
    "n_regions": Text("{n} regions", "{n} 个区域"),
    "negatives": Text("Hard negatives of this region", "该区域的难负样本"),
    "raw_score": Text("score as joined", "合并分数"),
    "rivals": Text("nearly", "候选名称"),
    "shard": Text("shard", "分片"),
    "size": Text("size", "尺寸"),
    "verdict": Text("verdict", "判定"),
    "without_regions": Text("images without a region", "无区域的图片"),
}
"""What the script says."""


def run_page(report: RunReport) -> str:
    """The page, at most `report.config.max_bytes` long."""
    body = [
        *head(report),
        _contents(report),
        sections.failures(report),
        chart_sections.scores(report),
        sections.classes(report),
        sections.confusions(report),
        chart_sections.throughput(report),
    ]
    after = [negatives_section.negatives(report), sections.made_with(report), _footer()]
    style, script = (asset(name) for name in ("run_page.css", "run_page.js"))
    fixed = sum(len(part.encode()) for part in (*body, *after, style, script)) + _RESERVE
    data = _data(report)
    fixed += len(page_json(data).encode())
    data["images"], num_left_out = gallery_data(
        report.gallery,
        report.place_of,
        report.beside.negatives.by_region,
        max_bytes=report.config.max_bytes - fixed,
    )
    body.append(_gallery(report, data["images"], num_left_out))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{hidden_title(report)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join([*body, *after])
        + f'\n</main>\n{_viewer()}\n<script type="application/json" id="data">{page_json(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def asset(name: str) -> str:
    """A file of the page that is ours."""
    return files("pipelines.report").joinpath("assets", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(report: RunReport) -> dict[str, Any]:
    """What the script needs beside the images."""
    codes = {
        code for image in report.gallery.images for region in image.regions for code in region["reason_codes"]
    }
    return {
        "texts": {name: [text.en, text.zh] for name, text in _TEXTS.items()},
        "classes": [
            {"name": clean(each.name, 80), "zh": clean(each.name_zh, 80), "rgb": list(each.rgb)}
            for each in report.classes
        ],
        "reasons": {
            clean(code, 40): [CARRIED[code].en, CARRIED[code].zh] for code in sorted(codes) if code in CARRIED
        },
        "calibrated": bool(report.counts.chances.any()),
        "images": [],
    }


def _contents(report: RunReport) -> str:
    names = {
        "failures": Text("Failures", "失败"),
        "scores": Text("Scores", "分数"),
        "classes": Text("Classes", "类别"),
        "confusions": Text("Confusions", "混淆"),
        "throughput": Text("Throughput", "吞吐"),
        "gallery": Text("Pictures", "图片"),
        **({"negatives": Text("Negatives", "负样本")} if report.beside.negatives.to_read else {}),
        "made": Text("Made with", "生成信息"),
    }
    links = (f'<a href="#{anchor}">{both(name)}</a>' for anchor, name in names.items())
    return f"<nav>{''.join(links)}</nav>"


def _gallery(report: RunReport, images: list[Mapping[str, Any]], num_left_out: int) -> str:
    """The filters and an empty grid, which the script fills."""
    toggles = "".join(
        f'<button type="button" data-toggle="{name}" aria-pressed="{str(on).lower()}">{both(text)}'
        f' <kbd class="keys">{key}</kbd></button>'
        for name, text, key, on in (
            ("masks", Text("masks", "掩码"), "m", True),
            ("boxes", Text("boxes", "检测框"), "b", False),
            ("captions", Text("captions", "文字"), "c", False),
        )
    )
    has_negatives = any("N" in region for image in images for region in image["r"])
    only = (
        f'<button type="button" id="only-negatives" aria-pressed="false">'
        f"{both(Text('with hard negatives', '含难负样本'))}</button>"
        if has_negatives
        else ""
    )
    tools = (
        '<div class="tools">'
        '<select id="by-class" data-label="by_class"></select>'
        '<select id="by-decision" data-label="by_decision"></select>'
        '<select id="by-reason" data-label="by_reason"></select>'
        f'<span class="range">{both(Text("score", "分数"))}'
        '<input type="range" id="low" min="0" max="1" step="0.01" value="0" data-label="low">'
        '<input type="range" id="high" min="0" max="1" step="0.01" value="1" data-label="high">'
        '<output id="range">0.00–1.00</output></span>'
        f"{toggles}{only}"
        f'<button type="button" id="clear" disabled>{both(Text("clear", "清除"))}</button>'
        '<span id="found" role="status"></span></div>'
    )
    nothing = Text("No picture here fits these filters.", "没有符合条件的图片。")
    scripted = Text("The pictures need JavaScript.", "图片部分需要 JavaScript。")
    return sections.section(
        "gallery",
        Text("Pictures", "图片"),
        _share_shown(report, images),
        *_remarks(report, images, num_left_out),
        tools,
        f"<noscript>{both(scripted)}</noscript>",
        f'<p id="nothing" class="card" hidden>{both(nothing)}</p><div id="grid"></div>',
    )


def _share_shown(report: RunReport, images: list[Mapping[str, Any]]) -> str:
    """How much of the run is here, and how it was chosen."""
    totals = report.facts.totals
    num_regions = sum(len(image["r"]) for image in images)
    everything = len(images) == totals["labelled"] and num_regions == report.counts.num_regions
    if everything:
        return both(
            Text("All {n} labelled images with all {m} regions.", "全部 {n} 张已标注图片及 {m} 个区域。"),
            n=number(len(images)),
            m=number(num_regions),
        )
    text = Text(
        "{n} of {all} labelled images ({share}), {m} of {regions} regions ({region_share}); {k} of {classes} classes"
        " that were found. Sampled by class, decision, score and reason with seed {seed}: rare things show more often"
        " than they occur.",
        "{all} 张已标注图片中的 {n} 张（{share}），{regions} 个区域中的 {m} 个（{region_share}）；涵盖已找到的"
        " {classes} 个类别中的 {k} 个。按类别、决定、分数与原因分层抽样（种子 {seed}），因此稀有内容出现得更多。",
    )
    return both(
        text,
        n=number(len(images)),
        all=number(totals["labelled"]),
        share=share(len(images), totals["labelled"]),
        m=number(num_regions),
        regions=number(report.counts.num_regions),
        region_share=share(num_regions, report.counts.num_regions),
        k=len({region["c"] for image in images for region in image["r"]}),
        classes=len(report.counts.scores),
        seed=report.config.gallery.seed,
    )


def _remarks(report: RunReport, images: list[Mapping[str, Any]], num_left_out: int) -> list[str]:
    """What could not be shown, counted."""
    remarks = []
    missing = {
        reason: sum(image["m"] == reason for image in images)
        for reason in ("shard", "image", "changed", "decode", "page")
    }
    for reason, count in missing.items():
        if count:
            text = _TEXTS[f"missing_{reason}"]
            remarks.append(f"{both(Text('{n} pictures', '{n} 张图片'), n=number(count))}： {both(text)}")
    if report.gallery.lost_shards:
        names = ", ".join(shown(name, 120) for name in report.gallery.lost_shards[:5])
        text = Text("{n} source shards cannot be read: ", "{n} 个源分片无法读取：")
        remarks.append(f"{both(text, n=len(report.gallery.lost_shards))}{names}")
    if num_left_out:
        text = Text("{n} more images did not fit into the page", "另有 {n} 张图片因页面已满未显示")
        remarks.append(both(text, n=number(num_left_out)))
    if not report.beside.negatives.num_regions:
        return [f'<p class="note">{"<br>".join(remarks)}</p>'] if remarks else []
    text = Text(
        "Hard negatives lie beside this run: {n} regions have some; they stand beside their positives in a picture.",
        "该运行旁有难负样本：{n} 个区域；打开图片可与正样本对照。",
    )
    said = f'<p class="fine">{both(text, n=number(report.beside.negatives.num_regions))}</p>'
    return [*([f'<p class="note">{"<br>".join(remarks)}</p>'] if remarks else []), said]


def _viewer() -> str:
    """The dialog for one picture; the script fills it."""
    keys = Text("keys:", "按键：")
    hints = " ".join(f"<kbd>{key}</kbd>" for key in ("←", "→", "m", "b", "c", "Esc"))
    return (
        '<dialog id="viewer"><div class="bar-top"><h3 id="viewer-title"></h3><span id="place"></span>'
        '<button type="button" id="before" data-label="before">←</button>'
        '<button type="button" id="after" data-label="after">→</button>'
        '<button type="button" id="close" data-label="close">✕</button></div>'
        '<div class="viewer"><div class="left"><canvas id="large"></canvas><dl id="facts"></dl>'
        f'<p class="fine keys">{both(keys)} {hints}</p></div><ol id="regions"></ol></div></dialog>'
    )


def _footer() -> str:
    text = Text(
        "One file: nothing is loaded, pictures were encoded anew from their pixels. Keys: m masks, b boxes, c captions,"
        " / filters, j and k through the pictures.",
        "单个文件：不加载任何外部内容，图片由像素重新编码。按键：m 掩码，b 检测框，c 文字，/ 筛选，j、k 浏览图片。",
    )
    return f'<footer class="fine">{both(text)}</footer>'
