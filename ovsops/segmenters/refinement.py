"""PAMR between similarities on patches and labels of pixels, for segmenters that compare patches with queries.

Axes: V views, Q queries, H W patch grid, h w pixels.
"""

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ovsops.geometry import Window
from ovsops.masks.refine import PamrConfig, PamrGuide
from ovsops.segmenters.labels import canvas_scores, upsampled
from ovsops.segmenters.views import Mode, ViewPlan, resize


def refined_similarity(
    image: UInt8[np.ndarray, "h w 3"],
    plan: ViewPlan,
    similarity: Float[Tensor, "V Q H W"],
    config: PamrConfig,
    *,
    mode: Mode,
) -> tuple[Float[Tensor, "1 Q h2 w2"], ViewPlan]:
    """Similarities put together and refined by the picture, as one view, and the plan that this view belongs to.

    `corrected` works on the canvas; `upstream` brings both, the canvas as a picture too, to the image's own size first
    (CASS at commit 228ecdd, SC-CLIP at commit 0417ba9).
    """
    planes = canvas_scores(similarity.float(), plan, mode="corrected")
    guide = resize(image, plan.canvas_hw).to(planes.device)
    size_hw = plan.canvas_hw
    if mode == "upstream":
        size_hw = plan.image_hw
        planes, guide = (upsampled(one, size_hw, align_corners=False) for one in (planes, guide))
    refined = PamrGuide(guide[None], config).refine(planes[None])
    whole = ViewPlan(image_hw=plan.image_hw, canvas_hw=size_hw, windows=(Window(0, 0, *size_hw),))
    return refined, whole
