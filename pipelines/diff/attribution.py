"""What a difference of labels can come from: the manifests' changes, and what the images that both runs share say."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.counted import counted
from pipelines.diff.changes import CAUSES, Cause, Change, RunChanges, listed
from pipelines.diff.drift import DriftReport
from pipelines.diff.labels import LabelTotals

_WORDS = {"data": "the data", "checkpoint": "checkpoints", "recipe": "the recipe", "code": "the code"}


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """What may have moved labels, and how sure that is."""

    suspects: tuple[Cause, ...]
    """Causes that are not ruled out; none where nothing moved."""
    sentences: tuple[str, ...]

    @property
    def is_certain(self) -> bool:
        """Whether one cause alone is left."""
        return len(self.suspects) == 1


def attribute(
    changes: RunChanges, labels: LabelTotals, drift: DriftReport, *, num_images: tuple[int, int]
) -> Attribution:
    """Which changes can explain what moved.

    Labels of the same image cannot differ because of the data. Labels of other images cannot tell causes apart: where
    several things changed, the sentences say how to separate them.
    """
    labels_moved = bool(labels.images) and not labels.is_identical
    same_images = (
        labels.images > 0 and num_images[0] == num_images[1] == labels.images + labels.outcomes.total()
    )
    if not labels_moved and not drift.alarms:
        return Attribution(suspects=(), sentences=tuple(_nothing_moved(changes, labels)))
    if labels_moved or same_images:
        return _of_the_labelling(changes, labels, drift)
    if labels.is_identical and labels.images:
        return Attribution(
            suspects=("data",),
            sentences=(
                f"the {counted(labels.images, 'images')} that both runs have"
                f" {'carries' if labels.images == 1 else 'carry'} identical labels, so the labelling did not change:"
                " what drifted came with other images",
            ),
        )
    return _of_other_images(changes)


def _nothing_moved(changes: RunChanges, labels: LabelTotals) -> list[str]:
    if not changes.causes:
        return ["nothing that decides labels changed, and nothing moved"]
    what = " and ".join(_WORDS[cause] for cause in changes.causes)
    sure = (
        f"the labels of {counted(labels.images, 'same images')} are identical"
        if labels.images
        else "no drift was found"
    )
    return [f"{what} changed, and {sure}"]


def _of_the_labelling(changes: RunChanges, labels: LabelTotals, drift: DriftReport) -> Attribution:
    suspects: tuple[Cause, ...] = tuple(cause for cause in CAUSES if cause != "data" and changes.of(cause))
    sentences = [
        f"labels of {labels.images - labels.images_unchanged} of {counted(labels.images, 'same images')} differ, so"
        " the labelling itself changed, not the data alone"
    ]
    if not suspects:
        sentences.append(
            "yet checkpoints, recipe and versions are equal: the labelling is not deterministic here (another device or"
            " driver, other batches on a GPU, an endpoint that answers), or a table was changed after its run"
        )
        return Attribution(suspects=(), sentences=tuple(sentences))
    sentences.append(_named(suspects, changes))
    if "data" in changes.causes and drift.alarms:
        sentences.append("the data changed, too: drift beyond the same images may come from there")
        suspects = ("data", *suspects)
    return Attribution(suspects=suspects, sentences=tuple(sentences))


def _of_other_images(changes: RunChanges) -> Attribution:
    suspects = changes.causes
    if suspects == ("data",):
        return Attribution(
            suspects=suspects,
            sentences=("only the data changed: checkpoints, recipe and code are the same",),
        )
    return Attribution(
        suspects=suspects,
        sentences=(
            _named(suspects, changes),
            "the runs share no images, so these cannot be told apart: label some shards of one run with the recipe of"
            " the other, and compare again",
        ),
    )


def _named(suspects: Sequence[Cause], changes: RunChanges) -> str:
    parts = [f"{_WORDS[cause]} ({listed(_names(changes.of(cause)), 3)})" for cause in suspects]
    lead = "only this changed" if len(parts) == 1 else "these changed, and any of them may be why"
    return f"{lead}: {'; '.join(parts)}"


def _names(changes: Sequence[Change]) -> list[str]:
    return [change.name for change in changes]
