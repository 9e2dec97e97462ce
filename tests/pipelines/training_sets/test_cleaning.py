"""Groups, splits and filters: copies never cross splits, nothing depends on order, every drop has a reason."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ConfigError
from ovsops.images.phash import PictureHash
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.duplicates import DuplicateConfig, ImagePrint, group_images
from pipelines.training_sets.filters import FilterConfig, count_classes, filter_sample
from pipelines.training_sets.record import Split, TrainingSample
from pipelines.training_sets.splits import SplitConfig, assign_splits, split_of_group
from tests.pipelines.made_samples import make_region, make_sample

FAR = (0, 2**64 - 1, 0xFFFF0000FFFF0000)


def one(uid: str, sha: str, bits: int | None = None) -> ImagePrint:
    hashes = None if bits is None else PictureHash(bits, bits)
    return ImagePrint(image_uid=uid, sha256=sha, hashes=hashes)


def test_copies_and_look_alikes_are_joined_and_the_first_stays() -> None:
    prints = [
        one("b", "s1"),
        one("a", "s1"),
        one("c", "s0", FAR[0]),
        one("d", "s2", FAR[0] ^ 7),
        one("e", "s9", FAR[1]),
    ]
    groups = group_images(prints, DuplicateConfig())
    assert groups.group_of == {"a": "s1", "b": "s1", "c": "s0", "d": "s0", "e": "s9"}
    assert groups.dropped == {"b": "D_EXACT_DUPLICATE"}
    groups = group_images(prints, DuplicateConfig(drop_near=True))
    assert groups.dropped == {"b": "D_EXACT_DUPLICATE", "d": "D_NEAR_DUPLICATE"}
    drops = Drops()
    groups.count(drops)
    assert drops.to_plain() == {"D_EXACT_DUPLICATE": 1, "D_NEAR_DUPLICATE": 1}


def test_a_chain_is_one_group_and_keeps_its_ends() -> None:
    prints = [one("a", "s1", 0), one("b", "s2", 0xFF), one("c", "s3", 0xFFFF)]
    groups = group_images(prints, DuplicateConfig(max_bits=8, drop_near=True))
    assert len(set(groups.group_of.values())) == 1
    assert groups.dropped == {"b": "D_NEAR_DUPLICATE"}


def test_embeddings_join_what_hashes_do_not() -> None:
    prints = [one("a", "s1", FAR[0]), one("b", "s2", FAR[1]), one("c", "s3", FAR[2])]
    vectors = np.asarray([[1, 0], [0.6, 0.8], [1, 0]], np.float32)
    groups = group_images(prints, DuplicateConfig(min_cosine=0.99), vectors)
    assert groups.group_of == {"a": "s1", "b": "s2", "c": "s1"}
    with pytest.raises(ConfigError, match="one embedding an image, got 0 for 3"):
        group_images(prints, DuplicateConfig(min_cosine=0.9))


def test_a_uid_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="in the set twice"):
        group_images([one("a", "s"), one("a", "t")], DuplicateConfig())


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=12), st.randoms(use_true_random=False)
)
def test_the_order_of_images_changes_nothing(rows: list[tuple[int, int]], random: object) -> None:
    prints = [one(f"u{i}", f"s{sha}", (1 << bits) - 1) for i, (sha, bits) in enumerate(rows)]
    # equal bytes have equal hashes
    first = {p.sha256: p.hashes for p in reversed(prints)}
    prints = [ImagePrint(image_uid=p.image_uid, sha256=p.sha256, hashes=first[p.sha256]) for p in prints]
    shuffled = list(prints)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    config = DuplicateConfig(max_bits=4, drop_near=True)
    assert group_images(prints, config).dropped == group_images(shuffled, config).dropped
    assert group_images(prints, config).group_of == group_images(shuffled, config).group_of


def test_splits_are_shares_of_groups_and_do_not_move() -> None:
    config = SplitConfig(val=0.1, test=0.2)
    groups = {f"i{n}": f"g{n}" for n in range(5000)}
    splits = assign_splits(groups, config)
    counts = Counter(splits.values())
    assert abs(counts["test"] / 5000 - 0.2) < 0.02
    assert abs(counts["val"] / 5000 - 0.1) < 0.02
    more = assign_splits(groups | {f"j{n}": f"h{n}" for n in range(5000)}, config)
    assert all(more[image] == split for image, split in splits.items())
    assert assign_splits(groups, SplitConfig(val=0.1, test=0.2, salt="other")) != splits


def test_a_group_is_in_one_split() -> None:
    splits = assign_splits({f"i{n}": f"g{n % 7}" for n in range(100)}, SplitConfig(val=0.3, test=0.3))
    assert all(len({splits[f"i{n}"] for n in range(g, 100, 7)}) == 1 for g in range(7))


def test_known_images_stay_and_what_was_held_out_stays_held_out() -> None:
    config = SplitConfig(val=0, test=0)
    known: dict[str, Split] = {"a": "val", "b": "train", "c": "test", "gone": "test"}
    splits = assign_splits({"a": "g1", "b": "g2", "c": "g2", "new": "g1"}, config, known)
    assert splits == {"a": "val", "b": "test", "c": "test", "new": "val"}
    with pytest.raises(ConfigError, match="was in split 'dev'"):
        assign_splits({}, config, {"a": "dev"})  # type: ignore[dict-item]


def test_a_split_by_name_alone() -> None:
    assert split_of_group("x", SplitConfig(val=0, test=0.999999)) == "test"
    with pytest.raises(ConfigError, match="below 1 together"):
        SplitConfig(val=0.5, test=0.5)


def kept(sample: TrainingSample, **config: object) -> tuple[TrainingSample | None, dict[str, int]]:
    drops = Drops()
    defaults: dict[str, object] = {"min_side": 1, "min_region_side": 0.0, "min_region_share": 0.0}
    found = filter_sample(sample, FilterConfig(**defaults | config), drops)  # type: ignore[arg-type]
    return found, drops.to_plain()


def test_filters_of_images() -> None:
    sample = make_sample(1)
    assert kept(sample) == (sample, {})
    assert kept(sample, min_side=9) == (None, {"D_IMAGE_SMALL": 1})
    assert kept(sample, max_aspect=1.5) == (None, {"D_IMAGE_LONG": 1})
    assert kept(sample, licenses=("CC-BY",)) == (None, {"D_LICENSE": 1})
    assert kept(sample, licenses=(" CC0 ",)) == (sample, {})
    unknown = make_sample(0)
    assert kept(unknown, licenses=("CC-BY",)) == (unknown, {"N_LICENSE_UNKNOWN": 1})
    assert kept(unknown, unknown_license="drop") == (None, {"D_LICENSE_UNKNOWN": 1})


def test_filters_of_regions() -> None:
    small = make_region(3, box=(0.0, 0.0, 0.0625, 0.125), score=0.1, segmentation=None)
    sample = make_sample(1, regions=(*make_sample(1).regions, small))
    found, counts = kept(sample, min_region_side=2.0)
    assert found is not None
    assert found.regions == sample.regions[:2]
    assert counts == {"D_REGION_SMALL": 1}
    assert kept(sample, max_region_share=0.01) == (
        kept(sample, max_region_share=0.01)[0],
        {"D_REGION_LARGE": 2},
    )
    assert kept(make_sample(1), max_region_share=0.01) == (None, {"D_REGION_LARGE": 2, "D_NO_REGION": 1})


def test_frequent_classes_are_thinned_alike_in_any_order() -> None:
    samples = [make_sample(n) for n in range(400)]
    counts: Counter[int] = Counter()
    for sample in samples:
        count_classes(sample, counts)
    assert counts == {3: 800}
    config = FilterConfig(min_side=1, min_region_side=0.0, min_region_share=0.0, max_per_class=200)

    def thinned(order: list[TrainingSample]) -> dict[str, tuple[str, ...]]:
        found = (filter_sample(sample, config, Drops(), counts) for sample in order)
        return {s.image_uid: tuple(r.region_uid for r in s.regions) for s in found if s is not None}

    once = thinned(samples)
    assert once == thinned(samples[::-1])
    assert 150 < sum(map(len, once.values())) < 250


def test_bad_limits() -> None:
    with pytest.raises(ConfigError, match="min_region_share < max_region_share"):
        FilterConfig(min_region_share=0.5, max_region_share=0.5)
    with pytest.raises(ConfigError, match="max_per_class is 0"):
        FilterConfig(max_per_class=0)
    with pytest.raises(ConfigError, match="max_bits is 32"):
        DuplicateConfig(max_bits=32)
