"""What the two workers of test_gather run: spawned by name, so it stands in a module of its own."""

import datetime
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ovsops.errors import ShapeError
from ovsops.losses.centring import centred_targets, sinkhorn_targets, update_center
from ovsops.losses.class_distillation import class_distillation_loss, class_similarity, sample_at_crops
from ovsops.losses.distillation import attention_distillation, feature_distillation, relation_distillation
from ovsops.losses.diversity import group_variance, translation_loss
from ovsops.losses.gather import Gather, all_gather_with_gradient
from ovsops.losses.infonce import infonce_loss, infonce_of_pairs, learned_logit_scale
from ovsops.losses.koleo import koleo_loss
from ovsops.losses.masked import masked_prediction_loss
from ovsops.losses.self_distillation import self_distillation_loss
from ovsops.losses.siglip import equal_pairs, siglip_loss

NUM_PAIRS, WIDTH, SIDE = 8, 6, 4
Batch = dict[str, Tensor]


class Towers(nn.Module):
    """A text and an image projection with a learned scale and bias; `forward` is the loss, as DDP wants it."""

    def __init__(self, loss: "Loss") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.text = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator))
        self.image = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self.loss = loss

    def forward(self, batch: Batch, gather: Gather) -> Tensor:
        return self.loss(self, batch, gather)


Loss = Callable[[Towers, Batch, Gather], Tensor]


def whole_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(NUM_PAIRS, *shape, generator=generator)  # noqa: E731
    corners = torch.rand(NUM_PAIRS, 2, generator=generator) / 2
    return {
        "texts": random(WIDTH),
        "images": random(WIDTH),
        "patches": random(SIDE, SIDE, WIDTH),
        "teacher_patches": random(SIDE, SIDE, WIDTH),
        "teacher_texts": random(WIDTH),
        "crops": torch.cat([corners, corners + 0.5], dim=1),
        "keys": torch.tensor([0, 1, 2, 0, 0, 3, 1, 4]),
        "groups": torch.tensor([0, 0, 1, 2, 1, 1, -1, 2]),
        "mask": torch.rand(NUM_PAIRS, SIDE, SIDE, generator=generator) < 0.5,
    }


def siglip(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    texts, images = batch["texts"] @ model.text, batch["images"] @ model.image
    return siglip_loss(texts, images, log_scale=model.log_scale, bias=model.bias, gather=gather)


def siglip_equal_captions(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    texts, images = batch["texts"] @ model.text, batch["images"] @ model.image
    positives = equal_pairs(batch["keys"], gather=gather)
    return siglip_loss(
        texts, images, log_scale=model.log_scale, bias=model.bias, positives=positives, gather=gather
    )


def infonce(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    texts, images = batch["texts"] @ model.text, batch["images"] @ model.image
    scale = learned_logit_scale(model.log_scale)
    return infonce_loss(texts, images, logit_scale=scale, gather=gather) + 0 * model.bias


def infonce_upstream_equal_captions(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    texts, images = batch["texts"] @ model.text, batch["images"] @ model.image
    scale, positives = learned_logit_scale(model.log_scale), equal_pairs(batch["keys"], gather=gather)
    loss = infonce_loss(
        texts, images, logit_scale=scale, positives=positives, reduction="upstream", gather=gather
    )
    return loss + 0 * model.bias


def debias(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    texts, images = batch["texts"] @ model.text, batch["images"] @ model.image
    losses = infonce_of_pairs(texts, images, logit_scale=learned_logit_scale(model.log_scale), gather=gather)
    variance = group_variance(losses, batch["groups"], gather=gather)
    return variance + translation_loss(texts, batch["teacher_texts"]) + 0 * model.bias


def classes(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    """Prototypes are the texts of all ranks; the teacher's view is sampled at the crops."""
    student = class_similarity(batch["patches"] @ model.image, batch["texts"] @ model.text, gather=gather)
    whole = class_similarity(batch["teacher_patches"], batch["teacher_texts"], gather=gather)
    teacher = sample_at_crops(whole, batch["crops"], (SIDE, SIDE))
    scale = 0 * (model.log_scale + model.bias)
    masked = class_distillation_loss(student, teacher, mask=batch["mask"], temperature=0.3)
    return class_distillation_loss(student, teacher, temperature=0.3) + masked + scale


def prototypes(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    """DINO with Sinkhorn targets and iBOT with a centre, both of the whole batch."""
    student = torch.stack([batch["images"] @ model.image, batch["texts"] @ model.text])
    target = sinkhorn_targets(batch["teacher_texts"], temperature=0.5, gather=gather)
    views = self_distillation_loss(student, target[None], num_shared_views=1)
    teacher = batch["teacher_patches"]
    center = update_center(torch.zeros(WIDTH), teacher.flatten(0, 2), gather=gather)
    targets = centred_targets(teacher[batch["mask"]], center, temperature=0.5)
    patches = batch["patches"][batch["mask"]] @ model.image
    return (
        views + masked_prediction_loss(patches, targets, batch["mask"]) + 0 * (model.log_scale + model.bias)
    )


def koleo(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    loss = koleo_loss(batch["images"] @ model.image, gather=gather)
    return loss + 0 * (model.text.sum() + model.log_scale + model.bias)


def frozen_teacher(model: Towers, batch: Batch, gather: Gather) -> Tensor:
    student, teacher = batch["patches"] @ model.image, batch["teacher_patches"]
    logits = (student @ model.text).flatten(1, 2)[:, None]
    return (
        feature_distillation(student, teacher)
        + feature_distillation(student, teacher, kind="mse")
        + attention_distillation(logits, teacher.flatten(1, 2)[:, None])
        + relation_distillation(student.flatten(1, 2), teacher.flatten(1, 2))
        + 0 * (model.log_scale + model.bias)
    )


LOSSES: dict[str, Loss] = {
    "siglip": siglip,
    "siglip_equal_captions": siglip_equal_captions,
    "infonce": infonce,
    "infonce_upstream_equal_captions": infonce_upstream_equal_captions,
    "debias": debias,
    "classes": classes,
    "prototypes": prototypes,
    "frozen_teacher": frozen_teacher,
    "koleo": koleo,
}


def step(name: str, *, rank: int, num_ranks: int, gather: Gather) -> dict[str, Tensor]:
    """Loss of this rank's part of the batch, and the gradients that are not idle by construction."""
    rows = NUM_PAIRS // num_ranks
    batch = {key: value[rank * rows : (rank + 1) * rows] for key, value in whole_batch().items()}
    model = Towers(LOSSES[name])
    wrapped = DistributedDataParallel(model) if dist.is_initialized() else model
    loss = wrapped(batch, gather)
    loss.backward()
    found = {"loss": loss.detach()}
    for parameter, value in model.named_parameters():
        if value.grad is not None and value.grad.any():
            found[f"gradient of {parameter}"] = value.grad
    return found


def targets(rank: int, gather: Gather) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sinkhorn and centre of ranks that hold 3 and 5, then 8 and 0 samples, and the same from all at once."""
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))
    found: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for split in (3, 8):
        own = slice(0, split) if rank == 0 else slice(split, 8)
        found[f"sinkhorn {split}"] = sinkhorn_targets(logits[own], gather=gather)
        expected[f"sinkhorn {split}"] = sinkhorn_targets(logits)[own]
        found[f"center {split}"] = update_center(torch.ones(5), logits[own], gather=gather)
        expected[f"center {split}"] = 0.9 * torch.ones(5) + 0.1 * logits.mean(0)
    return found, expected


def raw(rank: int, gather: Gather) -> dict[str, Tensor]:
    own = torch.tensor([[10.0 * rank], [10.0 * rank + 1]], requires_grad=True)
    gathered = gather(own)
    (gathered.sum() * (rank + 1)).backward()
    assert own.grad is not None
    bools = gather(torch.tensor([True, False]))
    return {
        "gathered": gathered.detach(),
        "gradient": own.grad,
        "bools": bools,
        "rank": torch.tensor(gather.rank),
    }


def refused(rank: int, gather: Gather) -> dict[str, Tensor]:
    """The messages of tensors that differ between ranks, as bytes."""
    cases = {
        "rows": torch.zeros(3 + rank, 2),
        "axes": torch.zeros((2, 3) if rank else (2, 3, 1)),
        "dtype": torch.zeros(2, dtype=torch.float64 if rank else torch.float32),
    }
    messages = {}
    for case, tensor in cases.items():
        try:
            gather(tensor)
        except ShapeError as error:
            messages[case] = torch.tensor(list(str(error).encode()), dtype=torch.uint8)
    return messages


def run_worker(rank: int, num_ranks: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=num_ranks,
        timeout=datetime.timedelta(minutes=5),
    )
    gather = all_gather_with_gradient()
    found = {name: step(name, rank=rank, num_ranks=num_ranks, gather=gather) for name in sorted(LOSSES)}
    found["targets"], found["expected_targets"] = targets(rank, gather)
    found["raw"], found["refused"] = raw(rank, gather), refused(rank, gather)
    for name, tensors in found.items():
        stored = {key: value.detach().contiguous() for key, value in tensors.items()}
        save_file(stored, str(Path(folder) / f"{rank}-{name}.safetensors"))
    dist.destroy_process_group()
