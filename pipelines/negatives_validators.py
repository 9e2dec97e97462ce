"""Which validators a recipe asks for. Loads torch, for checkpoints; workers that look at no pixels do not import it.

A new validator is a field here, and a line in `negatives_checks` or `negatives_margin`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from ovsops.negatives.margin_check import MarginConfig
from pipelines.negatives_checks import TextValidators, ValidatorFactory


@dataclass(frozen=True, kw_only=True)
class MarginLook(MarginConfig):
    """FG-CLIP 2 compares each region with its caption and its negatives; the images are read again for it."""

    fgclip2: Checkpoint
    """Who looks, in float32."""
    max_patches: int | None = None
    """Patches that an image is read at; None chooses 128 to 1024 by its size, as published."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it looks; cuda wants `work_on.num_gpus`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_patches is not None and self.max_patches < 1:
            raise ConfigError(f"validate.margin.max_patches is {self.max_patches}; 1 or more is wanted")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """Who looks at candidates. What is dropped is counted by its reason, and another candidate takes its place."""

    texts: bool = True
    """Drop what is no plain text, a synonym, or what another caption of the region or of its place says."""
    labels: bool = True
    """Drop names of classes that were accepted for the region, nearly were, or may hold beside one that was."""
    only_exclusive: bool = False
    """Classes may hold together unless they share one of the vocabulary's exclusive groups. False: no two classes hold
    together but a class and its parents."""
    margin: MarginLook | None = None
    """Drop what FG-CLIP 2 takes for true of the region's pixels; null: nobody looks at pixels."""

    def factory(self, vocabulary: Mapping[str, Any]) -> ValidatorFactory:
        """What travels to the workers. VocabularyError where words of two classes cannot be told apart."""
        texts = TextValidators(
            texts=self.texts,
            labels=self.labels,
            only_exclusive=self.only_exclusive,
            vocabulary=vocabulary,
        )
        texts.build()
        if self.margin is None:
            return texts
        from pipelines.negatives_margin import MarginValidators  # loads the model's code

        return MarginValidators(texts=texts, look=self.margin)
