"""The sample of a corpus: bounded, fair, and the same however it was put together."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.errors import ConfigError
from ovsops.negatives.corpus import CorpusSample


def sample_of(keys: list[int], capacity: int = 8) -> CorpusSample:
    sample = CorpusSample(capacity=capacity)
    for key in keys:
        sample.add(f"caption {key % 5}", "en" if key % 3 else "zh", str(key))
    return sample


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 500), unique=True, max_size=60), st.integers(0, 60))
def test_parts_merge_to_the_whole_in_any_order(keys: list[int], cut: int) -> None:
    whole = sample_of(keys)
    one, two = sample_of(keys[:cut]), sample_of(keys[cut:][::-1])
    two.merge(one)
    assert two.to_plain() == whole.to_plain()
    assert len(whole.captions("en")) <= 8


def test_plain_data_comes_back() -> None:
    sample = sample_of(list(range(50)))
    again = CorpusSample.from_plain(json.loads(json.dumps(sample.to_plain())), where="file")
    assert again.digest() == sample.digest()
    assert again.num_seen == {"en": 33, "zh": 17}


def test_what_is_no_sample() -> None:
    with pytest.raises(ConfigError, match="capacity is 0"):
        CorpusSample(capacity=0)
    with pytest.raises(ConfigError, match="capacity 8 and 9 do not merge"):
        CorpusSample(capacity=8).merge(CorpusSample(capacity=9))
    with pytest.raises(ConfigError, match="file: format is 'x'"):
        CorpusSample.from_plain({"format": "x"}, where="file")
    with pytest.raises(ConfigError, match="file: no corpus sample"):
        CorpusSample.from_plain({"format": "ovsops-negatives-corpus-1"}, where="file")
