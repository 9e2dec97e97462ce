"""SC-CLIP's self-calibration hooked onto a SAM 3 model: no copied forward code, no parameters, removable.

Axes: B images (or prompts, in the decoder), H W patch grid, N patch tokens, Q queries, D channels, h w cells of a mask.

Source: SC-CLIP (repository SuleBai/SC-CLIP at 0417ba9), as blends that keep the statistics which SAM 3's neck expects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ovsops.backbones.sam3_calibration_config import CalibrationConfig
from ovsops.patches.aggregation import aggregate_counted
from ovsops.patches.outliers import find_outliers, local_outlier_factor
from ovsops.patches.repair import repair_outliers

GATED_LOGIT = -10.0
"""What a closed gate makes of a mask logit: probability 5e-5, where 0 would be 0.5."""


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What calibration did to the tokens of each image. None: that part was off."""

    outliers: Bool[Tensor, "B H W"] | None = None
    """Tokens that were repaired (where they had a neighbour to be repaired from)."""
    outlier_scores: Float[Tensor, "B H W"] | None = None
    """LOF of every token; the z-score of its norm where norms alone decide and no LOF is asked for."""
    kept_fraction_pre: Float[Tensor, " B"] | None = None
    """Share of token pairs that were averaged before the last block; near 1, all became one mean."""
    kept_fraction_post: Float[Tensor, " B"] | None = None
    """The same after the last block."""

    def images(self, first: int, end: int) -> "CalibrationReport":
        """That of images `first` to `end` - 1 of the batch."""
        parts = {name: None if value is None else value[first:end] for name, value in vars(self).items()}
        return CalibrationReport(**parts)

    @property
    def outlier_indices(self) -> tuple[Int[Tensor, " n"], ...] | None:
        """Repaired tokens of each image as row * W + column."""
        if self.outliers is None:
            return None
        return tuple(image.flatten().nonzero()[:, 0] for image in self.outliers)


def joined_reports(parts: Sequence[CalibrationReport]) -> CalibrationReport:
    """That of several batches, in order; all come from one calibration."""
    joined = {}
    for name in vars(parts[0]):
        values = [value for part in parts if (value := getattr(part, name)) is not None]
        joined[name] = torch.cat(values) if values else None
    return CalibrationReport(**joined)


@dataclass
class _Call:
    """What the hooks of one forward pass hand on to each other."""

    references: dict[int, Tensor] = field(default_factory=dict)
    fused_sum: Tensor | None = None
    report: dict[str, Tensor] = field(default_factory=dict)


class SelfCalibration:
    """Hooks on one SAM 3 model (`transformers.Sam3Model`), from `attach` to `detach`, or as a context.

    All state is in this object: two models in one process share nothing.
    """

    def __init__(self, model: Any, config: CalibrationConfig) -> None:
        config.check_depth(len(model.vision_encoder.backbone.layers))
        self.config = config
        self.query_outliers: Bool[Tensor, "B Q"] | None = None
        """Queries that the decoder's last calibrated layer took for outliers, in the latest forward pass."""
        self._model = model
        self._handles: list[RemovableHandle] = []
        self._call = _Call()
        self._mask_parts: dict[str, Tensor] = {}

    def attach(self) -> None:
        """Begin to change what the model computes. Doing it twice is doing it once."""
        if self._handles:
            return
        config, model = self.config, self._model
        blocks = model.vision_encoder.backbone.layers
        if not config.is_off:
            self._handles.append(model.vision_encoder.backbone.register_forward_pre_hook(self._begin))
        for number in self._hooked_blocks(len(blocks)):
            self._handles.append(blocks[number].register_forward_hook(self._block_hook(number, len(blocks))))
        if config.decoder:
            layers = list(model.detr_decoder.layers)
            for layer in layers if config.decoder_layers == "all" else layers[-1:]:
                self._handles.append(layer.register_forward_hook(self._calibrate_queries))
        decoder = model.mask_decoder
        if config.mask_mode == "cosine":
            for name in ("mask_embedder", "instance_projection"):
                self._handles.append(getattr(decoder, name).register_forward_hook(self._keep(name)))
        if config.mask_mode != "none":
            self._handles.append(decoder.register_forward_hook(self._calibrate_masks))

    def detach(self) -> None:
        """Remove every hook: the model is what it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._call, self._mask_parts, self.query_outliers = _Call(), {}, None

    def __enter__(self) -> "SelfCalibration":
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def take_report(self) -> CalibrationReport:
        """What the latest pass through the image encoder did, once."""
        report = CalibrationReport(**self._call.report)
        self._call = _Call()
        return report

    def _hooked_blocks(self, num_blocks: int) -> list[int]:
        config = self.config
        wanted: set[int] = set()
        if config.repair or config.report_lof or config.pre_aggregate:
            wanted.add(num_blocks - 2)
        if config.pre_aggregate:
            wanted.add(config.pre_block)
        if config.post_aggregate:
            wanted |= {config.post_block, num_blocks - 1}
        if config.fuse:
            wanted |= {*range(config.fuse_first, config.fuse_end), num_blocks - 1}
        return sorted(wanted)

    def _begin(self, module: Any, inputs: Any) -> None:
        self._call = _Call()

    def _block_hook(self, number: int, num_blocks: int) -> Callable[[Any, Any, Tensor], Tensor]:
        """References are kept as the block gave them, before anything is changed in its output."""
        config = self.config
        switched = ((config.pre_aggregate, config.pre_block), (config.post_aggregate, config.post_block))
        references = {block for is_on, block in switched if is_on}

        def hook(module: Any, inputs: Any, tokens: Tensor) -> Tensor:
            call = self._call
            if number in references:
                call.references[number] = tokens
            if config.fuse and config.fuse_first <= number < config.fuse_end:
                call.fused_sum = tokens.float() if call.fused_sum is None else call.fused_sum + tokens.float()
            if number == num_blocks - 2:
                return self._before_last_block(tokens)
            return self._after_last_block(tokens) if number == num_blocks - 1 else tokens

        return hook

    def _before_last_block(self, tokens: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        config, grid = self.config, tokens.shape[1:3]
        if config.repair or config.report_lof:
            found = find_outliers(tokens.flatten(1, 2), config.outliers)
            scores = found.scores
            if config.report_lof and config.outliers.mode == "norm":
                scores = local_outlier_factor(
                    tokens.flatten(1, 2),
                    num_neighbours=config.outliers.num_neighbours,
                    variant=config.outliers.variant,
                    chunk=config.outliers.chunk,
                )
            self._call.report["outlier_scores"] = scores.unflatten(1, grid)
            if config.repair:
                is_outlier = found.mask.unflatten(1, grid)
                self._call.report["outliers"] = is_outlier
                tokens = blended(tokens, repair_outliers(tokens, is_outlier), config.repair_weight)
        if config.pre_aggregate:
            tokens, kept = self._aggregated(tokens, self._call.references[config.pre_block])
            self._call.report["kept_fraction_pre"] = kept
        return tokens

    def _after_last_block(self, tokens: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        config, call = self.config, self._call
        if config.fuse:
            assert call.fused_sum is not None, "blocks run in order"
            fused = call.fused_sum / (config.fuse_end - config.fuse_first)
            tokens = self._blended_in(tokens, fused.to(tokens.dtype))
            call.fused_sum = None
        if config.post_aggregate:
            tokens, kept = self._aggregated(tokens, call.references[config.post_block])
            call.report["kept_fraction_post"] = kept
        call.references.clear()
        return tokens

    def _aggregated(
        self, tokens: Float[Tensor, "B H W D"], reference: Float[Tensor, "B H W D"]
    ) -> tuple[Float[Tensor, "B H W D"], Float[Tensor, " B"]]:
        config = self.config
        found = aggregate_counted(
            tokens.flatten(1, 2),
            reference.flatten(1, 2),
            beta=config.beta,
            chunk=config.chunk,
            centred=config.centred,
            topk=config.topk,
        )
        return self._blended_in(tokens, found.values.view(tokens.shape)), found.kept_fraction

    def _blended_in(
        self, tokens: Float[Tensor, "B H W D"], new: Float[Tensor, "B H W D"]
    ) -> Float[Tensor, "B H W D"]:
        if self.config.restore_statistics:
            new = matched_statistics(new.flatten(1, 2), tokens.flatten(1, 2)).view(tokens.shape)
        return blended(tokens, new, self.config.residual_weight)

    def _calibrate_queries(self, module: Any, inputs: Any, hidden: Float[Tensor, "B T D"]) -> Tensor:
        config = self.config
        queries = hidden[:, 1:]  # the presence token stands first
        directions = F.layer_norm(queries.float(), queries.shape[-1:])
        is_outlier = find_outliers(directions, config.outliers).mask
        averaged = aggregate_counted(queries, directions, beta=config.beta, topk=config.topk).values
        self.query_outliers = is_outlier
        changed = blended(queries, averaged, config.residual_weight)
        return torch.cat([hidden[:, :1], torch.where(is_outlier[..., None], changed, queries)], dim=1)

    def _keep(self, name: str) -> Callable[[Any, Any, Tensor], None]:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            self._mask_parts[name] = output

        return hook

    def _calibrate_masks(self, module: Any, inputs: Any, output: Any) -> Any:
        assert self.config.mask_beta is not None, "checked by CalibrationConfig"
        beta, mode, logits = self.config.mask_beta, self.config.mask_mode, output.pred_masks
        if mode == "shift":
            output.pred_masks = logits - beta
        elif mode == "zero":
            output.pred_masks = torch.where(logits < beta, torch.zeros_like(logits), logits)
        elif mode == "gate":
            output.pred_masks = gated(logits, logits < beta)
        else:
            embeddings, pixels = self._mask_parts["mask_embedder"], self._mask_parts["instance_projection"]
            lengths = embeddings.float().norm(dim=-1)[..., None, None] * pixels.float().norm(dim=1)[:, None]
            output.pred_masks = gated(logits, logits.float() < beta * lengths)
            self._mask_parts.clear()
        return output


def blended(old: Float[Tensor, "*S"], new: Float[Tensor, "*S"], weight: float) -> Float[Tensor, "*S"]:
    """(1 - weight) old + weight new; exactly one of them at 0 and 1."""
    if weight == 0:
        return old
    return new if weight == 1 else torch.lerp(old.float(), new.float(), weight).to(old.dtype)


def matched_statistics(new: Float[Tensor, "B N D"], like: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """`new` with mean and standard deviation over its tokens, channel by channel, of `like`.

    A channel that is constant in `new` becomes the mean of `like`.
    """
    values, target = new.float(), like.float()
    centred = values - values.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    tiny = 1e-6 * values.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    scale = torch.where(
        spread > tiny, target.std(dim=1, correction=0, keepdim=True) / spread.clamp(min=tiny), 0
    )
    return (centred * scale + target.mean(dim=1, keepdim=True)).to(like.dtype)


def gated(logits: Float[Tensor, "*S"], is_closed: Bool[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Logits of at most `GATED_LOGIT` where the gate is closed."""
    return torch.where(is_closed, logits.clamp(max=GATED_LOGIT), logits)
