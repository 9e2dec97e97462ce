"""Shared by all tests: a clean environment, one local Ray, seeds."""

import os

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
)
for name in ("RAY_ADDRESS", "OVSOPS_CACHE", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
    os.environ.pop(name, None)

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None, max_examples=60)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One private Ray for the whole session: each start costs seconds."""
    import tempfile

    import ray

    with tempfile.TemporaryDirectory(prefix="ovs", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=3,
            object_store_memory=300 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
