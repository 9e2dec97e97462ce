"""FG-CLIP 2 as a module: SigLIP 2 (NaFlex) and 17 more tensors, without the code that is published with the weights.

Axes: B images, P patches, T texts, L tokens, D channels.

Source: FG-CLIP 2 (arXiv:2510.10921) and repository 360CVGroup/FG-CLIP, commit b1af1cd; names of parameters are those of
its files. Three texts share one tower: a short caption goes through SigLIP's head, a phrase for a region through
`boxtext_head`, a long caption through positions of its own and `longtext_head`. The published class is not used: under
transformers 5 its position ids come out of `from_pretrained` uninitialised.

Text is pooled from its last position, padding or not, and nothing is masked: each kind has one exact length.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Siglip2Config, Siglip2Model
from transformers.models.siglip2.modeling_siglip2 import Siglip2MultiheadAttentionPoolingHead

from ovsops.backbones.checkpoint import ResolvedCheckpoint, quiet_transformers, read_config
from ovsops.errors import CheckpointError, ConfigError, ShapeError

TextLength = Literal["short", "box", "long"]
"""A caption of an image; a phrase for a region; a caption of many sentences."""

MODEL_TYPE = "fgclip2"
KEEP_LEN, LONGTEXT_LEN = 20, 196
"""Positions of long text that stay as they were before it was stretched; tokens of long text."""

ADDED_PARAMETERS = frozenset(
    [f"text_model.embeddings.position_embedding_{part}.weight" for part in ("ori", "res")]
    + [f"{kind}text_head.{part}" for kind in ("long", "box") for part in ("weight", "bias")]
    + [
        f"dense_feature_head.{part}"
        for part in (
            "probe",
            "attention.in_proj_weight",
            "attention.in_proj_bias",
            "attention.out_proj.weight",
            "attention.out_proj.bias",
            "layernorm.weight",
            "layernorm.bias",
            "mlp.fc1.weight",
            "mlp.fc1.bias",
            "mlp.fc2.weight",
            "mlp.fc2.bias",
        )
    ]
)
"""The 17 that SigLIP 2 has not. The probe of the dense head is stored and has no use."""

_NOT_OF_A_TOWER = ("model_type", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version")


class FgClip2Config(Siglip2Config):
    """SigLIP 2's configuration; `text_config` has `keep_len` and `longtext_len` besides."""

    model_type = MODEL_TYPE


class FgClip2Model(Siglip2Model):
    """Both towers and the added heads; gradients flow, nothing is normalised."""

    config_class = FgClip2Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        text, vision = config.text_config, config.vision_config
        width = int(vision.hidden_size)
        self.keep_len = int(getattr(text, "keep_len", KEEP_LEN))
        self.longtext_len = int(getattr(text, "longtext_len", LONGTEXT_LEN))
        embeddings: Any = self.text_model.embeddings
        embeddings.position_embedding_ori = nn.Embedding(self.longtext_len, width)
        embeddings.position_embedding_res = nn.Embedding(self.longtext_len, width)
        self.longtext_head = nn.Linear(width, width)
        self.boxtext_head = nn.Linear(width, width)
        self.dense_feature_head: Any = Siglip2MultiheadAttentionPoolingHead(vision)
        self.post_init()

    @property
    def width(self) -> int:
        """Channels of the space that images, regions and texts share."""
        config: Any = self.config
        return int(config.vision_config.hidden_size)

    def num_tokens(self, length: TextLength) -> int:
        """Tokens that a text of this kind must have, padding included. Another kind is a `ConfigError`."""
        if length not in get_args(TextLength):
            raise ConfigError(
                f"FG-CLIP 2: text length {length!r}; short (a caption), box (a phrase for a region) or long (a caption"
                " of many sentences) is expected"
            )
        if length == "long":
            return self.longtext_len
        config: Any = self.config
        return int(config.text_config.max_position_embeddings)

    def embed_texts(self, ids: Int[Tensor, "T L"], *, length: TextLength) -> Float[Tensor, "T D"]:
        """Texts from their token ids, padded on the right to exactly `num_tokens(length)`; there is no mask."""
        wanted = self.num_tokens(length)
        if ids.shape[1] != wanted:
            raise ShapeError(
                f"{length} text of {ids.shape[1]} tokens: exactly {wanted} are expected, padded on the right, because "
                "the last position is what the tower gives"
            )
        tower: Any = self.text_model
        if length == "short":
            return tower(input_ids=ids).pooler_output
        if length == "box":
            return self.boxtext_head(tower(input_ids=ids).last_hidden_state[:, -1])
        tokens = tower.embeddings.token_embedding(ids) + self.long_positions()
        hidden = tower.encoder(inputs_embeds=tokens, attention_mask=None).last_hidden_state
        return self.longtext_head(tower.final_layer_norm(hidden[:, -1]))

    def long_positions(self) -> Float[Tensor, "L D"]:
        """Positions of long text: the first `keep_len` of one table, the rest of the other."""
        embeddings: Any = self.text_model.embeddings
        kept = embeddings.position_embedding_ori.weight[: self.keep_len]
        return torch.cat([kept, embeddings.position_embedding_res.weight[self.keep_len :]])

    def embed_patches(
        self,
        patches: Float[Tensor, "B P patch"],
        is_patch: Bool[Tensor, "B P"],
        grids: Int[Tensor, "B 2"],
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P D"]]:
        """The images, and their patch tokens after the last norm; rows that are no patch hold anything."""
        seen = self.vision_model(
            pixel_values=patches, pixel_attention_mask=is_patch.long(), spatial_shapes=grids
        )
        return seen.pooler_output, seen.last_hidden_state

    def pooling_attention(
        self, patch_tokens: Float[Tensor, "B P D"], is_patch: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B P"]:
        """Where the pooled image looks: attention of the pooling head's probe, mean of its heads; sums to 1."""
        head: Any = self.vision_model.head
        probe = head.probe.expand(len(patch_tokens), -1, -1)
        weights = head.attention(
            probe, patch_tokens, patch_tokens, key_padding_mask=~is_patch, need_weights=True
        )[1]
        return weights[:, 0]

    def dense_features(
        self, patch_tokens: Float[Tensor, "B P D"], is_patch: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B P D"]:
        """Patches in the space of texts: A = attention of the patches among themselves, then A + MLP(LN A).

        There is no way around the attention from the tokens to A. Rows that are no patch hold anything.
        """
        head = self.dense_feature_head
        mixed = head.attention(
            patch_tokens, patch_tokens, patch_tokens, key_padding_mask=~is_patch, need_weights=False
        )[0]
        return mixed + head.mlp(head.layernorm(mixed))


def fgclip2_config(raw: Mapping[str, Any], *, place: str) -> FgClip2Config:
    """The configuration from the plain data of a config.json; `place` names it in errors."""
    if raw.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"checkpoint {place}: model_type {raw.get('model_type')!r}; {MODEL_TYPE} is expected (a SigLIP 2 has no "
            "heads for regions: start a training from it with ovsops.backbones.fgclip2_start)"
        )
    towers: dict[str, Any] = {
        name: _tower(raw, name, place=place) for name in ("text_config", "vision_config")
    }
    try:
        config: Any = FgClip2Config(**towers)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {place}: config.json cannot be used: {error}") from error
    text, vision = config.text_config, config.vision_config
    if not text.hidden_size == text.projection_size == vision.hidden_size:
        raise CheckpointError(
            f"checkpoint {place}: text of {text.hidden_size} channels (projected to {text.projection_size}), vision of "
            f"{vision.hidden_size}; FG-CLIP 2 has one width for all"
        )
    if not 0 <= text.keep_len <= text.longtext_len:
        raise CheckpointError(
            f"checkpoint {place}: keep_len {text.keep_len} is not within longtext_len {text.longtext_len}"
        )
    checked: FgClip2Config = config
    return checked


def read_fgclip2_config(checkpoint: ResolvedCheckpoint) -> FgClip2Config:
    """The configuration of a checkpoint. CheckpointError for what is no FG-CLIP 2; no weight is read."""
    return fgclip2_config(read_config(checkpoint), place=str(checkpoint.folder))


def save_fgclip2(model: FgClip2Model, folder: Path) -> None:
    """config.json and model.safetensors, as `ovsops.backbones.fgclip2` loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(str(folder), safe_serialization=True)


def _tower(raw: Mapping[str, Any], name: str, *, place: str) -> dict[str, Any]:
    said = raw.get(name)
    if not isinstance(said, Mapping):
        raise CheckpointError(f"checkpoint {place}: config.json has no object {name}")
    long_text = {"keep_len": KEEP_LEN, "longtext_len": LONGTEXT_LEN} if name == "text_config" else {}
    return long_text | {key: value for key, value in said.items() if key not in _NOT_OF_A_TOWER}
