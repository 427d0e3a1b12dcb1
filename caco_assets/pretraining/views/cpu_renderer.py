"""Renders views on a CPU: the compiled kernel applies the drawn parameters, image by image."""

from __future__ import annotations

import numpy as np

from caco_assets.pretraining.encoder.preprocessing import RGB
from caco_assets.pretraining.views import cpu_kernel
from caco_assets.pretraining.views.augmentation import Parameters
from caco_assets.pretraining.views.view_plans import ViewPlan


class Renderer:
    """Turns packed images into views; holds one thread's scratch memory and the constants of all views.

    Saturation, hue and grayscale are defined only for RGB: packs of bands other than (B04, B03, B02) get brightness, contrast
    (about the mean of all bands), blur, flip and crop.
    """

    def __init__(
        self, plan: ViewPlan, bands: tuple[str, ...], side: int, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        self._plan = plan
        self._colours = bands == RGB
        self._scale = (1 / (255 * np.array(std))).astype(np.float32)
        self._shift = (-np.array(mean) / np.array(std)).astype(np.float32)
        scratch = (len(bands), *(2 * (image_size if plan.crop_first else side,)))
        self._a, self._b = np.empty(scratch, np.uint8), np.empty(scratch, np.uint8)
        self._augment = cpu_kernel.crop_then_augment if plan.crop_first else cpu_kernel.augment_then_crop

    def render(self, source: np.ndarray, parameters: Parameters, view: int, sample: int, out: np.ndarray) -> None:
        """Write one view.

        Args:
            source: read-only uint8 (H, W, C), contiguous: an image of the pack.
            parameters: of the batch.
            view: index of the view in the plan.
            sample: index of the sample in the batch.
            out: float32 (C, S, S), normalised.
        """
        at = view, sample
        box = parameters.box[at]
        if not self._plan.views[view].augment:
            cpu_kernel.crop_only(source, box, self._scale, self._shift, out)
            return
        self._augment(
            source,
            box,
            parameters.flip[at],
            parameters.jitter[at],
            parameters.order[at],
            parameters.factors[at],
            parameters.grayscale[at],
            parameters.sigma[at],
            self._colours,
            self._scale,
            self._shift,
            self._a,
            self._b,
            out,
        )
