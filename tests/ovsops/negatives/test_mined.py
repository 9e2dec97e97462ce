import numpy as np
import pytest

from ovsops.errors import ConfigError, ShapeError
from ovsops.negatives.mined import (
    Block,
    Confusions,
    Nearest,
    PairRules,
    many_hot,
    one_hot,
    whole_vectors,
)


def corpus(count: int, *, classes: int = 4, width: int = 16, seed: int = 0, doubled: bool = False) -> Block:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, width)).astype(np.float32)
    if doubled:  # equal vectors: ties everywhere
        vectors = vectors[generator.integers(max(1, count // 8), size=count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    uids = np.array([f"u{i:04d}" for i in generator.permutation(count)])
    return Block(
        uids=uids,
        groups=np.array([f"image {i}" for i in generator.integers(count // 3 + 1, size=count)]),
        classes=one_hot(generator.integers(classes, size=count).tolist(), classes),
        vectors=whole_vectors(vectors, where="corpus"),
    )


def part(block: Block, places) -> Block:
    return Block(
        uids=block.uids[places],
        groups=block.groups[places],
        classes=block.classes[places],
        vectors=block.vectors[places],
    )


def by_hand(block: Block, k: int, rules: PairRules) -> tuple[np.ndarray, np.ndarray]:
    """All pairs, sorted by score and uid in plain Python."""
    uids, scores = [], []
    for q in range(len(block)):
        found = []
        for n in range(len(block)):
            shares = bool((block.classes[q] & block.classes[n]).any())
            if rules.may_hold is not None:
                own, other = int(block.classes[q].argmax()), int(block.classes[n].argmax())
                shares |= bool(rules.may_hold[own, other])
            near = block.groups[q] == block.groups[n] and not rules.in_one_group
            if q != n and not shares and not near:
                whole = sum(int(a) * int(b) for a, b in zip(block.vectors[q], block.vectors[n], strict=True))
                found.append((-whole / 2**52, str(block.uids[n])))
        found = [*sorted(found)[:k], *[(np.inf, "")] * (k - len(found))]
        uids.append([uid for _, uid in found])
        scores.append([-score for score, _ in found])
    return np.array(uids), np.array(scores)


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize(
    "rules",
    [PairRules(), PairRules(in_one_group=True), PairRules(may_hold=np.eye(4, k=1, dtype=bool))],
    ids=["plain", "one group", "may hold"],
)
def test_blocks_find_what_brute_force_finds(rules: PairRules, doubled: bool) -> None:
    block = corpus(60, doubled=doubled)
    uids, scores = by_hand(block, 7, rules)
    found = Nearest.none_yet(block, k=7)
    for start in range(0, 60, 13):
        found = found.seen(part(block, slice(start, start + 13)), rules)
    assert np.array_equal(found.uids, uids)
    assert np.array_equal(found.scores, scores)
    assert found.num_seen == 60


@pytest.mark.parametrize("doubled", [False, True])
def test_no_cut_and_no_order_changes_a_bit(doubled: bool) -> None:
    block = corpus(200, width=96, doubled=doubled)
    rules = PairRules()
    whole = Nearest.none_yet(block, k=5).seen(block, rules)
    generator = np.random.default_rng(1)
    for size in (1, 7, 64, 199):
        order = generator.permutation(200)
        found = Nearest.none_yet(block, k=5)
        for start in range(0, 200, size):
            found = found.seen(part(block, order[start : start + size]), rules)
        assert np.array_equal(found.uids, whole.uids)
        assert np.array_equal(found.scores, whole.scores)
        assert np.array_equal(found.places, whole.places)
    left = Nearest.none_yet(block, k=5).seen(part(block, slice(0, 50)), rules)
    right = Nearest.none_yet(block, k=5).seen(part(block, slice(50, 200)), rules)
    assert np.array_equal(right.merge(left).uids, whole.uids)
    # queries may be cut, too
    some = Nearest.none_yet(part(block, slice(3, 20)), k=5).seen(block, rules)
    assert np.array_equal(some.uids, whole.uids[3:20])


def test_scores_are_cosines() -> None:
    block = corpus(50, width=768)
    found = Nearest.none_yet(block, k=3).seen(block, PairRules())
    place = {uid: i for i, uid in enumerate(block.uids.tolist())}
    vectors = block.vectors / np.linalg.norm(block.vectors, axis=1, keepdims=True)
    for row in range(50):
        for column in range(3):
            true = vectors[row] @ vectors[place[str(found.uids[row, column])]]
            assert found.scores[row, column] == pytest.approx(true, abs=3e-7)


def test_images_that_share_a_class_are_no_pair() -> None:
    vectors = whole_vectors(np.array([[1, 0], [1, 0], [0.8, 0.6]], np.float32), where="t")
    images = Block(
        uids=np.array(["a", "b", "c"]),
        groups=np.array(["a", "b", "c"]),
        classes=many_hot([[0, 1], [1, 2], [2]], 3),
        vectors=vectors,
    )
    found = Nearest.none_yet(images, k=2).seen(images, PairRules())
    assert found.uids.tolist() == [["c", ""], ["", ""], ["a", ""]]
    assert found.scores[0, 0] == pytest.approx(0.8, abs=1e-5)
    assert found.scores[1].tolist() == [-np.inf, -np.inf]
    assert found.places.tolist() == [[2, -1], [-1, -1], [0, -1]]


def test_confusions_add_up_in_any_order() -> None:
    block = corpus(80)
    rules = PairRules()
    whole, parts = Confusions(), Confusions()
    whole.add(Nearest.none_yet(block, k=4).seen(block, rules))
    for places in (slice(50, 80), slice(0, 50)):
        one = Confusions()
        one.add(Nearest.none_yet(part(block, places), k=4).seen(block, rules))
        parts.merge(one)
    assert whole.pairs() == parts.pairs()
    assert sum(row[2] for row in whole.pairs()) == 80 * 4
    assert all(one != other for one, other, _, _ in whole.pairs())
    counts = [row[2] for row in whole.pairs()]
    assert counts == sorted(counts, reverse=True)
    near = Confusions()
    near.add(Nearest.none_yet(block, k=4).seen(block, rules), min_score=0.99)
    assert near.pairs() == []


def test_what_cannot_be_mined() -> None:
    with pytest.raises(ShapeError, match="row 1 has length 0"):
        whole_vectors(np.array([[1, 0], [0, 0]], np.float32), where="part 3")
    with pytest.raises(ShapeError, match="row 0 has length nan"):
        whole_vectors(np.array([[np.nan, 0]], np.float32), where="part 3")
    with pytest.raises(ShapeError, match="places among 3"):
        many_hot([[0], [3]], 3)
    with pytest.raises(ConfigError, match="k is 0"):
        Nearest.none_yet(corpus(3), k=0)
    block = corpus(6)
    with pytest.raises(ShapeError, match="one of each"):
        Block(uids=block.uids[:2], groups=block.groups, classes=block.classes, vectors=block.vectors)
    with pytest.raises(ShapeError, match="different queries"):
        Nearest.none_yet(block, k=1).merge(Nearest.none_yet(corpus(5), k=1))
    nothing = Nearest.none_yet(block, k=2).seen(part(block, slice(0, 0)), PairRules())
    assert (nothing.uids == "").all()
