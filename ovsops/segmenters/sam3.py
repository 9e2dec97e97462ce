"""The SAM 3 segmenter: each view encoded once, each prompt once per corpus, prompts a few at a time.

Axes: V views of an image, P prompts, m m cells of a mask, h w pixels.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.long_prompts import warn_of_long_prompts
from ovsops.backbones.sam3 import Sam3, Sam3ImageFeatures, Sam3Prediction, joined_features, load_sam3
from ovsops.backbones.sam3_licence import check_sam_licence
from ovsops.backbones.sam3_text import Sam3Text
from ovsops.errors import CheckpointError, ConfigError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.refine import PamrGuide
from ovsops.masks.rle import mask_to_rle
from ovsops.segmenters.build import tensor_dtype
from ovsops.segmenters.labels import MAX_CHUNK_PIXELS, canvas_scores, upsampled
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.sam3_masks import (
    Candidates,
    PixelVote,
    RefinePlanes,
    Sam3Detections,
    Sam3Instance,
    candidates,
    contending,
    full_mask,
    semantic_scores,
    suppressed,
)
from ovsops.segmenters.sam3_prompts import Sam3TextFeatures
from ovsops.segmenters.segmenter import groups_of_views
from ovsops.segmenters.views import ViewPlan, cut_views, plan_views, resize
from ovsops.text.cache import TextFeaturesCache, text_features_key
from ovsops.text.prompts import PromptTable, class_prompts
from ovsops.text.vocabulary import Vocabulary


class Sam3Segmenter:
    """Labels images with SAM 3. An image's map does not depend on the other images of a batch."""

    def __init__(
        self, config: Sam3SegmenterConfig, text: Sam3TextFeatures, sam3: Sam3, *, device: str
    ) -> None:
        self.config, self.sam3, self.device = config, sam3, device
        self.text = text.to(device)

    @torch.inference_mode()
    def segment(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ClassMap]:
        """A class map per RGB image, in order."""
        return [self.label(*encoded) for encoded in self._encoded(images)]

    @torch.inference_mode()
    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Sam3Detections]:
        """Instances and presence scores of each RGB image, in order."""
        self._check_squashed()
        return [self._detections(*encoded) for encoded in self._encoded(images)]

    @torch.inference_mode()
    def segment_and_detect(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> list[tuple[ClassMap, Sam3Detections]]:
        """Both for each RGB image, in order: it is encoded once, and each prompt is asked once."""
        self._check_squashed()
        pairs = []
        for image, plan, features in self._encoded(images):
            found = _Instances(self.config, self.text)
            if self.config.labels == "instances":
                self._collect(features, found)
                class_map = self._painted(image, plan, found.best()[0])
            else:
                class_map = self._voted(image, plan, self._semantic(features, found))
            pairs.append((class_map, self._drawn(image, plan, *found.best())))
        return pairs

    @torch.inference_mode()
    def encoded_features(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Sam3ImageFeatures]:
        """Features of the views of each RGB image, in order, for prompts of another kind than phrases."""
        return [features for _, _, features in self._encoded(images)]

    def _check_squashed(self) -> None:
        if self.config.views != "squash":
            raise ConfigError("segmenter.views must be squash for instances: windows would cut them in two")

    @torch.inference_mode()
    def label(
        self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, features: Sam3ImageFeatures
    ) -> ClassMap:
        """The class map of an image from the features of its views."""
        if self.config.labels == "instances":
            found = _Instances(self.config, self.text)
            self._collect(features, found)
            return self._painted(image, plan, found.best()[0])
        return self._voted(image, plan, self._semantic(features))

    def _painted(self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, found: Candidates) -> ClassMap:
        """Instances compete for pixels."""
        vote, refine = PixelVote(plan.image_hw, device=self.device), self._refiner(image, plan)
        owners = self.text.query_class[found.prompts].tolist()
        for logits, score, owner in zip(found.mask_logits, found.scores.tolist(), owners, strict=True):
            vote.paint(full_mask(logits, plan.image_hw, self.config, refine), score, owner)
        return vote.class_map(threshold=0.0)

    def _voted(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        plan: ViewPlan,
        batches: Iterator[tuple[Int[Tensor, " P"], Float[Tensor, "V P m m"]]],
    ) -> ClassMap:
        """Prompts compete for pixels."""
        vote, refine = PixelVote(plan.image_hw, device=self.device), self._refiner(image, plan)
        pixels = plan.image_hw[0] * plan.image_hw[1]
        chunk = max(1, MAX_CHUNK_PIXELS // pixels)
        for prompts, scores, contends in self._with_contenders(batches):
            for part, rows, refined in zip(
                prompts.split(chunk), scores.split(chunk, dim=1), contends.split(chunk), strict=True
            ):
                canvas = canvas_scores(rows, plan, mode="corrected")
                if refine is not None and bool(refined.any()):
                    canvas[refined] = refine(canvas[refined])
                vote.add(upsampled(canvas, plan.image_hw, align_corners=False), self.text.query_class[part])
        return vote.class_map(threshold=self.config.threshold)

    def _refiner(self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan) -> RefinePlanes | None:
        config = self.config.refinement
        if config is None:
            return None
        guide = PamrGuide(
            resize(image, plan.canvas_hw)[None].to(self.device), replace(config, winning_margin=None)
        )

        def refine(planes: Float[Tensor, "c h w"]) -> Float[Tensor, "c h2 w2"]:
            return guide.refine(upsampled(planes, plan.canvas_hw, align_corners=False)[None])[0]

        return refine

    def _with_contenders(
        self, batches: Iterator[tuple[Int[Tensor, " P"], Float[Tensor, "V P m m"]]]
    ) -> Iterator[tuple[Int[Tensor, " P"], Float[Tensor, "V P m m"], Bool[Tensor, " P"]]]:
        """Batches of prompts with their scores, and which of them refinement shall touch.

        With a margin this needs the scores of all prompts at once, on the grid of masks.
        """
        config = self.config.refinement
        if config is None or config.winning_margin is None:
            for prompts, scores in batches:
                yield prompts, scores, torch.ones(len(prompts), dtype=torch.bool, device=scores.device)
            return
        every, planes = (list(parts) for parts in zip(*batches, strict=True))
        scores = torch.cat(planes, dim=1)
        yield torch.cat(every), scores, contending(scores, margin=config.winning_margin)

    def _encoded(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> Iterator[tuple[UInt8[np.ndarray, "_ _ 3"], ViewPlan, Sam3ImageFeatures]]:
        """Each image, its plan and features, one group of `views_per_batch` in memory at a time."""
        plans = [plan_views((int(image.shape[0]), int(image.shape[1])), self.config) for image in images]
        sizes = [len(plan.windows) for plan in plans]
        for first, end in groups_of_views(sizes, limit=self.config.views_per_batch):
            views = torch.cat(
                [self._views(i, p) for i, p in zip(images[first:end], plans[first:end], strict=True)]
            )
            batches = views.split(self.config.views_per_batch)
            features = [self.sam3.encode_images(batch.to(self.device)) for batch in batches]
            joined = features[0] if len(features) == 1 else joined_features(features)
            start = 0
            for image, plan, size in zip(images[first:end], plans[first:end], sizes[first:end], strict=True):
                yield image, plan, joined.images(start, start + size)
                start += size

    def _views(self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan) -> Float[Tensor, "V 3 s s"]:
        views = cut_views(image, plan, side=self.sam3.image_size, window=self.config.window)
        return views.round() if self.config.mode == "upstream" else views

    def _predictions(
        self, features: Sam3ImageFeatures, prompts: Int[Tensor, " P"]
    ) -> Iterator[Sam3Prediction]:
        """What some prompts find, view by view."""
        for view in range(len(features)):
            yield self.sam3.predict(
                features.images(view, view + 1),
                self.text.tokens[prompts],
                self.text.attention_mask[prompts],
                geometry_token=self.config.mode == "upstream",
            )

    def _prompt_batches(self) -> tuple[Int[Tensor, " P"], ...]:
        every = torch.arange(len(self.text.prompts), device=self.text.tokens.device)
        return every.split(self.config.prompts_per_batch)

    def _semantic(
        self, features: Sam3ImageFeatures, instances: "_Instances | None" = None
    ) -> Iterator[tuple[Int[Tensor, " P"], Float[Tensor, "V P m m"]]]:
        """Scores of a few prompts at a time; `instances` takes note of what is found on the way."""
        for prompts in self._prompt_batches():
            scores = []
            for found in self._predictions(features, prompts):
                scores.append(semantic_scores(found, instance_threshold=self.config.instance_threshold))
                if instances is not None:
                    instances.add(found, first_prompt=int(prompts[0]))
            yield prompts, torch.stack(scores)

    def _collect(self, features: Sam3ImageFeatures, instances: "_Instances") -> None:
        for prompts in self._prompt_batches():
            [found] = self._predictions(features, prompts)
            instances.add(found, first_prompt=int(prompts[0]))

    def _detections(
        self, image: UInt8[np.ndarray, "h w 3"], plan: ViewPlan, features: Sam3ImageFeatures
    ) -> Sam3Detections:
        found = _Instances(self.config, self.text)
        self._collect(features, found)
        return self._drawn(image, plan, *found.best())

    def _drawn(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        plan: ViewPlan,
        found: Candidates,
        presence: Float[Tensor, " P"],
    ) -> Sam3Detections:
        """Instances with masks at the image's size."""
        refine = self._refiner(image, plan)
        height, width = plan.image_hw
        boxes = found.boxes_xyxy * found.boxes_xyxy.new_tensor([width, height, width, height])
        instances = []
        for place, prompt in enumerate(found.prompts.tolist()):
            x1, y1, x2, y2 = boxes[place].tolist()
            mask = full_mask(found.mask_logits[place], plan.image_hw, self.config, refine)
            instances.append(
                Sam3Instance(
                    prompt=prompt,
                    label=int(self.text.query_class[prompt]),
                    score=float(found.scores[place]),
                    box_xyxy=(x1, y1, x2, y2),
                    mask=mask_to_rle(mask.cpu().numpy()),
                )
            )
        return Sam3Detections(presence=presence.cpu().numpy(), instances=tuple(instances))


class _Instances:
    """Instances of all prompts as they come, a few prompts at a time."""

    def __init__(self, config: Sam3SegmenterConfig, text: Sam3TextFeatures) -> None:
        self.config, self.text = config, text
        self._best: Candidates | None = None
        self._presence: list[Tensor] = []

    def add(self, found: Sam3Prediction, *, first_prompt: int) -> None:
        """Take note of what prompts from `first_prompt` on found."""
        fresh = candidates(found, self.config, first_prompt=first_prompt)
        joined = fresh if self._best is None else self._best.joined(fresh)
        self._best = joined.at(
            joined.scores.argsort(descending=True, stable=True)[: self.config.max_instances]
        )
        self._presence.append(found.presence)

    def best(self) -> tuple[Candidates, Float[Tensor, " P"]]:
        """Instances of all prompts, best first, and every prompt's presence score."""
        best, config = self._best, self.config
        assert best is not None, "text features hold a prompt or more"
        if config.nms_scope != "prompt":
            owners = self.text.query_class[best.prompts]
            best = suppressed(
                best, owners if config.nms_scope == "class" else torch.zeros_like(owners), config
            )
        return best, torch.cat(self._presence)


def compute_sam3_text(
    config: Sam3SegmenterConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> Sam3TextFeatures:
    """Features of every class and background prompt, without templates: once per (prompts, checkpoint), cached on disk.

    Negative prompts take no part: SAM 3 scores each phrase by itself. Raises `CheckpointError` where the licence is
    not accepted.
    """
    check_sam_licence(config.sam3, accepted=config.accept_sam_licence)
    table = class_prompts(vocabulary, tuple(languages))
    number = tensor_dtype(dtype, device=device)
    place = resolve(config.sam3)
    query_class, prompts = phrases(table)
    warn_of_long_prompts(place, prompts)
    options = {"templates": "none", "dtype": str(number)}

    def compute() -> dict[str, np.ndarray]:
        found = Sam3Text(place, device=device, dtype=number).encode(prompts)
        return {"tokens": found.tokens.numpy(), "attention_mask": found.attention_mask.numpy()}

    made_from = json.dumps({"sam3": place.identity})
    if cache_dir is None:
        arrays = compute()
    else:
        arrays = TextFeaturesCache(cache_dir).get_or_compute(table, made_from, compute, options=options)
    return Sam3TextFeatures(
        class_ids=vocabulary.ids,
        query_class=torch.tensor(query_class, dtype=torch.int64),
        prompts=prompts,
        tokens=torch.from_numpy(arrays["tokens"]),
        attention_mask=torch.from_numpy(arrays["attention_mask"]),
        identity=f"{made_from} key:{text_features_key(table, made_from, options)}",
    )


def phrases(table: PromptTable) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Class place (from 1; 0 background) and phrase of every prompt, equal ones of a class once."""
    asked = [(entry.class_index + 1, entry.prompt) for entry in table.of_role("class")]
    asked += [(0, entry.prompt) for entry in table.of_role("background")]
    pairs = list(dict.fromkeys(asked))
    return tuple(owner for owner, _ in pairs), tuple(prompt for _, prompt in pairs)


def build_sam3(
    config: Sam3SegmenterConfig,
    vocabulary: Vocabulary,
    text: Sam3TextFeatures,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> Sam3Segmenter:
    """Load the image side and check that it, the vocabulary and the prompts' features belong together.

    Raises `CheckpointError` where the licence is not accepted.
    """
    check_sam_licence(config.sam3, accepted=config.accept_sam_licence)
    if text.class_ids != vocabulary.ids:
        raise ConfigError(
            f"vocabulary {vocabulary.name}: its ids are not those of the text features; compute them again"
        )
    number = tensor_dtype(dtype, device=device)
    sam3 = load_sam3(resolve(config.sam3), device=device, dtype=number, calibration=config.calibration)
    width = int(sam3.model.config.detr_encoder_config.hidden_size)
    if text.tokens.shape[2] != width:
        raise CheckpointError(
            f"SAM 3 text features have {text.tokens.shape[2]} channels, the detector has {width}: "
            "these checkpoints were not made for each other"
        )
    return Sam3Segmenter(config, text, sam3, device=device)
