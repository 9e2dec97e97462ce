"""The SAM licence: weights published as facebook/sam3 run only after the user accepted it in the recipe."""

from pathlib import Path

from ovsops.backbones.checkpoint import SHIPPED, Checkpoint, ResolvedCheckpoint, read_config
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.errors import CheckpointError

OWN_WEIGHTS_KEY = "ovsops_own_weights"
"""Set in the config.json of SAM 3 weights that this project made itself, which Meta's licence does not cover."""


def check_sam_licence(checkpoint: Checkpoint, *, accepted: bool) -> None:
    """Refuse SAM 3 weights under Meta's licence that nobody accepted; nothing is downloaded before.

    Only a local folder, or a checkpoint of the package, whose config.json says that its weights are this project's own
    needs no acceptance.
    """
    if accepted:
        return
    shipped = checkpoint.source.startswith(SHIPPED)
    local = (
        miniature_checkpoint(checkpoint.source.removeprefix(SHIPPED))
        if shipped
        else Path(checkpoint.source).expanduser()
    )
    if (
        local.is_dir()
        and read_config(ResolvedCheckpoint(local, str(local), None)).get(OWN_WEIGHTS_KEY) is True
    ):
        return
    raise CheckpointError(
        f"checkpoint {checkpoint.source}: SAM 3 weights are under the SAM licence, which is not accepted; read it "
        "at the model's page (facebook/sam3) and, if you agree, set segmenter.accept_sam_licence: true"
    )
