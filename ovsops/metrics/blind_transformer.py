"""A small transformer that reads captions and never sees an image.

Axes: R rows, T texts (first the positive), L words, D channels.

The stronger sibling of `ovsops.metrics.blind`: it reads whole captions in order, so it also finds what
pairs of near words cannot say. It scores each text alone, as a contrastive text tower does: a model that
compared the eleven texts of a row would find the positive of any hard set, because negatives lie one change
away from it and two from each other.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from ovsops.errors import ConfigError, ShapeError
from ovsops.metrics.blind import NO_TEXT, group_folds
from ovsops.metrics.blind_words import split_words

_PAD, _UNKNOWN = 0, 1


@dataclass(frozen=True, kw_only=True)
class BlindTransformerConfig:
    """Its shape and training."""

    channels: int = 64
    heads: int = 4
    layers: int = 2
    max_words: int = 48
    """Words of a caption that are read."""
    min_count: int = 2
    """Rarer words of the training rows are one unknown word."""
    dropout: float = 0.2
    num_epochs: int = 12
    batch_rows: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    num_folds: int = 2
    seed: int = 0
    """Of folds, first weights, batches and dropout."""

    def __post_init__(self) -> None:
        if (
            self.channels % self.heads
            or min(self.layers, self.max_words, self.num_epochs, self.batch_rows) < 1
        ):
            raise ConfigError(
                f"{self}: channels must divide by heads, layers, max_words, num_epochs and batch_rows be at least 1"
            )
        if self.num_folds < 2 or not 0 <= self.dropout < 1:
            raise ConfigError(f"num_folds {self.num_folds}, dropout {self.dropout}: expected >= 2 and 0 to 1")


def blind_transformer_scores(
    texts: Sequence[Sequence[str]],
    groups: Sequence[Hashable],
    *,
    config: BlindTransformerConfig | None = None,
) -> tuple[Float64[Tensor, "R T"], Int64[Tensor, " R"]]:
    """Scores of every text by a model that was trained on other groups; arguments and result as of `blind_scores`."""
    config = config or BlindTransformerConfig()
    num_texts = np.array([len(row) for row in texts], np.int64)
    if not texts or len(texts) != len(groups) or (num_texts < 2).any():
        raise ShapeError(
            f"{len(texts)} rows and {len(groups)} groups, the shortest row of {min(num_texts, default=0)} texts:"
            " a group for each row is wanted, and at least one negative beside the positive"
        )
    folds = group_folds(texts, groups, num_folds=config.num_folds, seed=config.seed)
    words = [[split_words(text)[: config.max_words] for text in row] for row in texts]
    scores = torch.full((len(texts), int(num_texts.max())), NO_TEXT, dtype=torch.float64)
    for fold in range(config.num_folds):
        train, test = (folds != fold).nonzero()[0], (folds == fold).nonzero()[0]
        model, places = _trained([words[r] for r in train], config)
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(test), config.batch_rows):
                rows = test[start : start + config.batch_rows]
                batch = _batch([words[r] for r in rows], places, scores.shape[1])
                scores[torch.from_numpy(rows)] = model(*batch).double()
    return scores, torch.from_numpy(num_texts)


class _Reader(nn.Module):
    def __init__(self, num_words: int, config: BlindTransformerConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, config.channels, padding_idx=_PAD)
        self.places = nn.Parameter(0.02 * torch.randn(config.max_words, config.channels))
        layer = nn.TransformerEncoderLayer(
            config.channels,
            config.heads,
            2 * config.channels,
            config.dropout,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.score = nn.Linear(config.channels, 1)

    def forward(self, ids: Int64[Tensor, "R T L"], has_text: Bool[Tensor, "R T"]) -> Float[Tensor, "R T"]:
        flat = ids.flatten(0, 1)
        is_pad = flat == _PAD
        is_pad[:, 0] = False  # an empty text still has one place to attend to
        tokens = self.words(flat) + self.places[: flat.shape[1]]
        tokens = self.encoder(tokens, src_key_padding_mask=is_pad)
        kept = (~is_pad).unsqueeze(-1)
        pooled = (tokens * kept).sum(dim=1) / kept.sum(dim=1)
        return self.score(pooled).view(ids.shape[:2]).masked_fill(~has_text, NO_TEXT)


def _trained(
    rows: Sequence[Sequence[Sequence[str]]], config: BlindTransformerConfig
) -> tuple[_Reader, dict[str, int]]:
    counted = Counter(word for row in rows for text in row for word in text)
    known = sorted(word for word, count in counted.items() if count >= config.min_count)
    places = {word: place for place, word in enumerate(known, start=2)}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config.seed)
        model = _Reader(len(places) + 2, config)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        steps = config.num_epochs * -(-len(rows) // config.batch_rows)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=steps)
        model.train()
        for _ in range(config.num_epochs):
            order = torch.randperm(len(rows)).tolist()
            for start in range(0, len(order), config.batch_rows):
                chosen = [rows[r] for r in order[start : start + config.batch_rows]]
                scores = model(*_batch(chosen, places, max(map(len, chosen))))
                loss = nn.functional.cross_entropy(scores, torch.zeros(len(chosen), dtype=torch.int64))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return model, places


def _batch(
    rows: Sequence[Sequence[Sequence[str]]], places: dict[str, int], num_texts: int
) -> tuple[Int64[Tensor, "R T L"], Bool[Tensor, "R T"]]:
    longest = max(1, max(len(text) for row in rows for text in row))
    ids = np.full((len(rows), num_texts, longest), _PAD, np.int64)
    has_text = np.zeros((len(rows), num_texts), bool)
    for r, row in enumerate(rows):
        has_text[r, : len(row)] = True
        for t, text in enumerate(row):
            ids[r, t, : len(text)] = [places.get(word, _UNKNOWN) for word in text]
    return torch.from_numpy(ids), torch.from_numpy(has_text)
