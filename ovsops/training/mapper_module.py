"""What is learned around the frozen towers, and its files.

Axes: B texts or views, P patches, D DINO channels, E text and SigLIP channels.
"""

import copy
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ovsops.errors import CheckpointError
from ovsops.losses.infonce import LOG_SCALE_INITIAL
from ovsops.losses.siglip import BIAS_INITIAL
from ovsops.losses.siglip import LOG_SCALE_INITIAL as SIGMOID_LOG_SCALE_INITIAL
from ovsops.mapper.model import MAPPER_FILE, TextToDino, load_mapper, save_mapper
from ovsops.training.mapper_config import MapperProgramConfig

FUSION_FILE = "fusion.safetensors"
CONSTANTS_FILE = "mapper_constants.json"
REGION_BIAS_INITIAL = -4.0


@dataclass(frozen=True, kw_only=True)
class MapperConstants:
    """Numbers that a mapper training knows beside its weights; None where it has no such term or no such tower.

    They are not the segmenter's: `calibration.json` (`ovsops.training.shipping.Calibration`) is fitted on validation
    scenes, to the score that the segmenter gives a pixel.
    """

    sigmoid_temperature: float | None = None
    """Of the sigmoid term, learned: sigmoid(similarity / temperature + bias) is the chance that a caption belongs to a
    head of an image."""
    sigmoid_bias: float | None = None
    """Of the same."""
    siglip_scale: float | None = None
    """Brings SigLIP's patch similarities to the spread of DINO's over the class names, on training scenes."""
    siglip_shift: float | None = None
    """Brings them, scaled, to DINO's mean."""


class LearnedMap(nn.Module):
    """psi, and the optional residual W_f that brings SigLIP's patches into DINO's space."""

    def __init__(self, config: MapperProgramConfig, *, text_width: int, dino_width: int) -> None:
        super().__init__()
        self.psi = TextToDino(
            text_width, dino_width, num_hidden=config.num_hidden, activation=config.activation
        )
        self.fusion: nn.Linear | None = None
        if config.learn_fusion:
            self.fusion = nn.Linear(text_width, dino_width, bias=False)
            nn.init.zeros_(self.fusion.weight)

    def texts(self, embeddings: Float[Tensor, "*B E"]) -> Float[Tensor, "*B D"]:
        """Text embeddings (not normalised) in DINO's space."""
        mapped: Tensor = self.psi(embeddings)
        return mapped

    def patches(
        self, patch_tokens: Float[Tensor, "*B P D"], aligned: Float[Tensor, "*B P E"] | None
    ) -> Float[Tensor, "*B P D"]:
        """x, or x + W_f y."""
        if self.fusion is None:
            return patch_tokens
        assert aligned is not None, "checked when the program was built"
        fused: Tensor = patch_tokens + self.fusion(aligned)
        return fused


class MapperModule(nn.Module):
    """The learned map, its averaged teacher, and the scales of the terms that learn theirs."""

    def __init__(self, config: MapperProgramConfig, *, text_width: int, dino_width: int) -> None:
        super().__init__()
        self.student = LearnedMap(config, text_width=text_width, dino_width=dino_width)
        self.sigmoid_log_scale = nn.Parameter(torch.tensor(SIGMOID_LOG_SCALE_INITIAL))
        self.sigmoid_bias = nn.Parameter(torch.tensor(BIAS_INITIAL))
        self.region_log_scale = nn.Parameter(torch.tensor(SIGMOID_LOG_SCALE_INITIAL))
        self.region_bias = nn.Parameter(torch.tensor(REGION_BIAS_INITIAL))
        self.patch_log_scale = nn.Parameter(torch.tensor(LOG_SCALE_INITIAL))
        for name, parameter in self.named_parameters(recurse=False):
            family = name.split("_")[0]
            term = {"sigmoid": "sigmoid", "region": "regions", "patch": "patches"}[family]
            parameter.requires_grad_(config.weight(term) > 0)
        self.teacher: LearnedMap = copy.deepcopy(self.student).requires_grad_(False)


def save_learned(module: MapperModule, folder: Path, constants: MapperConstants) -> None:
    """`mapper.safetensors`, `mapper_constants.json`, and where W_f was learned `fusion.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_mapper(module.student.psi, folder / MAPPER_FILE)
    if module.student.fusion is not None:
        weight = module.student.fusion.weight.detach().float().cpu().contiguous()
        save_file({"weight": weight}, folder / FUSION_FILE)
    (folder / CONSTANTS_FILE).write_text(json.dumps(asdict(constants), indent=1) + "\n")


def load_learned(module: MapperModule, folder: Path) -> None:
    """Go on from what another program exported: psi, W_f and the sigmoid's scale and bias, teacher included."""
    found = load_mapper(folder)
    psi = module.student.psi
    if found.widths != psi.widths or found.activation != psi.activation:
        raise CheckpointError(
            f"mapper {folder}: widths {found.widths} and {found.activation}, this program has {psi.widths} and "
            f"{psi.activation}; start from a mapper of the same towers and the same shape"
        )
    psi.load_state_dict(found.state_dict())
    fusion = folder / FUSION_FILE
    if fusion.exists():
        if module.student.fusion is None:
            raise CheckpointError(
                f"{fusion}: the former stage learned a fusion residual and this one has none; set learn_fusion in both"
            )
        module.student.fusion.load_state_dict(load_file(fusion))
    constants = load_constants(folder)
    if constants.sigmoid_temperature is not None and constants.sigmoid_bias is not None:
        with torch.no_grad():
            module.sigmoid_log_scale.fill_(-torch.tensor(constants.sigmoid_temperature).log())
            module.sigmoid_bias.fill_(constants.sigmoid_bias)
    module.teacher.load_state_dict(module.student.state_dict())


def load_constants(folder: Path) -> MapperConstants:
    """What `save_learned` wrote; nothing is known of a folder without the file, such as a shipped mapper.

    Raises CheckpointError for a file that holds something else.
    """
    path = folder / CONSTANTS_FILE
    if not path.exists():
        return MapperConstants()
    known = {field.name for field in fields(MapperConstants)}
    try:
        plain = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); export the mapper again") from error
    if not isinstance(plain, dict) or plain.keys() != known:
        raise CheckpointError(f"{path}: expected {', '.join(sorted(known))}; export the mapper again")
    wrong = [name for name, value in plain.items() if not (value is None or isinstance(value, float))]
    if wrong:
        raise CheckpointError(
            f"{path}: {', '.join(wrong)}: expected numbers or null; export the mapper again"
        )
    return MapperConstants(**plain)
