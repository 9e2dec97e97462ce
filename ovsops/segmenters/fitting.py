"""Whether the models of a segmenter fit it and each other, from their config.json alone.

What is wrong here is found before a weight is read; a segmenter that is built says the same of the towers it was given.
"""

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.sam3_calibration_config import calibration_preset
from ovsops.backbones.shapes import VisionShape, sam3_shape, text_shape, vfm_shape, vlm_shapes
from ovsops.errors import CheckpointError, ConfigError
from ovsops.mapper.model import MAPPER_FILE
from ovsops.segmenters.build import mapper_file
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.query_config import QuerySegmenterConfig
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.scclip_config import ScClipConfig


def check_query_models(config: QuerySegmenterConfig) -> VisionShape:
    """A tower of pictures and text whose patches fit into a window; its shape."""
    place = found(config.clip)
    vision, _ = vlm_shapes(place)
    check_patch(place, vision, window=config.window)
    return vision


def check_scclip_models(config: ScClipConfig) -> None:
    """The tower has the blocks that SC-CLIP looks at, and the token that it adds."""
    vision = check_query_models(config)
    try:
        config.check_tower(num_layers=vision.num_layers, num_prefix=vision.num_prefix)
    except ConfigError as error:
        raise CheckpointError(f"checkpoint {found(config.clip).folder} (`clip`): {error}") from error


def check_cass_models(config: CassConfig) -> None:
    """Both models have heads of one number and width, and the prior's tower knows text."""
    clip = check_query_models(config)
    place = found(config.vfm)
    vfm = vfm_shape(place)
    check_patch(place, vfm, window=max(config.window, config.vfm_side or 0))
    check_paired_heads(clip=(clip.num_heads, clip.head_width), vfm=(vfm.num_heads, vfm.head_width))
    check_depth(clip.num_layers)
    if config.prior_clip is not None:
        prior_place = found(config.prior_clip)
        check_patch(prior_place, vlm_shapes(prior_place)[0], window=config.window)


def check_fused_models(config: SegmenterConfig) -> None:
    """The mapper takes the text that feeds it and ends in DINO's space; DINO is DINOv2 with registers."""
    dino = vfm_shape(found(config.dino), "dinov2_with_registers")
    mapper = found(mapper_file(config.mapper))
    text_width, dino_width = mapper_widths(mapper)
    if dino_width != dino.width:
        raise CheckpointError(
            f"mapper {mapper.path} ends in {dino_width} channels, DINO {found(config.dino).folder} has {dino.width}: "
            "these checkpoints were not made for each other"
        )
    if config.siglip is not None:
        siglip = found(config.siglip)
        if vlm_shapes(siglip)[0].model_type == "clip":
            raise CheckpointError(
                f"checkpoint {siglip.folder}: `siglip` is a CLIP; a SigLIP 2 is expected there, and CLIP's text may "
                "feed the mapper as `clip`"
            )
    feeding = config.clip if config.clip is not None else config.siglip
    assert feeding is not None, "checked by SegmenterConfig"
    width = text_shape(found(feeding)).width
    if width != text_width:
        raise CheckpointError(
            f"text tower {found(feeding).folder} gives {width} channels, mapper {mapper.path} takes {text_width}: "
            "these checkpoints were not made for each other"
        )


def check_sam3_models(config: Sam3SegmenterConfig) -> None:
    """It is SAM 3, and its encoder has the blocks that the calibration looks at."""
    place = found(config.sam3)
    shape = sam3_shape(place)
    chosen = config.calibration
    try:
        if isinstance(chosen, str):
            chosen = calibration_preset(
                chosen, num_blocks=shape.num_blocks, global_blocks=shape.global_blocks
            )
        chosen.check_depth(shape.num_blocks)
    except ConfigError as error:
        raise CheckpointError(f"checkpoint {place.folder} (`sam3`): {error}") from error


def found(checkpoint: Checkpoint) -> ResolvedCheckpoint:
    """The checkpoint on disk, its weights not hashed."""
    return resolve(replace(checkpoint, sha256=None))


def check_patch(place: ResolvedCheckpoint, vision: VisionShape, *, window: int) -> None:
    """Refuse windows of less than one patch."""
    if window < vision.patch_size:
        raise CheckpointError(
            f"checkpoint {place.folder}: its patches are {vision.patch_size} px wide, and segmenter.window is {window} "
            "px: a window would hold none; make windows larger"
        )


def check_paired_heads(*, clip: tuple[int, int], vfm: tuple[int, int]) -> None:
    """Refuse towers whose heads, given as number and channels, cannot be paired one to one."""
    if clip != vfm:
        raise CheckpointError(
            f"cass: `clip` has {clip[0]} heads of {clip[1]} channels, `vfm` has {vfm[0]} of "
            f"{vfm[1]}, and heads are paired one to one; choose towers of one shape, such as ViT-B (12 heads "
            "of 64) of CLIP B/16 or SigLIP 2 base with DINO B/8 or DINOv2 base"
        )


def check_depth(num_layers: int) -> None:
    """Refuse a tower without a block before the last."""
    if num_layers < 2:
        raise CheckpointError(f"cass: `clip` has {num_layers} block; what enters its last block is needed")


def mapper_widths(place: ResolvedCheckpoint) -> tuple[int, int]:
    """Channels that a mapper takes and gives, from the header of its file."""
    path: Path = place.path if place.path.is_file() else place.path / MAPPER_FILE
    try:
        with safe_open(str(path), framework="pt") as stored:
            names = sorted(
                (n for n in stored.keys() if n.endswith(".weight")), key=lambda n: int(n.split(".")[1])
            )
            shapes = [stored.get_slice(name).get_shape() for name in names]
    except (SafetensorError, OSError, ValueError, IndexError) as error:
        raise CheckpointError(f"mapper {path}: not a text-to-DINO mapper: {error}") from error
    if not shapes or any(len(shape) != 2 for shape in shapes):
        raise CheckpointError(
            f"mapper {path}: no linears.N.weight in it; it is not a text-to-DINO mapper of ours"
        )
    return int(shapes[0][1]), int(shapes[-1][0])
