"""What the two workers of test_fgclip2_ranks run: spawned by name, so it stands in a module of its own."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed as dist
from torch import nn

from ovsops.losses.gather import all_gather_with_gradient
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.fgclip2_scenes import SceneRegionsConfig
from ovsops.training.fgclip2_stage1 import FgClip2Stage1Config
from ovsops.training.fgclip2_stage2 import FgClip2Stage2Config
from ovsops.training.loop import LoopConfig, train
from ovsops.training.scenes import SceneBank, bank_of
from tests.ovsops.training.fgclip2_world import stage1, stage2

LOOP = LoopConfig(num_steps=2, warmup_steps=1, log_every=1, save_every=2)
STAGE1 = FgClip2Stage1Config(batch_size=4)
STAGE2 = FgClip2Stage2Config(
    batch_size=4, weights="code", region_scale=10.0, regions=SceneRegionsConfig(hard_groups=4)
)


def monolingual(bank: SceneBank) -> SceneBank:
    """The same whatever language is drawn, so that workers' batches together are that of one worker."""
    return replace(bank, captions={kind: bank.captions["en", kind[1]] for kind in bank.captions})


def average_gradients(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def run_worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    bank = monolingual(bank_of(draw_scene(seed) for seed in seeds_of("train")[:8]))
    gather = all_gather_with_gradient()
    found = {}
    programs = {
        "stage1": stage1(bank, Path(folder) / f"words-{rank}", STAGE1, gather=gather, world_size=2),
        "stage2": stage2(bank, Path(folder) / f"words-{rank}", STAGE2, gather=gather, world_size=2),
    }
    for name, program in programs.items():
        train(
            program,
            LOOP,
            Path(folder) / f"{name}-{rank}",
            average_gradients=average_gradients,
            is_main=rank == 0,
        )
        found |= {f"{name}.{key}": value for key, value in program.module.state_dict().items()}
    save_file(
        {key: value.contiguous() for key, value in found.items()}, str(Path(folder) / f"{rank}.safetensors")
    )
    dist.destroy_process_group()
