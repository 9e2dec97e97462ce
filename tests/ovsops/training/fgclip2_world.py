"""What the tests of FG-CLIP 2's trainings share: a tiny model with the world's words, and a program for each stage."""

from pathlib import Path

from ovsops.backbones.fgclip2_model import FgClip2Config, FgClip2Model
from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.backbones.untrained import randomize
from ovsops.losses.gather import Gather, no_gather
from ovsops.training.fgclip2_scenes import SceneRegions
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS, FgClip2Stage1Config, FgClip2Stage1Program
from ovsops.training.fgclip2_stage2 import FgClip2Stage2Config, FgClip2Stage2Program
from ovsops.training.scenes import SceneBank

WIDTH = 16


def tiny_model() -> FgClip2Model:
    """One layer, patches of 16 px: the lengths of texts are the real ones."""
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = FgClip2Config(
        text_config={
            **shape,
            "vocab_size": 4 + len(FGCLIP2_WORDS),
            "max_position_embeddings": 64,
            "projection_size": WIDTH,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={**shape, "num_patches": 64, "patch_size": 16},
    )
    model = FgClip2Model(config)
    randomize(model, seed=0)
    return model.train()


def stage1(
    bank: SceneBank,
    folder: Path,
    config: FgClip2Stage1Config,
    *,
    gather: Gather = no_gather,
    world_size: int = 1,
) -> FgClip2Stage1Program:
    write_word_tokenizer(folder, FGCLIP2_WORDS)
    source = SceneRegions(
        bank, batch_size=config.batch_size, seed=config.seed, rank=gather.rank, world_size=world_size
    )
    return FgClip2Stage1Program(source, config, tiny_model(), folder, gather=gather)


def stage2(
    bank: SceneBank,
    folder: Path,
    config: FgClip2Stage2Config,
    *,
    gather: Gather = no_gather,
    world_size: int = 1,
) -> FgClip2Stage2Program:
    write_word_tokenizer(folder, FGCLIP2_WORDS)
    source = SceneRegions(
        bank,
        batch_size=config.batch_size,
        seed=config.seed,
        config=config.regions,
        rank=gather.rank,
        world_size=world_size,
    )
    return FgClip2Stage2Program(source, config, tiny_model(), folder, gather=gather)
