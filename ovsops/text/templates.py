"""Named template sets: sentences with one `{}` for the prompt, read from `ovsops/text/data/*.txt`.

A file holds one template a line; lines that start with `#` say where they come from.
"""

from collections.abc import Iterable
from functools import cache
from importlib import resources

from ovsops.errors import VocabularyError
from ovsops.text.names import nearest

SLOT = "{}"


def template_set_names() -> tuple[str, ...]:
    """Names of the sets that come with the package, sorted."""
    folder = resources.files("ovsops.text").joinpath("data")
    return tuple(sorted(file.name[:-4] for file in folder.iterdir() if file.name.endswith(".txt")))


@cache
def load_templates(name: str) -> tuple[str, ...]:
    """The templates of a named set, in the file's order.

    Raises `VocabularyError` for an unknown name, and for a file whose templates cannot be filled.
    """
    known = template_set_names()
    if name not in known:
        raise VocabularyError(
            f"there is no template set {name!r}{nearest(name, known)}: use one of {', '.join(known)},"
            " or list the sentences themselves"
        )
    text = resources.files("ovsops.text").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return check_templates(
        [line for line in lines if line and not line.startswith("#")], where=f"template set {name}"
    )


def check_templates(templates: Iterable[str], *, where: str) -> tuple[str, ...]:
    """The templates, or a `VocabularyError`: at least one, each with exactly one `{}`, none twice."""
    checked = tuple(templates)
    if not checked:
        raise VocabularyError(f"{where}: no templates; use 'plain' for the prompt as it is")
    for template in checked:
        if template.count(SLOT) != 1:
            raise VocabularyError(
                f"{where}: template {template!r} has {template.count(SLOT)} places for the prompt;"
                f" write exactly one {SLOT}"
            )
    if repeated := sorted({t for t in checked if checked.count(t) > 1}):
        raise VocabularyError(
            f"{where}: template {repeated[0]!r} comes twice and would count double; remove one"
        )
    return checked


def fill_template(template: str, prompt: str) -> str:
    """The sentence. Braces in the prompt stay as they are."""
    return template.replace(SLOT, prompt)
