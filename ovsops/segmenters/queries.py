"""The vectors of a vocabulary, one a prompt: what methods compare patches with that let a class's prompts compete.

Axes: Q queries (prompts of classes, then background prompts), E text space. Where `text_features` averages a class's
prompts into one vector, here each stays a query, and the best of a class speaks for it (CASS at commit 228ecdd, SC-CLIP
at commit 0417ba9). A query is its templates' unit vectors, averaged and made unit again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.long_prompts import warn_of_long_prompts
from ovsops.backbones.vlm import load_text_tower
from ovsops.errors import ShapeError
from ovsops.segmenters.build import tensor_dtype
from ovsops.text.cache import TextFeaturesCache, text_features_key
from ovsops.text.ensemble import mean_of_templates
from ovsops.text.feature_bytes import features_from_bytes, features_to_bytes
from ovsops.text.prompts import PromptEntry, PromptTable, class_prompts
from ovsops.text.vocabulary import Vocabulary

_FORMAT = "query-text-features-1"


@dataclass(frozen=True, kw_only=True)
class QueryTextFeatures:
    """Unit vectors of a vocabulary's prompts, and the class of each."""

    class_ids: tuple[int, ...]
    """Vocabulary ids, in the vocabulary's order; label j of a class map is `class_ids[j - 1]`."""
    query_class: Int[Tensor, " Q"]
    """Place of each query's class in `class_ids`, from 1; 0 for a background prompt."""
    queries: Float[Tensor, "Q E"]
    """Unit rows."""
    identity: str
    """What they were computed from: text checkpoint and prompts. Goes into the manifest."""
    picture_queries: Float[Tensor, "Q E2"] | None = None
    """Unit rows in the text space of another tower, which sees the whole picture; None: the same tower does."""
    num_negatives: int = 0
    """Negative prompts of the vocabulary: these methods have no place for them, so they take no part in any label."""

    def __post_init__(self) -> None:
        unprompted = set(range(1, self.num_classes + 1)) - set(self.query_class.tolist())
        if unprompted:
            ids = [self.class_ids[place - 1] for place in sorted(unprompted)]
            raise ShapeError(f"query features: classes {ids} have no query, so they could never be found")
        if self.picture_queries is not None and len(self.picture_queries) != len(self.queries):
            raise ShapeError(
                f"query features: {len(self.picture_queries)} queries of the picture beside {len(self.queries)}; "
                "one a query is expected"
            )
        if any(not 0 <= place <= self.num_classes for place in self.query_class.tolist()):
            raise ShapeError(
                f"query features: a query's class is outside 0 (background) to {self.num_classes}"
            )

    @property
    def num_classes(self) -> int:
        """Classes, background not counted."""
        return len(self.class_ids)

    @property
    def num_background(self) -> int:
        """Background prompts."""
        return int((self.query_class == 0).sum())

    def to_bytes(self) -> bytes:
        """Safetensors with a header; the same features give the same bytes."""
        fields = {
            "identity": self.identity,
            "class_ids": list(self.class_ids),
            "num_negatives": self.num_negatives,
        }
        tensors = {"queries": self.queries, "query_class": self.query_class}
        if self.picture_queries is not None:
            tensors["picture_queries"] = self.picture_queries
        return features_to_bytes(_FORMAT, fields, tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> "QueryTextFeatures":
        """Read what `to_bytes` wrote."""
        fields, tensors = features_from_bytes(data, _FORMAT, what="query features")
        return cls(
            class_ids=tuple(fields["class_ids"]),
            query_class=tensors["query_class"],
            queries=tensors["queries"],
            picture_queries=tensors.get("picture_queries"),
            identity=fields["identity"],
            num_negatives=fields["num_negatives"],
        )

    def to(self, device: str) -> "QueryTextFeatures":
        """The same features on a device."""
        pictured = self.picture_queries
        return replace(
            self,
            query_class=self.query_class.to(device),
            queries=self.queries.to(device),
            picture_queries=None if pictured is None else pictured.to(device),
        )


def compute_query_features(
    clip: Checkpoint,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> QueryTextFeatures:
    """A query for every prompt of every class and of the background, in all `languages` asked for.

    `clip` is a checkpoint of CLIP's or SigLIP's text tower. A sentence that is too long for the tower (77 tokens in
    CLIP, 64 in SigLIP) is cut by its tokenizer and still ends as the tower expects; a warning in the log counts them.
    Computed once per (prompts, checkpoint) where there is a `cache_dir`.
    """
    table = class_prompts(vocabulary, tuple(languages))
    place = resolve(clip)
    entries = _entries(table)
    warn_of_long_prompts(place, [table.sentences[i] for i in _needed(entries)])
    number = tensor_dtype(dtype, device=device)
    options = {"form": _FORMAT, "dtype": str(number)}

    def compute() -> dict[str, np.ndarray]:
        return {"queries": _queries(table, place, device=device, dtype=number).cpu().numpy()}

    if cache_dir is None:
        arrays = compute()
    else:
        cache = TextFeaturesCache(cache_dir)
        arrays = cache.get_or_compute(table, place.identity, compute, options=options)
    return QueryTextFeatures(
        class_ids=vocabulary.ids,
        query_class=torch.tensor([entry.class_index + 1 for entry in entries], dtype=torch.int64),
        queries=torch.from_numpy(arrays["queries"]),
        identity=f"text {place.identity} key:{text_features_key(table, place.identity, options)}",
        num_negatives=len(table.of_role("negative")),
    )


def _entries(table: PromptTable) -> tuple[PromptEntry, ...]:
    """Prompts that become queries, in the order of the classes, background last."""
    by_class = sorted(table.of_role("class"), key=lambda entry: entry.class_index)
    return (*by_class, *table.of_role("background"))


def _needed(entries: Sequence[PromptEntry]) -> list[int]:
    """The sentences of some prompts, each once."""
    return list(dict.fromkeys(i for entry in entries for i in entry.sentences))


def _queries(
    table: PromptTable, place: ResolvedCheckpoint, *, device: str, dtype: torch.dtype
) -> Float[Tensor, "Q E"]:
    entries = _entries(table)
    needed = _needed(entries)
    tower = load_text_tower(place, device=device, dtype=dtype)
    embeddings = tower.encode([table.sentences[i] for i in needed]).embeddings.float()
    row = {sentence: i for i, sentence in enumerate(needed)}
    queries = [mean_of_templates(embeddings[[row[i] for i in entry.sentences]], "each") for entry in entries]
    return torch.stack(queries)
