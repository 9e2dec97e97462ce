"""What a plan says of its forecast, in words and in a table."""

from collections.abc import Callable, Iterator

from jobs.label_recipe import LabelRecipe
from jobs.plan import ImageCount, readable
from jobs.plan_forecast import Forecast
from jobs.progress import duration
from pipelines.counted import counted
from pipelines.forecast import Estimate, StageTime
from pipelines.storage import scheme_of

_MONEY = {
    "gpu": "cost of GPUs",
    "cpu": "cost of cores",
    "review": "cost of review",
    "once": "cost in all",
    "storage_month": "cost of storage a month",
}


def number(value: float) -> str:
    """Three digits, thousands apart: `12,300`, `1.23`, `0.0123`."""
    if value == float("inf"):
        return "any"
    if abs(value) >= 100:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def ranged(estimate: Estimate, show: Callable[[float], str] = number) -> str:
    """`12 (10 to 15)`."""
    if estimate.low == estimate.high:
        return show(estimate.value)
    return f"{show(estimate.value)} ({show(estimate.low)} to {show(estimate.high)})"


def stage_rows(forecast: Forecast) -> Iterator[tuple[str, ...]]:
    """The table of stages, its head first; parts of the models below them."""
    yield "stage", "ms an image", "workers", "images/s each", "images/s in all"
    for stage in forecast.stages:
        yield _row(stage, is_slowest=stage is forecast.bottleneck)
        if "models" in stage.name:
            if stage.name != "models":
                yield "  models alone", number(forecast.times.models.value * 1000), "", "", ""
                yield "  decoders alone", number(forecast.times.decode.value * 1000), "", "", ""
            for name, seconds in forecast.times.parts.items():
                yield f"  {name}", number(seconds * 1000), "", "", ""


def _row(stage: StageTime, *, is_slowest: bool) -> tuple[str, ...]:
    whole = stage.throughput
    return (
        f"{stage.name}{' <- slowest' if is_slowest else ''}",
        number(stage.seconds.value * 1000),
        "as there is room" if stage.workers is None else number(stage.workers),
        number(stage.per_worker.value),
        "" if whole is None else ranged(whole),
    )


def forecast_facts(forecast: Forecast, recipe: LabelRecipe, images: ImageCount) -> Iterator[tuple[str, str]]:
    """Speed, time, hours, disk, labels: with 95 % intervals of the sample."""
    how = (
        f"stages side by side, {counted(recipe.segment_on.actors, 'actors')}"
        if forecast.engine == "ray"
        else "one process, stages in turn"
    )
    yield "speed", f"{ranged(forecast.rate)} images/s ({forecast.engine}: {how})"
    yield "slowest stage", forecast.slowest
    start = f"start-up {ranged(forecast.start_up, duration)}"
    if forecast.engine == "ray":
        start += ", of which Ray's own is not measured"
    number_of = images.says if images.archives else f"{number(forecast.work.images)} images"
    yield "time", f"{ranged(forecast.seconds, duration)} for {number_of}; {start}"
    needs = forecast.needs
    if needs.gpu_hours.high:
        yield "GPU hours", f"{ranged(needs.gpu_hours)} held"
    yield "core hours", f"{ranged(needs.cpu_hours)} held"
    yield "disk", f"{ranged(needs.stored_bytes, readable)} when it is done"
    yield "labels", f"{ranged(forecast.labels)} regions, of which {ranged(forecast.reviews)} for review"
    if needs.review_minutes is not None:
        yield "review", f"{ranged(needs.review_minutes * (1 / 60))} hours of people"
    if forecast.questions is not None:
        yield "questions", f"{ranged(forecast.questions)} to the endpoint"
    yield "not in these", "; ".join(_left_out(forecast, recipe, images))


def _left_out(forecast: Forecast, recipe: LabelRecipe, images: ImageCount) -> Iterator[str]:
    yield "another load of the machine than now"
    if images.archives:
        yield "how sure the number of images is"
    if forecast.questions is not None:
        yield "the endpoint, its time and its price: the sample asked nothing"
    if scheme_of(recipe.output) != "file":
        yield "writing to object storage: parts were written to a local disk"
    if forecast.engine == "ray" and recipe.ray.address != "local":
        yield "other devices in the cluster: everything was timed on this machine"


def money_facts(forecast: Forecast) -> Iterator[tuple[str, str]]:
    """Money for what has a price."""
    for name, says in _MONEY.items():
        if name in forecast.money:
            yield says, ranged(forecast.money[name])
