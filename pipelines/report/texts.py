"""Two languages in one page, and text that stays text.

Every sentence of the page is written in both languages; CSS shows the one that is chosen, so that the page reads
without scripts, too. Whatever comes from data passes `clean`: secrets out, controls out, cut to a length, escaped.
"""

import re
from dataclasses import dataclass
from html import escape

from pipelines.counted import agreeing
from pipelines.redact import redact

MAX_CHARS = 300
"""Of one text from data, unless a caller allows more."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_CODE = re.compile("`([^`]+)`")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Text:
    """A sentence in English and Chinese; `{name}` is filled in."""

    en: str
    zh: str

    def filled(self, **fields: object) -> "Text":
        """With its fields."""
        return Text(agreeing(self.en, fields).format(**fields), self.zh.format(**fields))


def clean(text: str, limit: int = MAX_CHARS) -> str:
    """Text from data, fit to be shown: no secrets, no controls, no marks that turn the direction of what follows.

    Not yet escaped. What is cut says how long it was.
    """
    kept = _BIDI.sub("", _CONTROLS.sub("\ufffd", redact(text[: 4 * limit + 4000])))
    if len(text) <= limit and len(kept) <= limit:
        return kept
    return f"{kept[:limit]}… ({len(text):,} characters)"


def shown(text: str, limit: int = MAX_CHARS) -> str:
    """Text from data as HTML; its own direction stays inside."""
    return f'<bdi dir="auto">{escape(clean(text, limit))}</bdi>'


def both(text: Text, **fields: object) -> str:
    """A sentence of the page as HTML in both languages. Fields are escaped; what stands in backticks is code."""
    en, zh = (
        _CODE.sub(r"<code>\1</code>", escape(_CONTROLS.sub("\ufffd", redact(sentence))))
        for sentence in (text.filled(**fields).en, text.filled(**fields).zh)
    )
    if en == zh:
        return en
    return f'<span class="en" lang="en">{en}</span><span class="zh" lang="zh-CN">{zh}</span>'


def both_svg(text: Text, attributes: str) -> str:
    """The same inside SVG."""
    return "".join(
        f'<text class="{language}" lang="{lang}" {attributes}>{escape(words)}</text>'
        for language, lang, words in (("en", "en", text.en), ("zh", "zh-CN", text.zh))
    )


def number(value: float) -> str:
    """`1,234`, `12.3`, `0.083`: as many digits as are read."""
    if value >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def score(value: float) -> str:
    """`0.53`, `0.0041`, `<0.0001`: two digits that say something, never 0 for what is more and never 1 for less."""
    if 0 < value < 0.0001:
        return "<0.0001"
    if 0.995 <= value < 1:
        return ">0.99"
    return f"{value:.2f}" if value >= 0.095 or not value else f"{value:.2g}"


def share(part: float, whole: float) -> str:
    """`12 %`, `0.3 %`, `<0.01 %`: never 0 % of something, never 100 % of not all."""
    if not whole:
        return "–"
    value = 100 * part / whole
    if 0 < value < 0.01:
        return "<0.01 %"
    if 99.95 <= value < 100:
        return ">99.9 %"
    return f"{value:.2f} %" if 0 < value < 1 else f"{value:.1f} %" if value % 1 else f"{value:.0f} %"


def duration(seconds: float) -> str:
    """`4.2 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"
