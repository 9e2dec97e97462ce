"""One sentence about each figure: what it is, which direction is good, what it does not say."""

from collections.abc import Mapping

from ovsops.metrics.detection import AREA_RANGES
from pipelines.evaluation.counting import CountConfig
from pipelines.evaluation.object_counts import PRESENT, ObjectsConfig

_SMALL, _LARGE = (f"{round(AREA_RANGES['medium'][i] ** 0.5)}²" for i in (0, 1))
"""Sides of a square between small, medium and large."""

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


_OBJECT_SENTENCES: Mapping[str, str] = {
    "box_ap": (
        "average precision as COCO has it: instances in order of their score are right where they overlap a"
        " true object of their class that no better one has taken; precision is averaged over 101 recalls,"
        " over overlaps (IoU) of 0.50 to 0.95, and over classes. 1 is perfect. Boxes are the tight ones of the"
        " masks (bbox). Whether scores mean anything is not said, only how they order."
    ),
    "box_ap50": "the same at the overlap 0.50 alone; higher is better. Loose boxes cost nothing.",
    "box_ap75": "the same at the overlap 0.75; higher is better. It says whether boxes are tight.",
    "box_ap_small": f"AP of true objects of up to {_SMALL} pixels; higher is better. Empty where there are none.",
    "box_ap_medium": f"AP of true objects of {_SMALL} to {_LARGE} pixels; higher is better.",
    "box_ap_large": f"AP of true objects of {_LARGE} pixels and more; higher is better.",
    "box_ar100": (
        "average recall: share of the true objects that are found among the 100 best of a class and image, averaged"
        " over overlaps and classes; higher is better. False finds cost nothing."
    ),
    "detector_box_ap": (
        "AP of the boxes as the detector drew them (bbox_detector); an instance that no detector drew has its"
        " tight box. Higher is better. Above it, the masks made the boxes better; below it, worse."
    ),
    "detector_box_ap50": "the same at the overlap 0.50; higher is better.",
    "mask_ap": "AP with the overlap of masks instead of boxes; higher is better.",
    "mask_ap50": "the same at the overlap 0.50 alone; higher is better. It says little about outlines.",
    "mask_ap75": "the same at the overlap 0.75; higher is better.",
    "mask_ap_small": f"AP of masks of up to {_SMALL} pixels; higher is better. Empty where there are none.",
    "mask_ap_medium": f"AP of masks of {_SMALL} to {_LARGE} pixels; higher is better.",
    "mask_ap_large": f"AP of masks of {_LARGE} pixels and more; higher is better.",
    "mask_ar100": "average recall with the overlap of masks; higher is better. False finds cost nothing.",
    "agnostic_ap50": (
        "AP50 as though all things had one name, of the 100 best instances of an image; higher is better. The distance"
        " to AP50 is what wrong names cost."
    ),
    "agnostic_ar100": "average recall without names; higher is better. It says how many objects any box covers.",
    "fixed_ap": (
        "AP with LVIS' limits (arXiv:2102.01066): none for an image, the best 10,000 of a class over all of them, and a"
        " class is judged only in images that are annotated for it. Higher is better. It rewards scores that can be"
        " compared across images."
    ),
    "cg_f1": (
        "SAM 3's figure (arXiv:2511.16719), 100 x pmF1 x IL_MCC: is a class in the image, and are all its objects"
        " found? 100 is perfect. Instances from the score {min_score:g} on count, each as one."
        " How scores order is not said."
    ),
    "pm_f1": (
        "F1 of the instances of classes that are in the image, matched one to one, averaged over overlaps of 0.50 to"
        " 0.95; 1 is perfect. Classes that are not in the image cost nothing here."
    ),
    "il_mcc": (
        "correlation (Matthews) of 'something of the class was found' with 'it is there' over all pairs of image and"
        " class; 1 is perfect, 0 is no better than saying the same of every pair."
    ),
    "presence_il_mcc": (
        "the same for the presence scores of images: from {present:g} on a class is said to be there. 1 is perfect."
        " Pairs without such a score do not count."
    ),
    "verified_absent_right": (
        "share of the classes called verified absent that are absent; 1 is perfect. How many were called"
        " so is not said."
    ),
    "instance_ece": (
        "expected calibration error: how far the score is from the share of instances with such scores that are right,"
        " over {num_bins} bins; 0 is perfect, lower is better. Right is an instance of the true class whose box, as the"
        " detector drew it, overlaps a free true object's by 0.50; its mask may be worse. Poor instances with honest"
        " scores have 0."
    ),
    "instance_ece_calibrated": "the same for calibrated scores, of the instances that have it; lower is better.",
}


def explain_object_figure(figure: str, config: ObjectsConfig, *, num_bins: int) -> str:
    """The sentence about a figure of instances."""
    return _OBJECT_SENTENCES[figure].format(min_score=config.min_score, present=PRESENT, num_bins=num_bins)
