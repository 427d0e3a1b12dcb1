"""MoCo v2 with temporal positives (Ayush et al. 2021): two dates of one place attract; the loss is MoCo v2's."""

from caco_assets.pretraining.objectives.moco_v2 import MocoV2
from caco_assets.pretraining.views.view_plans import View, ViewPlan


class MocoV2TemporalPositives(MocoV2):
    """As `moco_v2`, but the key shows another date of the place."""

    plan = ViewPlan(
        draw=2,
        replace=False,
        scope="place",
        paired=False,
        crop_first=True,
        views=(View(0, augment=True), View(1, augment=True)),
    )
