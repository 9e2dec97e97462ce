"""Which images of a set a step sees: batches of one language, and of one bucket of patches as far as that fills them.

Axes: N images, B images of a whole batch (all workers').
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from ovsops.errors import TrainingError
from ovsops.training.scenes import step_generator


class SetOrder:
    """A new order every epoch, no image twice in one; a function of seed and step.

    In an epoch the images of each group (language and bucket) are shuffled and cut into batches. What is left of the
    groups of a language is cut together; fewer than a batch of each language are left out, others in each epoch.
    """

    def __init__(
        self, *, languages: Sequence[str], buckets: Int64[np.ndarray, " N"], whole: int, seed: int
    ) -> None:
        """`whole` is the batch of all workers. Raises TrainingError where the images of a language do not fill one."""
        self.whole, self.seed = whole, seed
        spoken = np.asarray(languages, np.str_)
        self.groups = {
            (str(language), int(bucket)): torch.from_numpy(places)
            for language in np.unique(spoken)
            for bucket in np.unique(buckets)
            if len(places := ((spoken == language) & (buckets == bucket)).nonzero()[0])
        }
        counts = Counter(languages)
        few = {language: count for language, count in sorted(counts.items()) if count < whole}
        if few or not counts:
            told = ", ".join(f"{count} images of language {language}" for language, count in few.items())
            raise TrainingError(
                f"{told or 'no image'} in the set, which does not fill one batch of {whole} (program.batch_size times "
                "workers), so that they would never be seen: take a smaller batch, more images, or "
                "program.set_regions.mix_languages"
            )
        self.per_epoch = sum(count // whole for count in counts.values())
        self._epoch = -1
        self._batches: list[Int[Tensor, " B"]] = []

    def batch(self, step: int) -> Int[Tensor, " B"]:
        """Places of the images of a step."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._batches, self._epoch = self._shuffled(epoch), epoch
        return self._batches[number]

    def _shuffled(self, epoch: int) -> list[Int[Tensor, " B"]]:
        generator = step_generator(self.seed, epoch)
        batches: list[Tensor] = []
        rest: dict[str, list[Tensor]] = defaultdict(list)
        for (language, _), places in self.groups.items():
            shuffled = places[torch.randperm(len(places), generator=generator)]
            num_whole = len(shuffled) // self.whole * self.whole
            batches += shuffled[:num_whole].split(self.whole) if num_whole else ()
            rest[language].append(shuffled[num_whole:])
        for parts in rest.values():
            together = torch.cat(parts)
            together = together[torch.randperm(len(together), generator=generator)]
            num_whole = len(together) // self.whole * self.whole
            batches += together[:num_whole].split(self.whole) if num_whole else ()
        return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]
