"""Validators as a worker builds them. Loads no torch: who looks at pixels is in `negatives_margin`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ovsops.negatives.candidates import Validator
from ovsops.negatives.validators import LabelRules, LabelValidator, TextValidator
from ovsops.text.vocabulary import Vocabulary


class Looker(Protocol):
    """Who sees regions."""

    def features(
        self,
        source: Iterator[Mapping[str, Any]],
        images: Mapping[int, str],
        regions: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> dict[str, np.ndarray]:
        """Unit vectors by `instance_uid`, of rows with bytes; `images` are uids by place, `regions` rows by image."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What looks at candidates, one after another."""

    validators: Sequence[Validator]
    looker: Looker | None = None
    """Asked for features of all regions of a shard, where a validator wants them."""


class ValidatorFactory(Protocol):
    """Travels to the worker and builds the validators there; pickles in bytes."""

    def build(self) -> Checks:
        """Load what is needed."""


@dataclass(frozen=True, kw_only=True)
class TextValidators:
    """Those that need no pixels."""

    texts: bool
    labels: bool
    only_exclusive: bool
    vocabulary: Mapping[str, Any] = field(repr=False)
    """Plain data, as in the label run's manifest."""

    def build(self) -> Checks:
        """Cheap ones first. VocabularyError where words of two classes cannot be told apart."""
        found: list[Validator] = [TextValidator()] if self.texts else []
        if self.labels:
            vocabulary = Vocabulary.from_mapping(self.vocabulary)
            rules = LabelRules.of_vocabulary(vocabulary, only_exclusive=self.only_exclusive)
            found.append(LabelValidator(rules))
        return Checks(validators=found)
