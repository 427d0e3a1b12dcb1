"""Geography-aware self-supervised learning (Ayush et al., ICCV 2021): temporal positives and geolocation classification.

    L = L_moco_v2_tp + L_geo,   L_geo = cross-entropy of a linear classifier on the query's features over geo-clusters

The clusters are k-means on the places' coordinates (100 in the original). Here the coordinates are points on the sphere, so that
clusters cross the antimeridian; the original clusters latitude and longitude. Both losses have weight 1, as in the original.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.objectives.config import ObjectiveConfig
from caco_assets.pretraining.objectives.infonce import top1
from caco_assets.pretraining.objectives.moco_v2_tp import MocoV2TemporalPositives


class Gssl(MocoV2TemporalPositives):
    """`moco_v2_tp` with a second task, the geo-cluster of the place."""

    cluster: Tensor
    """(places,) int64."""

    def __init__(self, config: ObjectiveConfig, backbone: nn.Module, features: int) -> None:
        """See `Contrastive`.

        Raises:
            UserError: fewer places than clusters.
        """
        super().__init__(config, backbone, features)
        if config.lonlat is None:
            raise ValueError("gssl needs the coordinates of the places")
        clusters = geo_clusters(config.lonlat, config.geo_clusters, seed=int(torch.randint(2**31, ())))
        self.register_buffer("cluster", torch.from_numpy(clusters))
        self.classifier = nn.Linear(features, config.geo_clusters)

    def pretext(self, features: Tensor, slots: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropy and accuracy of the clusters."""
        scores, wanted = self.classifier(features), self.cluster[slots // 2]
        return {"loss_geo": F.cross_entropy(scores, wanted)}, {"accuracy_geo": top1(scores, wanted)}


def geo_clusters(lonlat: NDArray[np.float64], count: int, *, seed: int) -> NDArray[np.int64]:
    """k-means of places on the sphere.

    Args:
        lonlat: (places, 2) degrees.
        count: number of clusters.
        seed: of the initialisation.

    Returns:
        (places,) int64, 0 … count − 1.

    Raises:
        UserError: fewer distinct places than clusters.
    """
    from sklearn.cluster import KMeans

    lon, lat = np.radians(lonlat).T
    points = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    different = len(np.unique(lonlat, axis=0))
    if different < count:
        raise UserError(f"pretraining.geo_clusters={count}: the pack has only {different} places; set it to {different} or less")
    return KMeans(count, random_state=seed).fit_predict(points).astype(np.int64)
