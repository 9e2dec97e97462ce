"""What becomes of every command of the pages in tests: executed, executed smaller, or why it cannot be.

A command that stands on a page and not here fails `test_commands`, and so does one that stands here and on no page.
"""

from dataclasses import dataclass
from typing import Literal

Walk = Literal["photos", "demo", "sets", "trainings"]
INLINE = "--engine inline"
"""Without Ray, which costs a minute and has tests of its own."""
ONE_STEP = (
    "--set loop.num_steps=1 --set loop.warmup_steps=0 --set input.world.scenes=4 --set program.batch_size=2"
)


@dataclass(frozen=True)
class Executed:
    """A step of a walk. Steps run in the order of this table, those of a walk in one folder."""

    walk: Walk
    text: str
    """As it stands on the page, without comment, folder of the environment and gaps."""
    more: str = ""
    """Words that are added: what makes it small."""
    instead: str = ""
    """What is executed in its place; empty: the text."""
    code: int = 0
    """Exit code that is expected."""

    @property
    def words(self) -> str:
        """What is executed."""
        return f"{self.instead or self.text} {self.more}".strip()


EXECUTED = (
    # README.md: a folder with three photos.
    Executed("photos", "cp jobs/recipes/my_photos.yaml ."),
    Executed("photos", "ovsops plan my_photos.yaml"),
    Executed("photos", "ovsops plan my_photos.yaml --engine inline --sample 64 --out plan/"),
    Executed("photos", "ovsops run my_photos.yaml --engine inline"),
    Executed("photos", "ovsops report runs/my_photos"),
    Executed("photos", "ovsops status runs/my_photos"),
    Executed("photos", "ovsops retry runs/my_photos --engine inline"),
    Executed("photos", "ovsops export runs/my_photos --to coco --out coco/"),
    Executed(
        "photos",
        "ovsops run my_photos.yaml --engine inline --set output=runs/second --set segmenter.threshold=0.01",
    ),
    Executed(
        "photos", "ovsops diff runs/my_photos runs/second", code=3
    ),  # over the limits: all labels are gone
    Executed("photos", "ovsops audit runs/my_photos --out audit/"),
    Executed("photos", "ovsops review runs/my_photos --budget 200 --out queue.csv"),
    Executed("photos", "python -m jobs.codes_page"),
    # The demo, in a folder of its own, and what reads its output.
    Executed("demo", "make demo", f"--scenes 3 {INLINE}", instead="ovsops demo --out demo-out"),
    Executed("demo", "ovsops demo --scenes 8", INLINE, instead="ovsops demo --scenes 3"),
    Executed("demo", "ovsops run jobs/recipes/evaluate_miniature.yaml", "--set bootstrap.num_resamples=20"),
    # Drawn scenes in demo-out/shards: instances, negatives, sets. The label run is copied to where pages have theirs.
    Executed("sets", "ovsops run jobs/recipes/label_instances_miniature.yaml", INLINE),
    Executed("sets", "ovsops run jobs/recipes/negatives_miniature.yaml", INLINE),
    Executed("sets", "ovsops run jobs/recipes/dataset_miniature.yaml", INLINE),
    Executed("sets", "ovsops run jobs/recipes/mine_miniature.yaml", INLINE),
    Executed("sets", "ovsops overlay runs/first --out overlays"),
    Executed("sets", "ovsops audit runs/first --out audit --rows 300"),
    Executed(
        "sets",
        "ovsops audit runs/first --filled audit/audit.csv --quality 0.95 --alpha 0.05 --calibrator calibrator.json",
        code=6,  # one row in four is filled in as wrong
    ),
    Executed("sets", "ovsops report runs/first"),
    Executed("sets", "ovsops review runs/first --budget 200 --out queue.csv"),
    Executed("sets", "ovsops diff runs/monday runs/tuesday"),
    Executed("sets", "ovsops review runs/tuesday --budget 200 --out queue.csv"),
    # One step each. Towers that an earlier training would have made are those that ship.
    Executed("trainings", "ovsops run jobs/recipes/train_siglip2_miniature.yaml", ONE_STEP),
    Executed("trainings", "ovsops run jobs/recipes/train_dinov2_miniature.yaml", ONE_STEP),
    Executed("trainings", "ovsops run jobs/recipes/train_clip_miniature.yaml", ONE_STEP),
    Executed("trainings", "ovsops run jobs/recipes/train_dino_miniature.yaml", ONE_STEP),
    Executed("trainings", "ovsops run jobs/recipes/train_llmdet_miniature.yaml", ONE_STEP),
    Executed(
        "trainings",
        "ovsops run jobs/recipes/train_llmdet_miniature.yaml --set program.told_absent=false --set loop.num_steps=2400"
        " --set output=train-out/careless",
        f"{ONE_STEP} --set program.cells_only_steps=0",
    ),
    Executed("trainings", "ovsops run jobs/recipes/train_sam3_miniature.yaml", ONE_STEP),
    Executed("trainings", "ovsops run jobs/recipes/train_fgclip2_stage1_miniature.yaml", ONE_STEP),
    Executed(
        "trainings",
        "ovsops run jobs/recipes/train_mapper_regions_miniature.yaml",
        f"{ONE_STEP} --set program.siglip.source=miniature:siglip2 --set program.dino.source=miniature:dinov2",
    ),
)

BY_ANOTHER_TEST = {
    "make test": "what runs this",
    "make nightly": "what runs this",
    "make photos": "tests/jobs/test_demo_photos.py",
    "make compare": "tests/jobs/test_compare.py",
    "pytest tests/golden": "a part of make test",
    "pytest tests/ovsops/backbones": "a part of make test",
    "pytest tests/infra tests/docs": "a part of make test",
    "pytest -m nightly tests/infra": "a part of make nightly",
    "python -m jobs.compare my_label.yaml --evaluate my_truth.yaml --segmenters fused scclip my/cass.yaml --out"
    " runs/compare": "tests/jobs/test_compare.py",
    "PYTHON=.venv/bin/python infra/local_cluster.sh jobs/recipes/demo.yaml --set output=demo-out/on-two-nodes"
    " --set segment_on.actors=2 --set segment_on.num_cpus=1.2": "tests/infra/test_scripts.py",
}
"""Executed there; the files must exist."""

NOT_HERE = {
    "git clone": "this repository has no address of its own",
    "cd ovsops": "the shell's own",
    "make miniature": "hours; tests/jobs/test_ship_miniature.py checks its chain of recipes",
    "pip install": "needs a registry; extras are compared with pyproject.toml",
    "python -m pip install": "likewise",
    "hf download": "needs the hub",
    "ovsops convert-mapper vitb_mlp_infonce.pth checkpoints/mapper/mapper.safetensors": "the file is published"
    " elsewhere; tests/ovsops/mapper/test_convert.py converts one like it",
    "ovsops plan jobs/recipes/label_fused.yaml": "needs the published weights; its words and fields are checked",
    "docker ": "needs Docker; tests/infra/test_images.py reads the files",
    "helm ": "needs a cluster",
    "kubectl ": "needs a cluster; files that are named must exist, tests/infra/test_manifests.py validates them",
    "sed -i.bak": "changes files of this tree; what it looks for must be there",
    "export RAY_AUTH_MODE": "needs a cluster",
    "ray job submit": "needs a cluster; tests/infra/test_scripts.py submits to two local nodes",
    "sbatch ": "needs Slurm; tests/infra/test_scripts.py reads the script",
}
"""By beginning, with the reason. What follows an `ovsops` in them is checked as every line is."""

BENCHMARKS: dict[str, str | None] = {
    "blind_negatives": "FILE --bag-only --max-rows 60",
    "box_quality": "--scenes 4 --fit-scenes 20 --only nouns",
    "caption_quality": "--tune 3 --scenes 3",
    "cass": "--rounds 1 --image-rounds 1 --only-graphs",
    "check_negatives": "FILE --level hard --show 1",
    "clip_quality": "--scenes 8 --only retrieval,patches",
    "compare_runs": "RUN --times 2 3",
    "decode_pool": "--images 20 --rounds 1 --workers 1",
    "detector_quality": "--scenes 3",
    "fgclip2_quality": "--scenes 8",
    "full_size": None,  # writes 2 GB of weights
    "instances": "--num 50 --side 256",
    "label_job": None,  # starts Ray several times
    "loop_closed": None,  # trains for hours
    "loop_closed_sets": None,  # draws and labels 1,200 scenes
    "loop_closed_start": None,  # needs a checkpoint after stage 1
    "mapper_stages": None,  # trains ten mappers
    "memory": None,  # starts Ray several times
    "miniature_quality": "--scenes 8 --only retrieval",
    "mining": "--rows 256 --width 16 --query-rows 32 --block-rows 64",
    "negative_validators": "--scenes 16 --tune 16",
    "negatives": "--captions 1000 --fitted 50",
    "negatives_job": "--regions 40 --validators none",
    "patches": None,  # plain transcriptions of formulas at full size: minutes
    "plan_forecast": None,  # plans and runs 2,000 scenes
    "report": "--images 60 --images-per-shard 30 --folder FOLDER",
    "rle": "--rounds 1",
    "sam3": "--prompts 2 --rounds 1",
    "sample_negatives": "FILE --count 5",
    "scclip": "--grid 6 --rounds 1 --width 16 --heads 2 --text-width 8",
    "segmenters": "--scenes 2 --only segmenters",
    "text_ensemble": "--classes 1 --templates 2 --rounds 1 --width 64 --layers 1",
    "world": "--scenes 4",
    "world_negatives": "OUT --scenes 40",
}
"""Words that make a benchmark small, or none, with the reason: then its words on the pages are checked alone."""
