"""The LLMDet wrapper against `MMGroundingDinoForObjectDetection`: one prompt, many prompts, many images, captions."""

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import MMGroundingDinoForObjectDetection

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, load_pretrained, resolve
from ovsops.backbones.detections import Detections
from ovsops.backbones.grounding_pixels import detector_size, padded_views, resized_pixels
from ovsops.backbones.mm_grounding_dino import DetectorConfig, LlmDet
from ovsops.backbones.untrained_llmdet import write_untrained_llmdet
from ovsops.errors import CheckpointError, ConfigError, ShapeError, VocabularyError
from ovsops.text.label_names import LabelNames
from tests.tiny.images import photo_pixels

SIDES = {"short_side": 72, "max_long_side": 128}
SMALL: dict[str, Any] = {**SIDES, "nms_iou": None, "min_score": 0.0}
NAMES = LabelNames(("cat", "red car", "dog", "bow (weapon)", "st. bernard", "x"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(write_untrained_llmdet(tmp_path_factory.mktemp("llmdet")))))


def detector(checkpoint: ResolvedCheckpoint, **fields: Any) -> LlmDet:
    config = DetectorConfig(**{**SMALL, **fields})
    return LlmDet(checkpoint, device="cpu", dtype=torch.float32, config=config)


@pytest.fixture(scope="module")
def llmdet(checkpoint: ResolvedCheckpoint) -> LlmDet:
    return detector(checkpoint)


@pytest.fixture(scope="module")
def plain(checkpoint: ResolvedCheckpoint) -> Any:
    return load_pretrained(MMGroundingDinoForObjectDetection, checkpoint, device="cpu", dtype=torch.float32)


def assert_same(found: Detections, expected: Detections, *, atol: float = 1e-5) -> None:
    assert len(found) == len(expected)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=atol)
    torch.testing.assert_close(found.boxes_xyxy, expected.boxes_xyxy, rtol=0, atol=100 * atol)  # pixels
    assert torch.equal(found.labels, expected.labels)


IMAGE = photo_pixels(60, 90)


def plain_forward(model: Any, image: np.ndarray, ids: tuple[int, ...]) -> Any:
    size_hw = detector_size((image.shape[0], image.shape[1]), **SIDES)
    views, is_image = padded_views(resized_pixels(image, size_hw)[None], size_hw)
    with torch.inference_mode():
        return model(pixel_values=views, pixel_mask=is_image, input_ids=torch.tensor([ids]))


def test_one_prompt_is_the_plain_forward(llmdet: LlmDet, plain: Any) -> None:
    (prompt,) = llmdet.name_prompts(NAMES)
    expected = plain_forward(plain, IMAGE, prompt.token_ids)
    features = llmdet.encode_images([IMAGE])
    for _ in range(2):  # replaying leaves the features as they are
        logits, boxes = llmdet.predict(features, [(0, prompt)])
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(boxes, expected.pred_boxes, rtol=0, atol=1e-5)
    assert expected.pred_boxes.std(dim=1).min() > 0.01  # the weights give something to compare
    assert expected.logits[expected.logits.isfinite()].std() > 0.1


def test_detections_are_the_label_means_of_the_plain_forward(llmdet: LlmDet, plain: Any) -> None:
    (prompt,) = llmdet.name_prompts(NAMES)
    expected = plain_forward(plain, IMAGE, prompt.token_ids)
    (found,) = llmdet.detect([IMAGE], NAMES)
    probabilities = expected.logits[0].sigmoid()
    by_hand = torch.stack([probabilities[:, list(span)].mean(dim=1) for span in prompt.spans], dim=1)
    best = by_hand.flatten().argmax().item()
    assert found.scores[0].item() == pytest.approx(by_hand.max().item(), abs=1e-5)
    assert found.labels[0].item() == best % len(prompt.spans)
    centre_x, centre_y, width, height = expected.pred_boxes[0, best // len(prompt.spans)].tolist()
    corners = [centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2]
    sides = [90, 60, 90, 60]
    by_hand_box = [min(max(c * s, 0), s) for c, s in zip(corners, sides, strict=True)]
    assert found.boxes_xyxy[0].tolist() == pytest.approx(by_hand_box, abs=1e-3)
    assert len(found) == len(prompt.spans) * by_hand.shape[0]  # all pairs: no threshold, no suppression


def test_boxes_lie_in_the_image_and_have_an_area(llmdet: LlmDet) -> None:
    (found,) = llmdet.detect([IMAGE], NAMES)
    assert bool((found.boxes_xyxy >= 0).all())
    assert bool((found.boxes_xyxy <= torch.tensor([90.0, 60, 90, 60])).all())
    assert bool((found.boxes_xyxy[:, 2:] > found.boxes_xyxy[:, :2]).all())
    assert bool((found.scores.diff() <= 0).all())


@pytest.mark.parametrize("pairs_per_pass", [1, 2, 5])
def test_an_image_does_not_depend_on_its_batch_mates(
    checkpoint: ResolvedCheckpoint, llmdet: LlmDet, pairs_per_pass: int
) -> None:
    images = [
        IMAGE,
        photo_pixels(60, 90, seed=1),
        photo_pixels(64, 64),
        photo_pixels(120, 180, seed=2),
        IMAGE[::-1],
    ]
    together = detector(checkpoint, pairs_per_pass=pairs_per_pass).detect(images, NAMES)
    alone = [llmdet.detect([image], NAMES)[0] for image in images]
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)
    turned = detector(checkpoint, pairs_per_pass=pairs_per_pass).detect(images[::-1], NAMES)
    for found, expected in zip(turned[::-1], alone, strict=True):
        assert_same(found, expected)


def test_padding_to_a_mate_would_change_the_boxes(plain: Any, llmdet: LlmDet) -> None:
    """Why images of different sizes never share a pass."""
    (prompt,) = llmdet.name_prompts(NAMES)
    pixels = resized_pixels(IMAGE, (72, 108))[None]
    outputs = []
    for size_hw in [(72, 108), (96, 108)]:
        views, is_image = padded_views(pixels, size_hw)
        with torch.inference_mode():
            ids = torch.tensor([prompt.token_ids])
            outputs.append(plain(pixel_values=views, pixel_mask=is_image, input_ids=ids))
    assert (outputs[0].logits - outputs[1].logits)[..., : len(prompt.token_ids)].abs().max() > 1e-3


@pytest.mark.parametrize("pairs_per_pass", [1, 3])
def test_a_prompt_does_not_depend_on_the_other_prompts(
    checkpoint: ResolvedCheckpoint, pairs_per_pass: int
) -> None:
    chunked = detector(checkpoint, names_per_prompt=2, pairs_per_pass=pairs_per_pass)
    other_names = LabelNames(("cat", "red car", "a much longer thing", "y", "z"))
    (first,) = chunked.detect([IMAGE], NAMES)
    (second,) = chunked.detect([IMAGE], other_names)
    (alone,) = chunked.detect([IMAGE], LabelNames(NAMES.names[:2]))
    for found in (first, second):
        assert_same(found.at(found.labels < 2), alone)


def test_labels_are_places_of_names_across_prompts(checkpoint: ResolvedCheckpoint) -> None:
    chunked = detector(checkpoint, names_per_prompt=2)
    (found,) = chunked.detect([IMAGE], NAMES)
    assert found.labels.unique().tolist() == list(range(6))
    for label in range(0, 6, 2):
        (alone,) = chunked.detect([IMAGE], LabelNames(NAMES.names[label : label + 2]))
        part = found.at((found.labels // 2) * 2 == label)
        assert_same(
            part, Detections(boxes_xyxy=alone.boxes_xyxy, scores=alone.scores, labels=alone.labels + label)
        )


def test_colliding_names_are_found_under_the_first(llmdet: LlmDet) -> None:
    (found,) = llmdet.detect([IMAGE], LabelNames(("bow (weapon)", "cat", "Bow.", "bow")))
    assert found.labels.unique().tolist() == [0, 1]
    (plainly,) = llmdet.detect([IMAGE], LabelNames(("bow", "cat")))
    assert_same(found, plainly)


class Counter:
    """Counts runs of a module and the images in them."""

    def __init__(self, module: Any) -> None:
        self.images = 0
        module.register_forward_pre_hook(self._count)

    def _count(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self.images += len(inputs[0])


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self.holders: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor)
        return out

    def _watch(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not size:
            return
        if self.holders.get(place, 0) == 0:
            self.live += size
            self.peak = max(self.peak, self.live)
        self.holders[place] = self.holders.get(place, 0) + 1
        weakref.finalize(tensor, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        if self.holders[place] == 0:
            self.live -= size


def test_a_vocabulary_of_lvis_size_runs_the_image_encoder_once(checkpoint: ResolvedCheckpoint) -> None:
    llmdet = detector(checkpoint, min_score=0.3, max_per_prompt=50, pairs_per_pass=8)
    tower = Counter(llmdet.model.model.backbone.tower.conv_encoder.model)
    words = ("cup", "bow", "cat", "jar", "toy", "hat", "bag", "pan", "key", "map", "box")
    names = LabelNames(tuple(f"{words[i % 11]} {i}" for i in range(1203)))
    (found,) = llmdet.detect([IMAGE], names)
    assert tower.images == 1
    assert len(llmdet.name_prompts(names)) >= 31
    assert len(found) == llmdet.config.max_detections
    assert int(found.labels.max()) > 600


def test_peak_memory_does_not_grow_with_the_number_of_prompts(checkpoint: ResolvedCheckpoint) -> None:
    llmdet = detector(checkpoint, names_per_prompt=1, max_per_prompt=5)
    peaks = []
    for number in (2, 26):
        with PeakMemory() as memory:
            llmdet.detect([IMAGE], LabelNames(tuple("abcdefghijklmnopqrstuvwxyz"[:number])))
        peaks.append(memory.peak)
    assert peaks[0] > 500_000
    assert peaks[1] < 1.05 * peaks[0]


def test_each_image_of_many_is_encoded_once(checkpoint: ResolvedCheckpoint) -> None:
    llmdet = detector(checkpoint, names_per_prompt=2, pairs_per_pass=2)
    tower = Counter(llmdet.model.model.backbone.tower.conv_encoder.model)
    llmdet.detect([IMAGE, IMAGE, IMAGE, photo_pixels(64, 64)], NAMES)
    assert tower.images == 4


def test_an_error_inside_leaves_the_encoder_running(llmdet: LlmDet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("decoder broke")

    (before,) = llmdet.detect([IMAGE], NAMES)
    with monkeypatch.context() as patched:
        patched.setattr(llmdet.model.model.decoder, "forward", broken)
        with pytest.raises(RuntimeError, match="decoder broke"):
            llmdet.detect([photo_pixels(64, 64)], NAMES)
    assert_same(llmdet.detect([IMAGE], NAMES)[0], before, atol=0)


def test_thresholds_limits_and_doubles(checkpoint: ResolvedCheckpoint, llmdet: LlmDet) -> None:
    (everything,) = llmdet.detect([IMAGE], NAMES)
    bar = everything.scores[10].item()
    (above,) = detector(checkpoint, min_score=bar).detect([IMAGE], NAMES)
    assert_same(above, everything.at(everything.scores >= bar))
    (few,) = detector(checkpoint, max_detections=3).detect([IMAGE], NAMES)
    assert_same(few, everything.at(torch.arange(3)))
    (apart,) = detector(checkpoint, nms_iou=0.0, nms_across_labels=True).detect([IMAGE], NAMES)
    (by_label,) = detector(checkpoint, nms_iou=0.0).detect([IMAGE], NAMES)
    assert 1 <= len(apart) < len(by_label) < len(everything)


def test_no_detections_and_no_images(checkpoint: ResolvedCheckpoint) -> None:
    strict = detector(checkpoint, min_score=1.0)
    (found,) = strict.detect([IMAGE], NAMES)
    assert (len(found), found.boxes_xyxy.shape) == (0, (0, 4))
    assert strict.detect([], NAMES) == []


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 1), (3, 200)])
def test_extreme_images_have_defined_boxes(llmdet: LlmDet, size_hw: tuple[int, int]) -> None:
    (found,) = llmdet.detect([photo_pixels(*size_hw)], NAMES)
    height, width = size_hw
    assert bool(found.scores.isfinite().all())
    assert bool((found.boxes_xyxy <= torch.tensor([width, height, width, height])).all())


def test_phrases_of_a_caption(llmdet: LlmDet, plain: Any) -> None:
    caption = "A cat on a red car"
    found = llmdet.ground(IMAGE, caption, [(2, 5), (11, 18)])
    ids = llmdet.pieces.tokenizer.encode("a cat on a red car.").ids
    scores = plain_forward(plain, IMAGE, tuple(ids)).logits[0].sigmoid()
    first, second = scores[:, 2:5].mean(dim=1), scores[:, 8:14].mean(dim=1)
    for label, expected in enumerate((first, second)):
        assert found.scores[found.labels == label].max().item() == pytest.approx(
            expected.max().item(), abs=1e-5
        )
    with pytest.raises(ShapeError, match="303 tokens"):
        llmdet.ground(IMAGE, "cat " * 100, [(0, 3)])


def test_what_cannot_be_asked_for_is_refused(llmdet: LlmDet) -> None:
    with pytest.raises(VocabularyError, match="300 tokens, a prompt has room for 253"):
        llmdet.detect([IMAGE], LabelNames(("cat", "word " * 75)))
    with pytest.raises(VocabularyError, match="it is empty"):
        llmdet.detect([IMAGE], LabelNames(()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names_per_prompt": 0}, "names_per_prompt is 0; give 1 or more"),
        ({"min_score": 1.5}, r"min_score is 1.5; give a number in \[0, 1\]"),
        ({"nms_iou": -0.1}, "nms_iou is -0.1"),
        ({"short_side": 900, "max_long_side": 800}, "max_long_side 800 is under short_side 900"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetectorConfig(**fields)


def test_half_precision_finds_nearly_the_same(checkpoint: ResolvedCheckpoint, llmdet: LlmDet) -> None:
    half = LlmDet(checkpoint, device="cpu", dtype=torch.bfloat16, config=DetectorConfig(**SMALL))
    (found,) = half.detect([IMAGE], NAMES)
    (expected,) = llmdet.detect([IMAGE], NAMES)
    assert found.scores.dtype == torch.float32
    assert found.scores[0].item() == pytest.approx(expected.scores[0].item(), abs=0.05)


def published_form(folder: Path, place: Path) -> Path:
    """The same weights as older versions of transformers saved them, and the published files are."""
    weights = load_file(folder / "model.safetensors")
    heads = {name: value for name, value in weights.items() if name.startswith(("bbox_embed", "class_embed"))}
    tables = [name for name in weights if name.endswith("relative_position_bias_table")]
    published = {name: value for name, value in weights.items() if "swin.layernorm" not in name}
    published |= {f"model.decoder.{name}": value.clone() for name, value in heads.items()}
    published |= {
        name.replace("bias_table", "index"): torch.zeros(16, 16, dtype=torch.int64) for name in tables
    }
    save_file(published, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("decoder_bbox_embed_share", "decoder_cls_embed_share"):
        del config[key]
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (place / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    return place


def test_weights_in_the_published_form_give_the_same_boxes(
    checkpoint: ResolvedCheckpoint, llmdet: LlmDet, tmp_path: Path
) -> None:
    """Heads stored twice and not shared by the layers, no key that says so, index tables, no last norm of Swin."""
    found = detector(resolve(Checkpoint(source=str(published_form(checkpoint.folder, tmp_path)))))
    assert_same(found.detect([IMAGE], NAMES)[0], llmdet.detect([IMAGE], NAMES)[0], atol=0)
    heads = found.model.bbox_embed
    assert not torch.equal(heads[0].layers[0].weight, heads[1].layers[0].weight)


def test_files_are_those_of_the_published_checkpoints(checkpoint: ResolvedCheckpoint) -> None:
    """Names from the conversion script of transformers (`convert_mm_grounding_dino_to_hf.py` at 0897210)."""
    found = set(load_file(checkpoint.folder / "model.safetensors"))
    swin = "model.backbone.conv_encoder.model"
    expected = {
        f"{swin}.embeddings.patch_embeddings.projection.weight",
        f"{swin}.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table",
        f"{swin}.encoder.layers.3.blocks.0.attention.self.query.weight",
        f"{swin}.encoder.layers.2.downsample.reduction.weight",
        f"{swin}.hidden_states_norms.stage4.weight",
        "model.input_proj_vision.3.0.weight",
        "model.text_backbone.encoder.layer.1.attention.self.query.weight",
        "model.text_projection.weight",
        "model.encoder.layers.1.fusion_layer.vision_param",
        "model.encoder.layers.1.text_enhancer_layer.self_attn.query.weight",
        "model.encoder.layers.1.deformable_layer.self_attn.sampling_offsets.weight",
        "model.decoder.layers.1.encoder_attn_text.out_proj.weight",
        "model.decoder.reference_points_head.layers.1.bias",
        "model.encoder_output_class_embed.bias",
        "model.query_position_embeddings.weight",
        "model.level_embed",
        "class_embed.1.bias",
        "bbox_embed.1.layers.2.weight",
    }
    assert expected <= found


def test_the_same_seed_writes_the_same_bytes(checkpoint: ResolvedCheckpoint, tmp_path: Path) -> None:
    again = write_untrained_llmdet(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (again / name).read_bytes() == (checkpoint.folder / name).read_bytes()
    other = write_untrained_llmdet(tmp_path / "other", seed=1)
    assert (other / "model.safetensors").read_bytes() != (again / "model.safetensors").read_bytes()


def test_five_maps_from_the_first_stage_on_as_in_the_large_model(tmp_path: Path) -> None:
    stages = ("stage1", "stage2", "stage3", "stage4")
    folder = write_untrained_llmdet(tmp_path, stages=stages, num_queries=100)
    llmdet = detector(resolve(Checkpoint(source=str(folder))))
    assert [level.shape[-1] for level, _ in llmdet.encode_images([photo_pixels(64, 64)]).levels] == [
        18,
        9,
        5,
        3,
    ]
    (found,) = llmdet.detect([photo_pixels(1, 300)], NAMES)  # padded, so that 100 queries find a place
    assert bool(found.scores.isfinite().all())


def test_weights_that_do_not_fit_are_refused(checkpoint: ResolvedCheckpoint, tmp_path: Path) -> None:
    for file in checkpoint.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 parameters missing \(model\.text_projection\.weight"):
        detector(resolve(Checkpoint(source=str(tmp_path))))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
