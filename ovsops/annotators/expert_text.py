"""The vocabulary in FG-CLIP 2's text space: computed once, stored as bytes, used by every worker.

Axes: C classes, D channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.annotators.config import ExpertConfig
from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.segmenters.build import tensor_dtype
from ovsops.text.cache import TextFeaturesCache, text_features_key
from ovsops.text.ensemble import ensemble_prompts
from ovsops.text.feature_bytes import features_from_bytes, features_to_bytes
from ovsops.text.prompts import PromptTable, class_prompts
from ovsops.text.vocabulary import Vocabulary

_FORMAT = "expert-text-1"


@dataclass(frozen=True, kw_only=True)
class ExpertText:
    """Unit vectors of every class, as a region phrase and as a caption."""

    class_ids: tuple[int, ...]
    box: Float[Tensor, "C D"]
    """What regions are compared with."""
    short: Float[Tensor, "C D"]
    """What whole images are compared with."""
    identity: str
    """What they were computed from: checkpoint and prompts."""

    def to_bytes(self) -> bytes:
        """Safetensors with a header; the same features give the same bytes."""
        fields = {"identity": self.identity, "class_ids": list(self.class_ids)}
        return features_to_bytes(_FORMAT, fields, {"box": self.box, "short": self.short})

    @classmethod
    def from_bytes(cls, data: bytes) -> "ExpertText":
        """Read what `to_bytes` wrote."""
        fields, tensors = features_from_bytes(data, _FORMAT, what="expert text")
        return cls(
            class_ids=tuple(fields["class_ids"]),
            box=tensors["box"],
            short=tensors["short"],
            identity=fields["identity"],
        )

    def to(self, device: str) -> "ExpertText":
        """The same on a device."""
        return replace(self, box=self.box.to(device), short=self.short.to(device))


def compute_expert_text(
    config: ExpertConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> ExpertText:
    """Mean over templates, then prompts, then languages, of unit vectors: once per (prompts, checkpoint)."""
    table = class_prompts(_templated(vocabulary, config.templates), tuple(languages))
    place = resolve(config.fgclip2)
    number = tensor_dtype(dtype, device=device)
    options = {"form": _FORMAT, "templates": config.templates, "dtype": str(number)}

    def compute() -> dict[str, np.ndarray]:
        return _class_vectors(table, FgClip2(place, device=device, dtype=number))

    if cache_dir is None:
        arrays = compute()
    else:
        cache = TextFeaturesCache(cache_dir)
        arrays = cache.get_or_compute(table, place.identity, compute, options=options)
    return ExpertText(
        class_ids=vocabulary.ids,
        box=torch.from_numpy(arrays["box"]),
        short=torch.from_numpy(arrays["short"]),
        identity=f"fgclip2 {place.identity} key:{text_features_key(table, place.identity, options)}",
    )


def _templated(vocabulary: Vocabulary, templates: Literal["none", "vocabulary"]) -> Vocabulary:
    if templates == "vocabulary":
        return vocabulary
    return replace(vocabulary, templates={language: ("{}",) for language in vocabulary.languages})


def _class_vectors(table: PromptTable, model: FgClip2) -> dict[str, np.ndarray]:
    return {
        length: ensemble_prompts(model.encode_text(table.sentences, length=length), table, "each")
        .classes.cpu()
        .numpy()
        for length in ("box", "short")
    }
