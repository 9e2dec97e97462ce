"""One HTML page about an evaluation: figures, plots, pictures. Nothing is loaded from elsewhere, no script runs."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from pipelines.evaluation.document import Results, class_rows, figure_rows, sentences, shown
from pipelines.evaluation.figures import MEANINGS
from pipelines.evaluation.pictures import DrawnPicture

_HEADLINES = (
    "mean_iou",
    "mean_iou_stuff",
    "mean_iou_things",
    "mean_iou_things_background",
    "mean_boundary_f",
)
"""Figures that stand large at the top."""

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f7; color: #20242a;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 12px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 36px 0 12px; }
.notice { background: #fff4dc; border-left: 4px solid #d9922a; padding: 10px 14px; border-radius: 0 6px 6px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 20px 0; }
.card, .plot, figure, .scroll { background: #fff; border: 1px solid #e2e5e9; border-radius: 8px; }
.card { padding: 14px 16px; }
.card b { display: block; font-size: 28px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { display: block; color: #5b636d; font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid #eceef1; }
th { color: #5b636d; font-weight: 600; }
tr:last-child td { border-bottom: 0; }
td.name, th.name { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 14px; align-items: start; }
.plot { padding: 8px; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.sheets { display: grid; grid-template-columns: 1fr; gap: 14px; }
figure { margin: 0; padding: 12px; }
figcaption { color: #5b636d; font-size: 13px; margin-top: 6px; }
footer, .fine { color: #5b636d; font-size: 13px; }
code { background: #eceef1; border-radius: 4px; padding: 1px 5px; overflow-wrap: anywhere; }
@media (max-width: 520px) { .plots { grid-template-columns: 1fr; } }
"""


def evaluation_page(
    results: Results,
    *,
    title: str,
    notice: str,
    plots: Mapping[str, bytes],
    first: Sequence[DrawnPicture],
    worst: Sequence[DrawnPicture],
) -> str:
    """The page; `plots` are PNGs by what they show."""
    body = [f"<h1>{escape(title)}</h1>"]
    if notice:
        body.append(f'<p class="notice">{escape(notice)}</p>')
    body += [_cards(results), "<h2>Figures</h2>", _table(list(figure_rows(results)), names=1)]
    body += [f'<p class="fine">{escape(sentence)}</p>' for sentence in sentences(results)]
    body += list(_sheets("Pictures", "The first images of the run, not chosen by how good they are.", first))
    body += list(_sheets("Worst pictures", "Those with the lowest mIoU of their own.", worst))
    body.append("<h2>Plots</h2>")
    body.append('<div class="plots">')
    body += [
        f'<div class="plot"><img alt="{escape(what)}" src="{_data(png)}"></div>'
        for what, png in plots.items()
    ]
    body += ["</div>", "<h2>Classes</h2>", _table(list(class_rows(results)), names=2), _footer(results)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _cards(results: Results) -> str:
    """The figures of the first run, large."""
    estimates = results.estimates[results.first]
    cards = [
        f'<div class="card"><span>{escape(MEANINGS[name])}</span><b>{shown(estimates[name]).partition(" ")[0]}</b>'
        f"<span>{escape(shown(estimates[name]).partition(' ')[2])}</span></div>"
        for name in _HEADLINES
        if name in estimates
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _table(rows: Sequence[Sequence[str]], *, names: int) -> str:
    """A table; the first `names` columns are words."""

    def line(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(
                f"<{tag}{' class=name' if column < names else ''}>{escape(cell)}</{tag}>"
                for column, cell in enumerate(cells)
            )
            + "</tr>"
        )

    lines = [line(rows[0], "th"), *(line(row, "td") for row in rows[1:])]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _sheets(heading: str, what: str, pictures: Sequence[DrawnPicture]) -> Iterator[str]:
    if not pictures:
        return
    yield f'<h2>{escape(heading)}</h2><p class="fine">{escape(what)}</p><div class="sheets">'
    for picture in pictures:
        caption = escape(picture.caption)
        yield f'<figure><img alt="{caption}" src="{_data(picture.png)}"><figcaption>{caption}</figcaption></figure>'
    yield "</div>"


def _footer(results: Results) -> str:
    made_by = results.provenance
    return (
        f"<footer><p>Recipe <code>{escape(str(made_by.get('recipe_hash', ''))[:16])}</code>, made by"
        f" <code>{escape(str(made_by.get('command', '')))}</code>. All numbers are in <code>metrics.json</code>.</p>"
        "</footer>"
    )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
