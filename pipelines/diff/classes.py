"""Classes of two runs joined: which id of one is which of the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ovsops.errors import OutputError
from ovsops.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class JoinedClasses:
    """Classes of both runs, each once; a place in `names` is a class."""

    names: tuple[str, ...]
    first: Mapping[int, int] = field(repr=False)
    """Place by category id of the first run."""
    second: Mapping[int, int] = field(repr=False)
    moved_ids: tuple[str, ...]
    """Sentences about names that have another id in the second run."""
    renamed: tuple[str, ...]
    """Sentences about ids whose name is another one, and that are taken for one class."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_same(self) -> bool:
        """Whether both runs have the same ids for the same classes."""
        return dict(self.first) == dict(self.second)


def join_classes(first: Vocabulary, second: Vocabulary) -> JoinedClasses:
    """Classes are the same by name; an id whose old name is gone and whose new name is new was renamed."""
    one, two = ({spec.id: spec.name for spec in each.classes} for each in (first, second))
    old, new = set(one.values()), set(two.values())
    renamed = {
        number: name
        for number, name in two.items()
        if number in one and one[number] not in new and name not in old
    }
    places: dict[str, int] = {}
    left = {number: places.setdefault(name, len(places)) for number, name in one.items()}
    right = {
        number: left[number] if number in renamed else places.setdefault(name, len(places))
        for number, name in two.items()
    }
    ids = {name: number for number, name in one.items()}
    return JoinedClasses(
        names=tuple(places),
        first=left,
        second=right,
        moved_ids=tuple(
            f"{name}: id {ids[name]} -> {number}"
            for number, name in two.items()
            if ids.get(name, number) != number
        ),
        renamed=tuple(f"id {number}: {one[number]} -> {name}" for number, name in renamed.items()),
    )


def place_of(category_id: int, places: Mapping[int, int], where: str) -> int:
    """The class of an id, or `OutputError`."""
    try:
        return places[category_id]
    except KeyError:
        raise OutputError(
            f"{where}: category {category_id} is not in the vocabulary of run.json; the tables were changed: label the"
            " shard again"
        ) from None
