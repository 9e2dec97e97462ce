"""Speed and memory of the rule generator on made captions, one process.

python -m benchmarks.negatives [--captions 1000000] [--level hard] [--language en] [--distinct 20000]

Captions are put together at random from the lexicon's usual words: colour, material, pattern, size and
thing. Reports captions per CPU-second, the share with ten negatives, and resident memory after each tenth.
Exit 1 under 5,000 a second.
"""

import argparse
import resource
import sys
import time

import numpy as np
import psutil

from ovsops.negatives.config import LEVELS, NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.lexicon import LANGUAGES, Language, load_lexicon
from ovsops.negatives.sampler import Negatives, fit_sampler

FLOOR = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--level", choices=LEVELS, default="hard")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--fitted", type=int, default=1_000, help="captions that the balance is found on")
    options = parser.parse_args()
    sample = CorpusSample()
    for i, caption in enumerate(made_captions(options.language, 20_000, seed=1)):
        sample.add(caption, options.language, str(i))
    started = time.process_time()
    sampler = fit_sampler(sample, NegativeConfig(level=options.level, max_fitted=options.fitted))
    print(f"fitted on {options.fitted} captions in {time.process_time() - started:.1f} CPU-s")
    num_made, spent, resident = 0, 0.0, []
    chunk = max(1, options.captions // 10)
    for part in range(10):
        captions = made_captions(options.language, chunk, seed=100 + part)
        started = time.process_time()
        for i, caption in enumerate(captions):
            answer = sampler.negatives_for(caption, options.language, key=f"{part}-{i}")
            num_made += isinstance(answer, Negatives)
        spent += time.process_time() - started
        resident.append(psutil.Process().memory_info().rss / 2**20)
        num = (part + 1) * chunk
        print(f"{num:>9} captions, {num / spent:8.0f} a CPU-second, {resident[-1]:.0f} MiB")
    rate = 10 * chunk / spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rate:.0f} captions a CPU-second, {num_made / (10 * chunk):.2%} with ten {options.level} negatives;"
        f" memory grew by {resident[-1] - resident[1]:.0f} MiB after the second tenth, peak {peak:.0f} MiB"
    )
    sys.exit(0 if rate >= FLOOR else 1)


def made_captions(language: Language, count: int, *, seed: int) -> list[str]:
    """Captions of usual words: a thing with one to three attributes."""
    generator = np.random.default_rng(seed)
    lexicon = load_lexicon(language)
    drawn: dict[str, list[str]] = {}
    for name in ("size", "colour", "pattern", "material", "object"):
        kind = lexicon.types[name]
        weights = kind.expected * (kind.expected > 0.02)
        if name == "object":
            singular = [not any(role[0] == "p" for role in term.roles) for term in kind.terms]
            weights = weights * (singular if language == "en" else 1)
        places = generator.choice(len(kind.terms), size=count, p=weights / weights.sum())
        drawn[name] = [kind.terms[p].surface for p in places.tolist()]
    says = generator.random((count, 4)) < np.array([0.25, 0.9, 0.2, 0.7])
    captions = []
    for i, (size, colour, pattern, material) in enumerate(says.tolist()):
        words = [
            drawn[name][i]
            for name, is_said in (
                ("size", size),
                ("colour", colour or not material),
                ("pattern", pattern),
                ("material", material),
            )
            if is_said
        ]
        if language == "zh":
            captions.append("".join(words) + "的" + drawn["object"][i])
        else:
            phrase = " ".join([*words, drawn["object"][i]])
            captions.append(f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}")
    return captions


if __name__ == "__main__":
    main()
