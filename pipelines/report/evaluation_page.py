"""One HTML page about an evaluation: figures, plots, pictures. Nothing is loaded from elsewhere, no script runs."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from urllib.parse import quote

from pipelines.evaluation.document import Results, class_rows, explanations, figure_rows, sentences
from pipelines.evaluation.figures import MEANINGS, Estimates
from pipelines.evaluation.object_document import (
    object_class_rows,
    object_explanations,
    object_figure_rows,
    object_sentences,
)
from pipelines.evaluation.object_figures import HEADLINES, OBJECT_MEANINGS
from pipelines.evaluation.pictures import DrawnPicture
from pipelines.evaluation.shown import shown
from pipelines.report.page_style import STYLE

_HEADLINES = (
    "mean_iou",
    "mean_iou_stuff",
    "mean_iou_things",
    "mean_iou_things_background",
    "mean_boundary_f",
)
"""Figures that stand large at the top."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing may be loaded and no script may run, whatever a name in the data says."""


def evaluation_page(
    results: Results,
    *,
    title: str,
    notice: str,
    plots: Mapping[str, tuple[str, bytes]],
    first: Mapping[str, DrawnPicture],
    worst: Mapping[str, DrawnPicture],
) -> str:
    """The page. `plots` are path and PNG by what they show, pictures go by path; paths are relative to the page."""
    body = [f"<h1>{escape(title)}</h1>"]
    if notice:
        body.append(f'<p class="notice">{escape(notice)}</p>')
    cards = _cards(results.estimates[results.first], MEANINGS, _HEADLINES)
    body += [cards, "<h2>Figures</h2>", _table(list(figure_rows(results)), names=1, what="Figures")]
    body += [f'<p class="fine">{escape(sentence)}</p>' for sentence in sentences(results)]
    body += ["<h2>How to read the figures</h2>", _explained(explanations(results))]
    body += list(_instances(results))
    dashes = (
        "" if results.objects is None else " Boxes of things: dashed are those wrong at an overlap of 0.5."
    )
    body += list(
        _sheets("Pictures", f"The first images of the run, not chosen by how good they are.{dashes}", first)
    )
    body += list(_sheets("Worst pictures", f"Those with the lowest mIoU of their own.{dashes}", worst))
    body.append('<h2>Plots</h2><p class="fine">Each opens at its full size.</p>')
    body.append('<div class="plots">')
    body += [
        f'<div class="plot"><a href="{_href(path)}"><img alt="{escape(what)}" src="{_data(png)}"></a></div>'
        for what, (path, png) in plots.items()
    ]
    body += ["</div>", "<h2>Classes</h2>", _table(list(class_rows(results)), names=2, what="Classes")]
    if results.objects is not None:
        body.append('<h2>Instances by class</h2><p class="fine">The largest AP first.</p>')
        body.append(_table(list(object_class_rows(results.objects)), names=2, what="Instances by class"))
    body.append(_footer(results))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _instances(results: Results) -> Iterator[str]:
    """The section about instances, or why there is none."""
    yield "<h2>Instances</h2>"
    found = results.objects
    if found is None:
        yield f'<p class="fine">Left out: {escape(results.tally.why_no_objects)}.</p>'
        return
    shown_large = [name for name in HEADLINES if name in found.scalars]
    yield _cards(found.estimates[results.first], OBJECT_MEANINGS, shown_large)
    yield _table(list(object_figure_rows(found)), names=1, what="Figures of instances")
    yield from (f'<p class="fine">{escape(sentence)}</p>' for sentence in object_sentences(found))
    yield "<h2>How to read the figures of instances</h2>"
    yield _explained(object_explanations(found))


def _cards(estimates: Estimates, meanings: Mapping[str, str], names: Sequence[str]) -> str:
    """The figures of the first run, large."""
    cards = [
        f'<div class="card"><span>{escape(meanings[name])}</span><b>{shown(estimates[name]).partition(" ")[0]}</b>'
        f"<span>{escape(shown(estimates[name]).partition(' ')[2])}</span></div>"
        for name in names
        if name in estimates
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _explained(sentences_of: Iterator[tuple[str, str]]) -> str:
    """What each figure is, which direction is good, what it does not say."""
    entries = (f"<dt>{escape(what)}</dt><dd>{escape(why)}</dd>" for what, why in sentences_of)
    return f'<dl class="fine">{"".join(entries)}</dl>'


def _table(rows: Sequence[Sequence[str]], *, names: int, what: str) -> str:
    """A table in a box of its own that scrolls sideways; the first `names` columns are words."""

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
    hint = '<p class="fine sideways">The table scrolls sideways.</p>'
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(what)}">'
    return f"{hint}{box}<table>{''.join(lines)}</table></div>"


def _sheets(heading: str, what: str, pictures: Mapping[str, DrawnPicture]) -> Iterator[str]:
    if not pictures:
        return
    yield f'<h2>{escape(heading)}</h2><p class="fine">{escape(what)}</p><div class="sheets">'
    for path, picture in pictures.items():
        panels = "".join(
            f'<a class="panel" href="{_href(path)}"><img alt="{escape(f"{title}: {picture.caption}")}"'
            f' src="{_data(png)}">{escape(title)}</a>'
            for title, png in picture.panels
        )
        legend = "".join(
            f'<li><i style="background:rgb{colour}"></i>{escape(name)}</li>'
            for colour, name in picture.legend
        )
        yield (
            f'<figure><div class="panels">{panels}</div><ul class="legend">{legend}</ul>'
            f'<figcaption>{escape(picture.caption)} · <a href="{_href(path)}">full size</a></figcaption></figure>'
        )
    yield "</div>"


def _footer(results: Results) -> str:
    made_by = results.provenance
    return (
        f"<footer><p>Recipe <code>{escape(str(made_by.get('recipe_hash', ''))[:16])}</code>, made by"
        f" <code>{escape(str(made_by.get('command', '')))}</code>. All numbers are in <code>metrics.json</code>.</p>"
        "</footer>"
    )


def _href(path: str) -> str:
    """A link to a file beside the page."""
    return escape(quote(path))


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
