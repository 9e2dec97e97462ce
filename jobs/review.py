"""`ovsops review RUN`: which labels people should look at first."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.diff import load_settings, say
from pipelines.counted import counted

if TYPE_CHECKING:
    from pipelines.review.queue import ReviewQueue

_SHOWN = 5


def review(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder or s3:// of a run.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Ends in .csv or .jsonl.", show_default=False)
    ],
    budget: Annotated[int | None, typer.Option(help="Labels in the queue. Default: 200.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.yaml", help="Fields of the queue.")
    ] = None,
    overrides: Annotated[
        list[str],
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: --set class_values.dog=3."),
    ] = [],  # noqa: B006  typer copies it
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="S3 server, where the run is not on AWS.")
    ] = None,
) -> int:
    """Make a review queue: uncertain labels that stand for many, of classes that matter, with reasons."""
    from dataclasses import replace

    from ovsops.errors import ConfigError
    from pipelines.review.config import ReviewConfig
    from pipelines.review.queue import make_queue, queue_to_bytes
    from pipelines.storage import StorageOptions, open_storage
    from pipelines.writers.whole_files import write_whole

    if out.suffix.lower() not in (".csv", ".jsonl"):
        raise ConfigError(f"--out {out}: give a file that ends in .csv or .jsonl")
    settings: ReviewConfig = load_settings(ReviewConfig, config, overrides)
    if budget is not None:
        settings = replace(settings, budget=budget)
    queue = make_queue(open_storage(run, StorageOptions(s3_endpoint=endpoint_url)), settings)
    write_whole(out, queue_to_bytes(list(queue.rows()), out.suffix.lower()))
    say(_lines(queue, settings.budget, out))
    return 0


def _lines(queue: "ReviewQueue", budget: int, out: Path) -> Iterator[str]:
    chosen = queue.chosen
    yield f"{len(chosen)} of {counted(queue.labels, 'labels')} in {out}, the one of highest priority first"
    if len(chosen) < budget:
        yield (
            f"fewer than the budget of {budget}: {counted(queue.candidates, 'labels leave')} any doubt,"
            f" {counted(queue.doubles, 'doubles')} and what is over max_per_image are left out"
        )
    classes = Counter(each.class_name for each in chosen)
    if classes:
        yield f"classes: {', '.join(f'{name} {count}' for name, count in classes.most_common(8))}"
    for rank, row in zip(range(1, _SHOWN + 1), queue.rows(), strict=False):
        yield f"  {rank}. {row['class']} in {row['shard']} {row['key']}: {'; '.join(row['reasons'])}"
