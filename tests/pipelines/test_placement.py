"""What could never run is found before it waits for ever."""

import pytest

from ovsops.errors import ConfigError
from pipelines.runner import Placement, RayConfig, cpu_shortage
from pipelines.stages.annotate import BatchConfig
from pipelines.summary import Limits


def test_shares_of_all_steps_and_one_reader_must_be_there() -> None:
    steps = (Placement(actors=2, num_cpus=1.0), Placement(actors=0, num_cpus=0.5))
    assert not cpu_shortage(RayConfig(num_cpus=3, read_cpus=0.5), steps)
    message = cpu_shortage(RayConfig(num_cpus=2, read_cpus=0.5), steps)
    assert "need 3 CPU shares at once, there are 2" in message
    assert not cpu_shortage(RayConfig(address="auto", num_cpus=None), steps)  # of a cluster nothing is known


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: BatchConfig(max_images=0), "batch.max_images is 0"),
        (lambda: BatchConfig(decode_timeout_s=-1.0), "batch.decode_timeout_s"),
        (lambda: Limits(max_failed_share=2.0), r"limits.max_failed_share is 2.0; a share lies in \[0, 1\]"),
        (lambda: Limits(max_damaged_shards=-1), "limits.max_damaged_shards"),
        (lambda: RayConfig(num_cpus=0), "ray.num_cpus is 0"),
        (lambda: RayConfig(object_store_mib=1), "ray.object_store_mib"),
        (lambda: RayConfig(start_timeout_s=0.0), "ray.start_timeout_s"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make: object, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()  # type: ignore[operator]
