"""Golden checks of what is done with regions of FG-CLIP 2: FG-OVD scoring, recalibration of a detector."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovsops.backbones.detections import best_pairs, label_scores
from ovsops.metrics.fgovd import expression_similarity, positive_is_first, positive_ranks
from ovsops.regions.recalibrate import (
    Mode,
    RecalibrationConfig,
    fused_scores,
    log_alignment,
    recalibrate,
    region_similarity,
)
from tests.golden.table import Arrays, Check


def check_fgovd_score(arrays: Arrays, folder: Path) -> None:
    """Rank, right or wrong, accuracy under the published rule of ties; strict ranks are never better."""
    similarity = expression_similarity(_tensor(arrays, "region"), _tensor(arrays, "text"))
    num_texts = _tensor(arrays, "n_text")
    is_right = positive_is_first(similarity, num_texts, ties="right")
    np.testing.assert_array_equal(is_right.numpy(), arrays["correct"])
    ranks = positive_ranks(similarity, num_texts, ties="right")
    np.testing.assert_array_equal(ranks.numpy(), arrays["rank"])
    np.testing.assert_allclose(is_right.float().mean().numpy(), arrays["accuracy"], rtol=1e-6)
    assert (positive_ranks(similarity, num_texts) >= ranks).all()


def check_ovd(arrays: Arrays, folder: Path) -> None:
    """Cosines, alignment, and every row of exponents in keep and global mode."""
    similarity = region_similarity(_tensor(arrays, "region"), _tensor(arrays, "class_text"))
    _agrees(similarity, arrays["cosine"])
    aligned = log_alignment(similarity, scale=float(arrays["sim_scale"])).exp()
    _agrees(aligned, arrays["p_align"])
    for row, (alpha, beta) in enumerate(arrays["exponents"].tolist()):
        _check_exponents(arrays, similarity, row, alpha, beta)
    _check_detector(arrays)


def _check_exponents(arrays: Arrays, similarity: Tensor, row: int, alpha: float, beta: float) -> None:
    labels, confidence = _tensor(arrays, "det_label"), _tensor(arrays, "det_conf")
    by_name = _tensor(arrays, "det_class_scores")

    def config(mode: Mode) -> RecalibrationConfig:
        return RecalibrationConfig(
            mode=mode, alpha=alpha, beta=beta, scale=float(arrays["sim_scale"]), ties="first"
        )

    if len(similarity) == 0:  # the arrays of results are absent
        assert len(recalibrate(similarity, labels, confidence, config=config("global")).scores) == 0
        return
    kept = recalibrate(similarity, labels, confidence, config=config("keep"))
    np.testing.assert_array_equal(kept.labels.numpy(), arrays["det_label"])
    _agrees(kept.scores, arrays[f"keep_{row}"])
    _agrees(fused_scores(by_name, similarity, config=config("global")), arrays[f"glob_{row}"])
    everywhere = recalibrate(similarity, labels, confidence, config=config("global"), scores_by_name=by_name)
    np.testing.assert_array_equal(everywhere.labels.numpy(), arrays[f"glob_label_{row}"])
    _agrees(everywhere.scores, arrays[f"glob_score_{row}"])
    one_score = recalibrate(similarity, labels, confidence, config=config("global"))
    _agrees(one_score.scores, arrays[f"scalar_score_{row}"])
    # Where the confidence is 0 or the alignment has no say, all names tie and the file's label means nothing.
    means = (arrays["det_conf"] > 0) & (beta > 0)
    np.testing.assert_array_equal(one_score.labels.numpy()[means], arrays[f"scalar_label_{row}"][means])


def _check_detector(arrays: Arrays) -> None:
    """Scores of labels from those of their tokens, and the best pairs of query and label."""
    logits = _tensor(arrays, "det_logits")
    scores = label_scores(logits, _tensor(arrays, "label_token_map") > 0)
    _agrees(scores, arrays["label_scores"])
    _agrees(logits.sigmoid().amax(dim=1), arrays["hf_query_scores"])
    best, queries, labels = best_pairs(scores, limit=len(arrays["topk_scores"]), min_score=0.0)
    _agrees(best, arrays["topk_scores"])
    np.testing.assert_array_equal(queries.numpy(), arrays["topk_query"])
    np.testing.assert_array_equal(labels.numpy(), arrays["topk_label"])


def _tensor(arrays: Arrays, name: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(arrays[name]))


def _agrees(ours: Tensor, expected: np.ndarray) -> None:
    assert tuple(ours.shape) == expected.shape
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-5)


RESULTS: dict[str, tuple[str, ...]] = {
    "fgclip2_fgovd_score": ("correct", "rank", "accuracy"),
    "fgclip2_ovd": ("cosine", "p_align", "keep_", "glob_", "scalar_score_", "label_scores", "topk_"),
}

CHECKS: dict[str, Check] = {"fgclip2_fgovd_score": check_fgovd_score, "fgclip2_ovd": check_ovd}
