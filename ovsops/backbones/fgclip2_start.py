"""FG-CLIP 2 before its training: made from a SigLIP 2. Axes: L positions, D channels."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Siglip2Model

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.fgclip2_model import KEEP_LEN, LONGTEXT_LEN, FgClip2Config, FgClip2Model
from ovsops.errors import ShapeError

STRETCH = 4
"""New positions for each old one, behind those that are kept."""


def stretch_positions(
    positions: Float[Tensor, "short D"], *, keep_len: int = KEEP_LEN
) -> Float[Tensor, "long D"]:
    """A table of positions for longer text: the first `keep_len` stay, the others are stretched four times.

    new[j] lies at q = keep_len + (j - keep_len) / 4 of the old table, linearly between its neighbours; the last four
    rows go on as the last two old ones did. 64 positions with 20 kept give 196 (repository 360CVGroup/FG-CLIP, commit
    b1af1cd).
    """
    num_old = len(positions)
    if not 0 <= keep_len <= num_old or num_old < 2:
        raise ShapeError(f"{num_old} positions of which {keep_len} are kept: 2 at least, and no more kept")
    table = positions.double()
    places = torch.arange(STRETCH * (num_old - keep_len), device=positions.device)
    low = keep_len + places // STRETCH
    share = (places % STRETCH / STRETCH)[:, None]
    step_from = low.clamp(max=num_old - 2)  # behind the last row the last step goes on
    step = table[step_from + 1] - table[step_from]
    return torch.cat([table[:keep_len], table[low] + share * step]).to(positions.dtype)


@torch.no_grad()
def fgclip2_from_siglip2(
    siglip2: Siglip2Model, *, keep_len: int = KEEP_LEN, longtext_len: int = LONGTEXT_LEN
) -> FgClip2Model:
    """A FG-CLIP 2 that says of images and short texts what the SigLIP 2 (NaFlex) says.

    Both new text heads begin as the text head, the dense head as the pooling head, and both tables of long positions
    as the stretched one.
    """
    config: Any = siglip2.config
    text: Any = siglip2.text_model
    positions = stretch_positions(text.embeddings.position_embedding.weight, keep_len=keep_len)
    if len(positions) != longtext_len:
        raise ShapeError(
            f"{len(positions)} stretched positions, long text of {longtext_len} tokens: they must agree; "
            f"with {keep_len} kept, give longtext_len={len(positions)}"
        )
    with torch.random.fork_rng():  # every weight is set below
        model = FgClip2Model(
            FgClip2Config(
                text_config=config.text_config.to_dict()
                | {"keep_len": keep_len, "longtext_len": longtext_len},
                vision_config=config.vision_config.to_dict(),
            )
        )
    state = siglip2.state_dict()
    heads = {"longtext_head": "text_model.head", "boxtext_head": "text_model.head"}
    heads["dense_feature_head"] = "vision_model.head"
    for new, old in heads.items():
        state |= {
            new + key.removeprefix(old): value for key, value in state.items() if key.startswith(old + ".")
        }
    for part in ("ori", "res"):
        state[f"text_model.embeddings.position_embedding_{part}.weight"] = positions
    model.load_state_dict(state)
    return model


def fgclip2_from_naflex(checkpoint: ResolvedCheckpoint) -> FgClip2Model:
    """`fgclip2_from_siglip2` of a SigLIP 2 (NaFlex) on disk: float32, ready to train."""
    siglip2 = load_pretrained(Siglip2Model, checkpoint, device="cpu", dtype=torch.float32)
    return fgclip2_from_siglip2(siglip2).requires_grad_(True).train()
