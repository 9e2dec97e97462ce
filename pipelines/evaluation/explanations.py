"""One sentence about each figure: what it is, which direction is good, what it does not say."""

from collections.abc import Mapping

from pipelines.evaluation.counting import CountConfig

_SENTENCES: Mapping[str, str] = {
    "mean_iou": (
        "pixels that are rightly called a class over those that are it or are called it, averaged over"
        " classes; 1 is perfect. A rare class counts as much as a frequent one, and where in a picture the"
        " errors are is not said."
    ),
    "mean_iou_stuff": (
        "the same over stuff, which has no shape of its own (grass, sky); higher is better. Large areas"
        " make it easier than things."
    ),
    "mean_iou_things": (
        "the same over things, which can be counted; higher is better. It does not say whether two things"
        " of one class were told apart."
    ),
    "mean_iou_things_background": (
        "every thing is a class, and stuff and pixels without a label are one more; higher is better. It"
        " does not say whether kinds of stuff were told apart."
    ),
    "mean_accuracy": (
        "share of the true pixels of a class that were found, averaged over classes; higher is better."
        " Calling too much by the name of a class costs that class nothing."
    ),
    "pixel_accuracy": (
        "share of all pixels with the right class; higher is better. Large classes decide it, and small"
        " things hardly count."
    ),
    "mean_boundary_f": (
        "how well the outlines of classes agree: the harmonic mean of the share of predicted outline that"
        " lies within {tolerance:.2%} of the picture's diagonal of a true one, and of true outline that"
        " lies as near a predicted one, averaged over classes; 1 is perfect. It says nothing about the"
        " inside of regions."
    ),
    "mean_boundary_iou": (
        "mIoU counted only in a band of {band:.1%} of the diagonal inside outlines; higher is better. In"
        " regions thinner than two bands it is mIoU itself; it says nothing about the inside of large"
        " ones."
    ),
    "region_accuracy": (
        "share of the predicted regions most of whose pixels are truly of the region's class; higher is"
        " better. A crumb of one pixel counts as much as a wall, so it mostly tells how many crumbs there"
        " are; missed regions do not count."
    ),
    "region_accuracy_by_area": (
        "the same with every region weighing its pixels; higher is better. It says little about small"
        " regions."
    ),
    "calibration_error": (
        "expected calibration error: how far the scores of regions are from the share of regions with"
        " such scores that are right, averaged over {num_bins} bins; 0 is perfect, lower is better. It"
        " does not say how many are right: poor labels with honest scores have 0. Crumbs count like walls."
    ),
    "calibration_error_by_area": (
        "the same with every region weighing its pixels; lower is better. It says little about the scores"
        " of small regions."
    ),
    "labelled_share": (
        "share of the pixels that got any label; more is not better in itself, and whether labels are"
        " right is not said."
    ),
}
CEILING = (
    "what a perfect classifier of the patches of this grid reaches with the majority label of a patch"
    " (hard) and with its area shares upsampled (soft). The nearer a run comes, the less is lost by"
    " anything but the grid. It is no strict bound, and says nothing about a model."
)
"""What the columns of the patch grid are."""


def explain(figure: str, config: CountConfig) -> str:
    """The sentence about a figure."""
    return _SENTENCES[figure].format(
        tolerance=config.boundary.tolerance, band=config.boundary.band, num_bins=config.num_bins
    )
