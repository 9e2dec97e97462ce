"""Weights: pinned, hashed, safetensors only."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2WithRegistersModel, SiglipVisionModel

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, load_pretrained, resolve
from ovsops.errors import CheckpointError, ConfigError

COMMIT = "0" * 40


@pytest.mark.parametrize("revision", ["main", "v1", "abc123", "0" * 39, "G" * 40])
def test_a_revision_that_may_move_is_refused(revision: str) -> None:
    with pytest.raises(ConfigError, match="full 40-hex commit"):
        Checkpoint(source="owner/name", revision=revision)


def test_a_hub_repository_needs_a_revision() -> None:
    with pytest.raises(CheckpointError, match="needs `revision`"):
        resolve(Checkpoint(source="owner/name"))


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(CheckpointError, match="/no/such/folder: no such folder"):
        resolve(Checkpoint(source="/no/such/folder"))


def test_offline_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        resolve(Checkpoint(source="owner/name", revision=COMMIT))


def test_a_cached_revision_is_found_offline(
    siglip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    shutil.copytree(siglip_folder, snapshot)
    found = resolve(Checkpoint(source="owner/name", revision=COMMIT))
    assert found.identity.startswith(f"owner/name@{COMMIT} sha256:")
    assert found.sha256 == resolve(Checkpoint(source=str(siglip_folder))).sha256


def test_a_preset_stands_for_its_repository(
    siglip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(
        siglip_folder, tmp_path / "models--google--siglip2-base-patch16-512" / "snapshots" / COMMIT
    )
    found = resolve(Checkpoint(source="siglip2-base-patch16-512", revision=COMMIT))
    assert found.identity.startswith(f"google/siglip2-base-patch16-512@{COMMIT} sha256:")
    with pytest.raises(CheckpointError, match="needs `revision`"):
        resolve(Checkpoint(source="siglip2-base-patch16-512"))


def test_pickle_only_folders_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only pickle weights \(pytorch_model.bin\)"):
        resolve(Checkpoint(source=str(tmp_path)))
    with pytest.raises(CheckpointError, match="convert it once"):
        resolve(Checkpoint(source=str(tmp_path / "pytorch_model.bin")))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        resolve(Checkpoint(source=str(tmp_path)))


def test_a_local_path_takes_no_revision(siglip_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="has no revision"):
        resolve(Checkpoint(source=str(siglip_folder), revision=COMMIT))


def test_sha256_is_of_the_content_not_of_the_place(siglip_folder: Path, tmp_path: Path) -> None:
    sha256 = resolve(Checkpoint(source=str(siglip_folder))).sha256
    copy = shutil.copytree(siglip_folder, tmp_path / "copy")
    assert resolve(Checkpoint(source=str(copy), sha256=sha256)).sha256 == sha256
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(CheckpointError, match="these are other weights"):
        resolve(Checkpoint(source=str(copy), sha256=sha256))


def test_a_changed_config_is_another_checkpoint(siglip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(siglip_folder, tmp_path / "copy")
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert (
        resolve(Checkpoint(source=str(copy))).sha256 != resolve(Checkpoint(source=str(siglip_folder))).sha256
    )


def test_weights_that_do_not_fit_are_named(siglip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(siglip_folder, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    del tensors["vision_model.post_layernorm.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 parameters missing \(.*post_layernorm\.weight\)"):
        load_pretrained(
            SiglipVisionModel, resolve(Checkpoint(source=str(copy))), device="cpu", dtype=torch.float32
        )


def test_a_wrong_shape_is_named(siglip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(siglip_folder, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    tensors["vision_model.post_layernorm.weight"] = torch.ones(7)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"post_layernorm\.weight"):
        load_pretrained(
            SiglipVisionModel, resolve(Checkpoint(source=str(copy))), device="cpu", dtype=torch.float32
        )


def test_a_damaged_file_is_an_error_of_ours(siglip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(siglip_folder, tmp_path / "copy")
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_pretrained(
            SiglipVisionModel, resolve(Checkpoint(source=str(copy))), device="cpu", dtype=torch.float32
        )


def test_models_arrive_frozen_in_eval_mode(dinov2_checkpoint: ResolvedCheckpoint) -> None:
    model = load_pretrained(Dinov2WithRegistersModel, dinov2_checkpoint, device="cpu", dtype=torch.float32)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_published_names_of_dinov2_load(dinov2_checkpoint: ResolvedCheckpoint, tmp_path: Path) -> None:
    """The hub's files name attention.attention.query and so on; transformers renames them on loading."""
    names = (
        ("q_proj", "attention.query"),
        ("k_proj", "attention.key"),
        ("v_proj", "attention.value"),
        ("o_proj", "output.dense"),
    )
    shutil.copy(dinov2_checkpoint.folder / "config.json", tmp_path)
    published = {}
    for name, tensor in load_file(dinov2_checkpoint.folder / "model.safetensors").items():
        for new, old in names:
            name = name.replace(f"attention.{new}", f"attention.{old}")
        published[name] = tensor
    save_file(published, tmp_path / "model.safetensors", metadata={"format": "pt"})
    old = load_pretrained(
        Dinov2WithRegistersModel, resolve(Checkpoint(source=str(tmp_path))), device="cpu", dtype=torch.float32
    )
    new = load_pretrained(Dinov2WithRegistersModel, dinov2_checkpoint, device="cpu", dtype=torch.float32)
    for (name, a), (_, b) in zip(old.named_parameters(), new.named_parameters(), strict=True):
        assert torch.equal(a, b), name
