"""From a recipe's `truth` to who knows the objects of an image."""

from pathlib import Path

from jobs.truth_recipe import CocoInstancesTruthConfig, WorldTruthConfig
from ovsops.text.vocabulary import Vocabulary
from pipelines.evaluation.coco_truth import CocoInstancesTruth
from pipelines.evaluation.truths import WorldShardsTruth, WorldTruth
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions


def find_object_truth(
    config: WorldTruthConfig | CocoInstancesTruthConfig,
    storage: StorageOptions,
    *,
    vocabulary: Vocabulary | None = None,
) -> WorldTruth | CocoInstancesTruth:
    """The truth, its files read. `vocabulary`: what the things of drawn scenes are called, where not by their noun."""
    if isinstance(config, CocoInstancesTruthConfig):
        return CocoInstancesTruth.open(Path(config.annotations).expanduser(), config.reading)
    if not config.shards:
        return WorldTruth(vocabulary)
    shards = expand_inputs(config.shards, storage)
    return WorldShardsTruth(shards, config.reader, storage, vocabulary)
