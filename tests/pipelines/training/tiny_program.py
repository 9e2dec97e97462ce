"""A small program of projections with the losses that must not care how many workers there are."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.losses.distillation import attention_distillation, feature_distillation, relation_distillation
from ovsops.losses.gather import Gather
from ovsops.losses.infonce import infonce_loss
from ovsops.losses.siglip import siglip_loss
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.loop import LoopConfig, Program
from ovsops.training.scenes import SceneBank, batch_indices, class_shares
from pipelines.training.job import OUTPUT_VERSION, TrainJob
from pipelines.world_shards import write_world_shards
from tests.pipelines.tars import make_tar

SIZE, PATCH, WIDTH = 64, 16, 8
NUM_SCENES = 24


class TinyModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image = nn.Parameter(0.1 * torch.randn(3 * PATCH * PATCH, WIDTH, generator=generator))
        self.text = nn.Parameter(torch.randn(20, WIDTH, generator=generator))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("teacher", torch.randn(20, WIDTH, generator=generator))


class TinyProgram:
    """Pictures meet the classes that they hold; patches meet a fixed teacher."""

    def __init__(self, bank: SceneBank, recipe: "TinyRecipe", gather: Gather, world_size: int) -> None:
        self.bank, self.recipe, self.gather, self.world_size = bank, recipe, gather, world_size
        self.module: TinyModule = TinyModule()

    def losses(self, step: int) -> Mapping[str, Tensor]:
        self.recipe.before(step)
        rows = batch_indices(
            step,
            num_scenes=len(self.bank),
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            rank=self.gather.rank,
            world_size=self.world_size,
        )
        module = self.module
        pixels = self.bank.images[rows].float() / 127.5 - 1
        patches = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2) @ module.image  # B P D
        shares = class_shares(self.bank.semantic[rows], patch_size=PATCH).flatten(2).transpose(1, 2)
        teacher = shares @ module.teacher  # B P D
        side = SIZE // PATCH
        grid = (len(rows), side, side, WIDTH)
        texts, images = shares.mean(dim=1) @ module.text, patches.mean(dim=1)
        losses = {
            "sigmoid": siglip_loss(
                texts, images, log_scale=module.log_scale, bias=module.bias, gather=self.gather
            ),
            "infonce": infonce_loss(texts, images, gather=self.gather),
            "features": feature_distillation(patches.reshape(grid), teacher.reshape(grid)),
            "relations": relation_distillation(patches, teacher),
            "attention": attention_distillation(
                patches.transpose(1, 2)[:, :, None], teacher.transpose(1, 2)[:, :, None]
            ),
        }
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        save_file(
            {name: p.detach() for name, p in self.module.named_parameters()}, folder / "tiny.safetensors"
        )


@dataclass(frozen=True, kw_only=True)
class TinyRecipe:
    """Builds the program on a worker; may end its process at a step, once, or stop it by a signal."""

    batch_size: int = 8
    seed: int = 0
    signal_at: int | None = None
    signal_number: int = int(signal.SIGKILL)
    marker: str = ""

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        return TinyProgram(bank, self, gather, world_size)

    def before(self, step: int) -> None:
        if step == self.signal_at and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), self.signal_number)


LOOP = LoopConfig(
    num_steps=12, learning_rate=0.01, warmup_steps=2, save_every=4, log_every=3, precision="float32"
)
"""States at 4, 8 and 12, rows at 3, 6, 9 and 12: a state may fall between two rows."""


def write_scenes(folder: Path, *, broken: Mapping[str, bytes] | None = None) -> Path:
    """Two shards of scenes; `broken` members (by name) go into a third one."""
    seeds = seeds_of("train")[:NUM_SCENES]
    write_world_shards(
        folder, seeds, scenes_per_shard=NUM_SCENES // 2, config=SceneConfig(size=SIZE, max_things=3)
    )
    if broken:
        (folder / "broken.tar").write_bytes(make_tar(list(broken.items())))
    return folder


def sample_members(place: int, *, size: int = SIZE) -> dict[str, bytes]:
    """Members of one whole sample beyond the first ones of the split."""
    sample = scene_sample(
        draw_scene(seeds_of("train")[NUM_SCENES + place], SceneConfig(size=size, max_things=3))
    )
    return {f"{sample['__key__']}.png": sample["png"], f"{sample['__key__']}.json": sample["json"]}


def broken_members() -> dict[str, bytes]:
    """One sample of another size, and samples with a damaged picture, a damaged truth, no truth."""
    members = sample_members(0, size=SIZE * 2)
    (png, pixels), (truth, text) = sample_members(1).items()
    members |= {png: pixels[:-40], truth: text}
    (png, pixels), (truth, text) = sample_members(2).items()
    members |= {png: pixels, truth: text.replace(b'"colour":"', b'"colour":"very ', 1)}
    (png, pixels), _ = sample_members(3).items()
    members |= {png: pixels}
    (png, pixels), (truth, text) = sample_members(4).items()
    other = json.loads(next(iter(list(sample_members(5, size=SIZE * 2).values())[1:])))
    return members | {png: pixels, truth: json.dumps(other).encode()}


def make_job(folder: Path, shards: Path, **changes: Any) -> TrainJob:
    fields: dict[str, Any] = {
        "output": folder / "out",
        "shards": (str(shards),),
        "cache": folder / "cache",
        "program": TinyRecipe(),
        "loop": LOOP,
        "checkpoint": folder / "out" / "checkpoint",
        "manifest": {"schema_version": OUTPUT_VERSION, "recipe": {"loop": {"num_steps": 12}}},
    }
    return TrainJob(**(fields | changes))
