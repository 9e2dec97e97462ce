"""Hard negatives for a person to read, beside their positives, on the page of a run."""

import re
from difflib import SequenceMatcher
from html import escape

from pipelines.report.run_report import RunReport
from pipelines.report.sections import folded, section, table
from pipelines.report.texts import Text, both, clean, number

_FIRST = 10
"""Rows that are seen before a click."""
_WORDS = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+|\s+")


def negatives(report: RunReport) -> str:
    """The section; empty where nothing lies beside the run."""
    found = report.beside.negatives
    if not found.to_read:
        return ""
    lead = Text(
        "{n} regions of this run have ten each. Of {k} regions one is shown, drawn by a hash of the region's name: it"
        " should be wrong about its region, and a good sentence.",
        "该运行有 {n} 个区域各有十个难负样本。按区域名的哈希抽取 {k} 个区域，各示一个："
        "它应当与区域不符，且语句通顺。",
    )
    cells = "".join(
        f'<th scope="col">{both(text)}</th>'
        for text in (
            Text("no.", "序号"),
            Text("caption", "描述"),
            Text("negative", "负样本"),
            Text("changed", "改动"),
        )
    )
    head = f"<tr>{cells}</tr>"
    rows = [_row(place, *texts) for place, texts in enumerate(found.to_read, start=1)]
    body = table(head, "".join(rows[:_FIRST]))
    if rows[_FIRST:]:
        body += folded(
            Text("{n} more", "其余 {n} 个"), table(head, "".join(rows[_FIRST:])), n=len(rows) - _FIRST
        )
    return section(
        "negatives",
        Text("Hard negatives to read", "难负样本抽样"),
        both(lead, n=number(found.num_regions), k=len(rows)),
        f'<div class="card">{body}</div>',
    )


def _row(place: int, positive: str, negative: str, kind: str) -> str:
    cells = (
        f'<bdi dir="auto">{escape(clean(positive))}</bdi>',
        _marked(positive, negative),
        escape(clean(kind, 80)),
    )
    return f'<tr><td class="num">{place}</td>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _marked(positive: str, negative: str) -> str:
    """The negative as HTML, with what the positive does not say marked."""
    before, after = (_WORDS.findall(clean(text)) for text in (positive, negative))
    parts = []
    for kind, _, _, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        text = escape("".join(after[start:end]))
        parts.append(text if kind == "equal" or not text else f"<mark>{text}</mark>")
    return f'<bdi dir="auto">{"".join(parts)}</bdi>'
