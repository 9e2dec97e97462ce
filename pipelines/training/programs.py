"""Programs by name. A program's recipe is its config with a `kind`; it travels to the workers and builds there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovsops.losses.gather import Gather
from ovsops.training.dinov2 import Dinov2Program, Dinov2ProgramConfig
from ovsops.training.loop import Program
from ovsops.training.scenes import SceneBank
from ovsops.training.siglip2 import SiglipProgram, SiglipProgramConfig


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


ProgramRecipe = Siglip2Recipe | Dinov2Recipe
"""What `program` of a recipe may be; `kind` says which."""
