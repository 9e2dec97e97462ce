"""Dense self-distillation over texts: where a crop lies in its view, and what the loss asks for."""

import math

import pytest
import torch

from ovsops.errors import ShapeError
from ovsops.losses.class_distillation import class_distillation_loss, class_similarity, sample_at_crops

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_similarity_by_hand() -> None:
    patches = torch.tensor([[[[3.0, 0.0], [1.0, 1.0]]]])  # 1 1 2 2
    found = class_similarity(patches, torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -1.0]]))
    half = math.sqrt(0.5)
    torch.testing.assert_close(found, torch.tensor([[[[1.0, half]], [[0.0, half]], [[0.0, -half]]]]))


def test_the_whole_view_is_itself_and_a_mirrored_crop_is_mirrored() -> None:
    maps = random(1, 3, 4, 5)
    torch.testing.assert_close(sample_at_crops(maps, WHOLE, (4, 5)), maps)
    mirrored = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(sample_at_crops(maps, mirrored, (4, 5)), maps.flip(3))


def test_a_crop_on_the_grid_is_a_slice() -> None:
    """Columns 2-3 of 8 and rows 3-5 of 6, patch for patch; each image has its own crop."""
    maps = random(2, 2, 6, 8)
    crops = torch.tensor([[2 / 8, 3 / 6, 4 / 8, 6 / 6], [5 / 8, 0.0, 7 / 8, 3 / 6]], dtype=torch.float64)
    sampled = sample_at_crops(maps, crops, (3, 2))
    torch.testing.assert_close(sampled[0], maps[0, :, 3:6, 2:4])
    torch.testing.assert_close(sampled[1], maps[1, :, 0:3, 5:7])


def test_a_ramp_is_read_at_the_patch_centres() -> None:
    """Values are the x of patch centres, 0.125 to 0.875: inside, bilinear reads x back; at the border it is held."""
    ramp = ((torch.arange(4) + 0.5) / 4).expand(1, 1, 4, 4)
    crop = torch.tensor([[0.0, 0.2, 0.8, 0.9]])
    sampled = sample_at_crops(ramp, crop, (2, 8))
    expected = (torch.arange(8) + 0.5) / 8 * 0.8
    torch.testing.assert_close(sampled[0, 0, 0], expected.clamp(min=0.125))
    torch.testing.assert_close(sampled[0, 0, 1], sampled[0, 0, 0])


def test_a_crop_outside_the_view_is_an_error() -> None:
    crops = torch.cat([WHOLE, torch.tensor([[0.0, 0.0, 14.0, 1.0]])])
    with pytest.raises(ShapeError, match=r"crop 1 is \[0.0, 0.0, 14.0, 1.0\], outside the global view"):
        sample_at_crops(torch.zeros(2, 1, 2, 2), crops, (2, 2))


def test_one_patch_by_hand() -> None:
    """Temperature 1: teacher (1/4, 3/4), student (1/2, 1/2): log 2 whatever the teacher."""
    teacher = torch.tensor([0.0, math.log(3)])[None, :, None, None]
    loss = class_distillation_loss(torch.zeros(1, 2, 1, 1), teacher, temperature=1.0)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_mask_chooses_places_and_images_weigh_the_same() -> None:
    student, teacher = random(3, 4, 2, 2), random(3, 4, 2, 2, seed=1)
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[0, 0, 1] = mask[1] = True
    one = class_distillation_loss(student[:1, :, :1, 1:], teacher[:1, :, :1, 1:])
    four = class_distillation_loss(student[1:2], teacher[1:2])
    torch.testing.assert_close(class_distillation_loss(student, teacher, mask=mask), (one + four) / 3)
    everywhere = torch.ones(3, 2, 2, dtype=torch.bool)
    expected = class_distillation_loss(student, teacher)
    torch.testing.assert_close(class_distillation_loss(student, teacher, mask=everywhere), expected)


def test_nothing_masked_is_zero_with_a_gradient_of_zero() -> None:
    student = random(2, 3, 2, 2).requires_grad_()
    loss = class_distillation_loss(student, random(2, 3, 2, 2), mask=torch.zeros(2, 2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_the_least_value_is_the_teachers_entropy() -> None:
    """Also: the order of classes does not matter, nor a shift of all of them."""
    teacher = random(2, 5, 3, 3).requires_grad_()
    student = (teacher.detach() + 2).requires_grad_()
    p = (teacher / 0.07).softmax(1)
    loss = class_distillation_loss(student, teacher)
    torch.testing.assert_close(loss, -(p * p.log()).sum(1).mean())
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-9
    assert teacher.grad is None
    order = torch.tensor([4, 2, 0, 1, 3])
    other = random(2, 5, 3, 3, seed=1)
    expected = class_distillation_loss(other, teacher)
    assert expected > loss
    torch.testing.assert_close(class_distillation_loss(other[:, order], teacher[:, order]), expected)


def test_a_uniform_teacher_and_one_class() -> None:
    uniform = class_distillation_loss(torch.zeros(1, 6, 2, 2), torch.full((1, 6, 2, 2), 0.4))
    assert uniform.item() == pytest.approx(math.log(6), abs=1e-6)
    assert class_distillation_loss(random(1, 1, 2, 2), random(1, 1, 2, 2)).item() == 0
    with pytest.raises(ShapeError, match="no mean"):
        class_distillation_loss(torch.zeros(0, 6, 2, 2), torch.zeros(0, 6, 2, 2))


def test_gradients_from_the_loss_to_patches_and_texts() -> None:
    patches, texts = random(2, 2, 2, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    crops = torch.tensor([[0.1, 0.0, 0.9, 0.7], [0.3, 0.2, 1.0, 1.0]], dtype=torch.float64)
    teacher = sample_at_crops(random(2, 4, 5, 5, seed=2), crops, (2, 2))
    assert torch.autograd.gradcheck(
        lambda p, t: class_distillation_loss(class_similarity(p, t), teacher, temperature=0.5),
        (patches, texts),
    )
    maps = random(2, 1, 3, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: sample_at_crops(m, crops, (2, 2)), (maps,))
