"""Programs by name. A program's recipe is its config with a `kind`; it travels to the workers and builds there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.fgclip2_model import FgClip2Model
from ovsops.backbones.miniature import IMAGE_SIZE, PATCH_SIZE, miniature_dino
from ovsops.losses.gather import Gather
from ovsops.training.clip import ClipProgram, ClipProgramConfig
from ovsops.training.dinov2 import Dinov2Program, Dinov2ProgramConfig
from ovsops.training.fgclip2_module import load_fgclip2_to_train
from ovsops.training.fgclip2_patches import FgClip2PatchesConfig, FgClip2PatchesProgram
from ovsops.training.fgclip2_scenes import SceneRegions
from ovsops.training.fgclip2_sets import SetBank, SetRegions, SetRegionsConfig
from ovsops.training.fgclip2_stage1 import FgClip2Stage1Config, FgClip2Stage1Program, stage1_start
from ovsops.training.fgclip2_stage2 import FgClip2Stage2Config, FgClip2Stage2Program
from ovsops.training.llmdet import LlmDetProgram, LlmDetProgramConfig
from ovsops.training.loop import Program
from ovsops.training.mapper_config import MapperProgramConfig
from ovsops.training.mapper_setup import MapperTowers, build_mapper_program, prepare_mapper
from ovsops.training.sam3 import Sam3Program, Sam3ProgramConfig
from ovsops.training.scenes import SceneBank, check_picture_size
from ovsops.training.self_supervised import SelfSupervisedConfig, SelfSupervisedProgram
from ovsops.training.siglip2 import SiglipProgram, SiglipProgramConfig
from ovsops.training.stages import MapperStagesConfig, MapperStagesProgram


@dataclass(frozen=True, kw_only=True)
class Siglip2Recipe(SiglipProgramConfig):
    """A miniature SigLIP 2 from random weights."""

    kind: Literal["siglip2"] = "siglip2"

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        return SiglipProgram(bank, self, work_folder, gather=gather, world_size=world_size, device=device)


@dataclass(frozen=True, kw_only=True)
class Dinov2Recipe(Dinov2ProgramConfig):
    """A miniature DINOv2 with registers from random weights."""

    kind: Literal["dinov2"] = "dinov2"

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        return Dinov2Program(bank, self, work_folder, gather=gather, world_size=world_size, device=device)


@dataclass(frozen=True, kw_only=True)
class Dinov2SelfsupRecipe(SelfSupervisedConfig):
    """A miniature DINOv2 with registers that sees pictures alone, no labels."""

    kind: Literal["dinov2_selfsup"] = "dinov2_selfsup"

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        return SelfSupervisedProgram(
            bank, self, work_folder, gather=gather, world_size=world_size, device=device
        )


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(ClipProgramConfig):
    """A miniature CLIP from random weights."""

    kind: Literal["clip"] = "clip"

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        return ClipProgram(bank, self, work_folder, gather=gather, world_size=world_size, device=device)


@dataclass(frozen=True, kw_only=True)
class DinoRecipe(Dinov2ProgramConfig):
    """A miniature DINO (v1) from random weights, taught as the miniature DINOv2 is."""

    kind: Literal["dino"] = "dino"

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        return Dinov2Program(
            bank,
            self,
            work_folder,
            build_model=miniature_dino,
            gather=gather,
            world_size=world_size,
            device=device,
        )


@dataclass(frozen=True, kw_only=True)
class Sam3Recipe(Sam3ProgramConfig):
    """A miniature SAM 3 from random weights."""

    kind: Literal["sam3"] = "sam3"

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        return Sam3Program(bank, self, work_folder, gather=gather, world_size=world_size, device=device)


@dataclass(frozen=True, kw_only=True)
class LlmDetRecipe(LlmDetProgramConfig):
    """A miniature LLMDet from random weights."""

    kind: Literal["llmdet"] = "llmdet"

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        return LlmDetProgram(bank, self, work_folder, gather=gather, world_size=world_size, device=device)


@dataclass(frozen=True, kw_only=True)
class MapperRecipe(MapperProgramConfig):
    """The text-to-DINO mapper over frozen towers."""

    kind: Literal["mapper"] = "mapper"
    siglip: Checkpoint
    """Text tower, and the vision tower where SigLIP's patches are asked for."""
    dino: Checkpoint
    """Whose patches the mapper speaks to."""
    start: Checkpoint | None = None
    """What an earlier mapper training exported; random weights where it is not given."""

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights; the towers' features stay in `work_folder` until the last step."""
        towers = MapperTowers(dino=self.dino, siglip=self.siglip)
        return build_mapper_program(
            bank,
            self,
            towers,
            work_folder,
            start=None if self.start is None else resolve(self.start).path,
            gather=gather,
            world_size=world_size,
            device=device,
        )


@dataclass(frozen=True, kw_only=True)
class MapperStagesRecipe(MapperStagesConfig):
    """The mapper in five stages, each with something that the former had not."""

    kind: Literal["mapper_stages"] = "mapper_stages"
    siglip: Checkpoint
    """Text tower, and the vision tower whose patches are calibrated against DINO's."""
    dino: Checkpoint
    """Whose patches the mapper speaks to."""

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights; the towers' features stay in `work_folder` until the last step."""
        towers = MapperTowers(dino=self.dino, siglip=self.siglip)
        inputs = prepare_mapper(bank, towers, work_folder, grids=self.all_grids, device=device)
        return MapperStagesProgram(
            inputs.features, self, views=inputs.views, gather=gather, world_size=world_size, device=device
        )


@dataclass(frozen=True, kw_only=True)
class FgClip2Stage1Recipe(FgClip2Stage1Config):
    """FG-CLIP 2 on whole images with short and long captions."""

    kind: Literal["fgclip2_stage1"] = "fgclip2_stage1"
    start: Checkpoint | None = None
    """A SigLIP 2: the miniature one, or a NaFlex one; random weights where it is not given."""
    set_regions: SetRegionsConfig = field(default_factory=SetRegionsConfig)
    """What a step takes of a training set; scenes have no use for it."""

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        model, tokenizer_folder = self._start(work_folder)
        source = SceneRegions(
            bank, batch_size=self.batch_size, seed=self.seed, rank=gather.rank, world_size=world_size
        )
        return FgClip2Stage1Program(source, self, model, tokenizer_folder, gather=gather, device=device)

    def build_from_set(
        self, bank: SetBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The same over a training set."""
        model, tokenizer_folder = self._start(work_folder)
        source = _set_regions(bank, self, model, gather.rank, world_size)
        return FgClip2Stage1Program(source, self, model, tokenizer_folder, gather=gather, device=device)

    def _start(self, work_folder: Path) -> tuple[FgClip2Model, Path]:
        start = None if self.start is None else resolve(self.start)
        return stage1_start(start, work_folder, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class FgClip2Stage2Recipe(FgClip2Stage2Config):
    """FG-CLIP 2 on regions with hard negatives, beside whole images."""

    kind: Literal["fgclip2_stage2"] = "fgclip2_stage2"
    start: Checkpoint
    """What stage 1 exported, or another FG-CLIP 2."""
    set_regions: SetRegionsConfig = field(default_factory=SetRegionsConfig)
    """What a step takes of a training set; `regions` is for scenes."""

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        start = resolve(self.start)
        source = SceneRegions(
            bank,
            batch_size=self.batch_size,
            seed=self.seed,
            config=self.regions,
            rank=gather.rank,
            world_size=world_size,
        )
        return FgClip2Stage2Program(
            source, self, load_fgclip2_to_train(start), start.folder, gather=gather, device=device
        )

    def build_from_set(
        self, bank: SetBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The same over a training set."""
        start = resolve(self.start)
        model = load_fgclip2_to_train(start)
        source = _set_regions(bank, self, model, gather.rank, world_size)
        return FgClip2Stage2Program(source, self, model, start.folder, gather=gather, device=device)


def _set_regions(
    bank: SetBank,
    recipe: "FgClip2Stage1Recipe | FgClip2Stage2Recipe",
    model: FgClip2Model,
    rank: int,
    world_size: int,
) -> SetRegions:
    config: Any = model.config
    return SetRegions(
        bank,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        patch_size=int(config.vision_config.patch_size),
        config=recipe.set_regions,
        rank=rank,
        world_size=world_size,
    )


@dataclass(frozen=True, kw_only=True)
class FgClip2PatchesRecipe(FgClip2PatchesConfig):
    """FG-CLIP 2's vision tower alone, by the attributes of patches and regions."""

    kind: Literal["fgclip2_patches"] = "fgclip2_patches"
    start: Checkpoint
    """What a stage exported, or another FG-CLIP 2."""

    def build(
        self, bank: SceneBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        """The program with its first weights."""
        start = resolve(self.start)
        return FgClip2PatchesProgram(
            bank,
            self,
            load_fgclip2_to_train(start),
            start.folder,
            gather=gather,
            world_size=world_size,
            device=device,
        )


ProgramRecipe = (
    Siglip2Recipe
    | Dinov2Recipe
    | Dinov2SelfsupRecipe
    | ClipRecipe
    | DinoRecipe
    | Sam3Recipe
    | FgClip2Stage1Recipe
    | FgClip2Stage2Recipe
    | FgClip2PatchesRecipe
    | LlmDetRecipe
    | MapperRecipe
    | MapperStagesRecipe
)
"""What `program` of a recipe may be; `kind` says which."""


def check_pictures(program: ProgramRecipe, size_hw: tuple[int, int]) -> None:
    """Raises ConfigError where a program cannot learn from pictures of a size: before any is drawn."""
    if isinstance(program, Siglip2Recipe | ClipRecipe | DinoRecipe | Sam3Recipe | LlmDetRecipe):
        check_picture_size(size_hw, patch_size=PATCH_SIZE, side=IMAGE_SIZE)
    elif isinstance(program, Dinov2Recipe):
        check_picture_size(size_hw, patch_size=PATCH_SIZE)
