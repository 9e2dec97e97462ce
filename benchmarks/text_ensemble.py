"""Text features of a vocabulary: one prompt at a time, beside distinct prompts in cut batches, and the cache.

python -m benchmarks.text_ensemble [--classes 4] [--templates 40] [--rounds 3] [--threads 1] [--width 512] [--layers 12]

The tower is CLIP B/16's in shape with random weights; words are single tokens, as common words are in CLIP's own
tokenizer. Rounds are interleaved and medians are printed. Exit status 1 when batches are not at least 5 times faster.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.clip import ClipText
from ovsops.backbones.untrained import write_random_model
from ovsops.text.cache import TextFeaturesCache
from ovsops.text.prompts import class_prompts
from ovsops.text.templates import load_templates
from ovsops.text.vocabulary import ClassSpec, Vocabulary

NAMES = ("cat", "dog", "car", "tree", "house", "horse", "boat", "chair", "table", "bird", "road", "sky")
SPECIALS = ("<unk>", "<|startoftext|>", "<|endoftext|>")
FULL_LENGTH = 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--templates", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vocabulary = Vocabulary(
        name="benchmark",
        languages=("en",),
        templates={"en": load_templates("imagenet_80")[: options.templates]},
        classes=tuple(ClassSpec(id=i, name=name) for i, name in enumerate(NAMES[: options.classes], 1)),
    )
    table = class_prompts(vocabulary)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tower = write_tower(folder / "clip", table.sentences, width=options.width, layers=options.layers)
        cache = TextFeaturesCache(folder / "cache")

        def ours() -> torch.Tensor:
            return tower.encode(table.sentences).embeddings

        def cached() -> torch.Tensor:
            arrays = cache.get_or_compute(table, "benchmark", lambda: {"text": ours().numpy()})
            return torch.from_numpy(arrays["text"])

        ways: dict[str, Callable[[], torch.Tensor]] = {
            "one prompt at a time, full length": lambda: one_by_one(tower, table.sentences),
            "distinct prompts, cut batches": ours,
            "from the cache": cached,
        }
        cached()  # fills it
        seconds = measure(ways, rounds=options.rounds)
    lengths = [len(ids) for ids in tower.tokenizer(table.sentences)]
    print(
        f"{len(table.sentences)} prompts of {min(lengths)} to {max(lengths)} tokens, tower of width "
        f"{options.width} and {options.layers} layers, {options.threads} thread(s), "
        f"medians of {options.rounds} interleaved rounds"
    )
    slow, fast, _ = (statistics.median(values) for values in seconds.values())
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:36} {median * 1000:9.1f} ms   {slow / median:8.1f} x   (min {min(values) * 1000:.1f})")
    sys.exit(0 if slow / fast >= 5 else 1)


def measure(ways: dict[str, Callable[[], torch.Tensor]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of every way, one after the other in each round; all must give the same embeddings."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    expected: np.ndarray | None = None
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            embeddings = way().numpy()
            seconds[name].append(time.perf_counter() - started)
            expected = embeddings if expected is None else expected
            np.testing.assert_allclose(embeddings, expected, rtol=1e-3, atol=1e-3)
    return seconds


def one_by_one(tower: ClipText, prompts: Sequence[str]) -> torch.Tensor:
    """The plain loop."""
    return torch.cat([tower.embed_ids(tower.tokenizer([p]), pad_to=FULL_LENGTH) for p in prompts])


def write_tower(folder: Path, prompts: Sequence[str], *, width: int, layers: int) -> ClipText:
    """A random text tower and a tokenizer that knows the words of the prompts."""
    splitter = pre_tokenizers.Whitespace()
    words = sorted({word for p in prompts for word, _ in splitter.pre_tokenize_str(p.lower())})
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate((*SPECIALS, *words))}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
        max_position_embeddings=FULL_LENGTH,
    )
    write_random_model(CLIPTextModelWithProjection(config), folder, seed=0)
    tokenizer.save(str(folder / "tokenizer.json"))
    return ClipText(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=torch.float32)


if __name__ == "__main__":
    main()
