"""The sections below a page's head: failures, scores, classes, confusions, throughput, how the run was made."""

import json
from collections.abc import Mapping
from html import escape

from pipelines.report.charts import stacked_bar
from pipelines.report.code_texts import UNKNOWN_CODE, failure_text, note_text
from pipelines.report.counting import DECISIONS
from pipelines.report.first_screen import three
from pipelines.report.run_report import RunReport, ShownClass
from pipelines.report.texts import Text, both, clean, number, score, share, shown
from pipelines.rows import SKIP_PREFIX

_FIRST_CLASSES = 24
"""Classes that are shown before a fold."""
_MAX_CLASSES = 1500
_MAX_PAIRS = 16
STYLES = (*DECISIONS, "none")
"""Style classes of decisions, by their place."""


def section(anchor: str, title: Text, lead: str, *parts: str) -> str:
    """A section with its title and a sentence."""
    return (
        f'<section id="{anchor}"><h2>{both(title)}</h2><p class="lead">{lead}</p>{"".join(parts)}</section>'
    )


def code_name(code: str) -> str:
    """A code as HTML; long ones break after their underscores."""
    return shown(code, 40).replace("_", "_<wbr>")


def folded(title: Text, content: str, *, is_open: bool = False, **fields: object) -> str:
    """Content that opens and closes."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{both(title, **fields)}</summary>{content}</details>"


def table(head: str, rows: str) -> str:
    """A table that scrolls sideways in its own box."""
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def class_name(found: ShownClass | None) -> str:
    """A class's name in both languages."""
    if found is None:
        return "?"
    return both(
        Text("{name}", "{name_zh}"),
        name=clean(found.name, 80),
        name_zh=clean(found.name_zh or found.name, 80),
    )


def swatch(found: ShownClass) -> str:
    """A square in the colour that the class has in every picture."""
    return (
        '<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="3" fill="rgb{found.rgb}"/></svg>'
    )


def failures(report: RunReport) -> str:
    """Every code with its meaning, its way out and examples; then notes."""
    codes, read = report.facts.codes, report.facts.totals["read"]
    cards = [_failure(report, code, count, read) for code, count in codes.most_common()]
    lead = Text(
        "A failed image is a row with a reason, never an absence. The others of its shard are labelled.",
        "失败的图片是一行带原因的记录，绝不会消失；同一分片的其他图片照常标注。",
    )
    none = (
        f'<p class="card">{both(Text("Nothing failed, nothing was skipped.", "没有失败，也没有跳过。"))}</p>'
    )
    body = f'<div class="failures">{"".join(cards)}</div>' if cards else none
    return section("failures", Text("Failures", "失败"), both(lead), body, _notes(report))


def _failure(report: RunReport, code: str, count: int, read: int) -> str:
    text = failure_text(code)
    output = clean(report.facts.output, 200)
    examples = "".join(
        f"<li>{shown(shard, 120)} · <b>{shown(key, 160)}</b>"
        f" <span class='fine'>{shown(stage, 40)}</span><br>{shown(message, 400)}</li>"
        for shard, key, stage, message in report.counts.examples.get(code, ())
    )
    folded = (
        f"<details open><summary>{both(Text('examples', '示例'))}</summary><ul>{examples}</ul></details>"
        if examples
        else ""
    )
    way = text.way_out.filled(code=code)
    way = Text(way.en.replace("OUT", output), way.zh.replace("OUT", output))
    style = "" if code.startswith(SKIP_PREFIX) else "bad-text"
    return (
        f'<div class="card failure"><div><code>{shown(code, 40)}</code> {both(text.meaning)}</div>'
        f'<div class="num {style}">{number(count)} <span class="fine">{share(count, read)}</span></div>'
        f'<p class="way"><span class="fine">{both(Text("way out", "处理办法"))}:</span> {both(_plain(way))}</p>'
        f"{folded}</div>"
    )


def _plain(text: Text) -> Text:
    """Braces of a path are no fields."""
    return Text(*(words.replace("{", "{{").replace("}", "}}") for words in (text.en, text.zh)))


def _notes(report: RunReport) -> str:
    notes = report.facts.notes
    if not notes:
        return ""
    rows = "".join(
        f'<tr><td class="code"><code>{code_name(code)}</code></td>'
        f"<td>{both(note_text(code) or UNKNOWN_CODE.meaning)}</td><td class='n'>{number(count)}</td></tr>"
        for code, count in notes.most_common()
    )
    title = Text(
        "Notes: images that were labelled all the same ({n} codes)", "备注：仍已标注的图片（{n} 种代码）"
    )
    head = _head(Text("code", "代码"), Text("meaning", "含义"), n=Text("images", "图片数"))
    return (
        f"<details><summary>{both(title, n=len(notes))}</summary>"
        f'<div class="scroll"><table>{head}{rows}</table></div></details>'
    )


def _head(*names: Text, n: Text | None = None) -> str:
    cells = "".join(f"<th>{both(name)}</th>" for name in names)
    return f"<tr>{cells}{f'<th class=n>{both(n)}</th>' if n else ''}</tr>"


def classes(report: RunReport) -> str:
    """Regions of each class, how many ask for a look, and how good the class was where that was measured."""
    counted = report.counts.num_per_class
    measured = report.beside.evaluations[0].class_figures if report.beside.evaluations else {}
    ranked = sorted(report.classes, key=lambda each: (-counted.get(each.id, 0), each.id))
    most = max(counted.values(), default=0)
    rows = [
        _class_row(report, each, most, measured) for each in ranked[:_MAX_CLASSES] if counted.get(each.id)
    ]
    absent = [each for each in ranked if not counted.get(each.id)]
    head = (
        f"<tr><th>{both(Text('class', '类别'))}</th><th class=n>{both(Text('regions', '区域数'))}</th>"
        f"<th class='wide'>{both(Text('accepted, to review', '接受 / 待审'))}</th>"
        f"<th class='n'>{both(Text('mean score', '平均分'))}</th>"
        + (f"<th class=n>{both(Text('IoU measured', '实测 IoU'))}</th>" if measured else "")
        + "</tr>"
    )
    folded = (
        f"<details><summary>{both(Text('{n} more classes', '另有 {n} 个类别'), n=len(rows) - _FIRST_CLASSES)}</summary>"
        f'<div class="scroll"><table>{head}{"".join(rows[_FIRST_CLASSES:])}</table></div></details>'
        if len(rows) > _FIRST_CLASSES
        else ""
    )
    lead = both(
        Text(
            "{n} of {all} classes were found. A class opens its pictures below.",
            "共 {all} 个类别，找到 {n} 个。点击类别可查看图片。",
        ),
        n=len(counted),
        all=len(report.classes),
    )
    table = f'<div class="scroll"><table>{head}{"".join(rows[:_FIRST_CLASSES])}</table></div>'
    return section("classes", Text("Classes", "类别"), lead, table if rows else "", folded, _absent(absent))


def _class_row(report: RunReport, found: ShownClass, most: int, measured: Mapping[int, float]) -> str:
    table = report.counts.scores[found.id]
    by_decision = table.sum(axis=1)
    total = int(by_decision.sum())
    bar = stacked_bar(
        [(STYLES[place], int(amount)) for place, amount in enumerate(by_decision)],
        most,
        label=", ".join(f"{int(n)} {STYLES[p]}" for p, n in enumerate(by_decision) if n),
    )
    name = (
        f'<a href="#gallery" data-filter-class="{report.place_of[found.id]}">{class_name(found)}</a>'
        if found.id in report.gallery.categories
        else class_name(found)
    )
    mean = escape(score(report.counts.mean_score(found.id)))
    iou = f'<td class="n">{three(measured.get(found.id))}</td>' if measured else ""
    return (
        f"<tr><td><span class='class'>{swatch(found)}<span>{name}</span></span></td><td class='n'>{number(total)}</td>"
        f"<td class='wide'>{bar}</td><td class='n'>{mean}</td>{iou}</tr>"
    )


def _absent(absent: list[ShownClass]) -> str:
    if not absent:
        return ""
    names = ", ".join(class_name(each) for each in absent[:200])
    title = Text("{n} classes were not found", "{n} 个类别未找到")
    return f"<details><summary>{both(title, n=len(absent))}</summary><p class='fine'>{names}</p></details>"


def confusions(report: RunReport) -> str:
    """Pairs of names that competed for the same regions."""
    rivals = report.counts.rivals
    by_id = {each.id: each for each in report.classes}
    lead = Text(
        "Another name that excludes the region's own was found on the same thing and lost. The pairs to write negative"
        " prompts for, or to audit first.",
        "同一物体上另一个互斥名称落选。可据此编写负面提示词，或优先审核。",
    )
    if not rivals:
        text = Text(
            "No rivals were recorded: the vocabulary has no exclusive names, or nothing competed.",
            "没有竞争记录：词表没有互斥名称，或没有竞争。",
        )
        return section(
            "confusions",
            Text("Class confusions", "类别混淆"),
            both(lead),
            f'<p class="card">{both(text)}</p>',
        )
    most = max(rivals.values())
    rows = "".join(
        f"<tr><td>{class_name(by_id.get(own))}</td><td>{class_name(by_id.get(other))}</td>"
        f"<td class='n'>{number(count)}</td><td class='n'>{share(count, report.counts.num_per_class.get(own, 0))}</td>"
        f"<td class='wide'>{stacked_bar([('review', count)], most, label=str(count))}</td></tr>"
        for (own, other), count in rivals.most_common(_MAX_PAIRS)
    )
    head = (
        f"<tr><th>{both(Text('named', '命名为'))}</th><th>{both(Text('nearly', '差点命名为'))}</th>"
        f"<th class=n>{both(Text('regions', '区域数'))}</th><th class=n>{both(Text('of the class', '占该类'))}</th>"
        "<th class='wide'></th></tr>"
    )
    return section(
        "confusions",
        Text("Class confusions", "类别混淆"),
        both(lead),
        f'<div class="scroll"><table>{head}{rows}</table></div>',
    )


def made_with(report: RunReport) -> str:
    """Recipe, checkpoints, versions."""
    manifest = report.facts.manifest
    entries = [
        (Text("recipe", "配方"), f"<code>{shown(str(manifest.get('recipe_hash', ''))[:16])}</code>"),
        (Text("schema", "数据结构版本"), shown(str(manifest.get("schema_version", "")))),
        *(
            (Text(clean(role, 40), clean(role, 40)), f"<code>{shown(str(identity), 160)}</code>")
            for role, identity in manifest.get("checkpoints", {}).items()
        ),
        (
            Text("versions", "版本"),
            shown(", ".join(f"{name} {found}" for name, found in manifest.get("versions", {}).items()), 400),
        ),
    ]
    for evaluation in report.beside.evaluations:
        entries.append((Text("evaluation", "评估"), f"<code>{shown(evaluation.path)}</code>"))
    for source in report.beside.negatives.sources:
        entries.append((Text("hard negatives", "难负样本"), f"<code>{shown(source)}</code>"))
    listed = "".join(f"<dt>{both(_plain(name))}</dt><dd>{value}</dd>" for name, value in entries)
    recipe = json.dumps(
        {half: manifest.get(half, {}) for half in ("recipe", "settings")}, indent=1, ensure_ascii=False
    )
    lead = Text("Everything that can change a label.", "所有可能影响标注的内容。")
    text = Text("the whole recipe", "完整配方")
    return section(
        "made",
        Text("Made with", "生成信息"),
        both(lead),
        f'<div class="card made"><dl>{listed}</dl>'
        f"<details><summary>{both(text)}</summary><pre>{escape(clean(recipe, 60_000))}</pre></details></div>",
    )
