"""The geography-aware objective: clusters on the sphere, and the guess at where a picture was taken."""

import numpy as np
import pytest
import torch
from torch import nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.objectives import ObjectiveConfig, build
from caco_assets.pretraining.objectives.gssl import Gssl, geo_clusters

# three groups of places, one of them on both sides of the antimeridian
LONLAT = np.array([[179.9, 0.0], [-179.9, 0.1], [10.0, 50.0], [10.1, 50.1], [-60.0, -30.0], [-60.1, -30.1]])


def make() -> Gssl:
    backbone = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    config = ObjectiveConfig(slots=12, embedding_dim=7, queue_size=8, geo_clusters=3, lonlat=LONLAT)
    objective = build("gssl", config, backbone, features=5, seed=0)
    assert isinstance(objective, Gssl)
    return objective


def test_places_across_the_antimeridian_share_a_cluster() -> None:
    cluster = geo_clusters(LONLAT, 3, seed=0)
    assert len(set(cluster.tolist())) == 3
    assert [cluster[0] == cluster[1], cluster[2] == cluster[3], cluster[4] == cluster[5]] == [True] * 3


def test_the_loss_is_that_of_temporal_positives_plus_the_cross_entropy_of_the_clusters() -> None:
    objective = make()
    views, slots = torch.randn(2, 4, 3, 9, 9, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 8, 10])
    output = objective(views, slots)
    scores = objective.classifier(objective.encoder_q(views[0]))
    geo = nn.functional.cross_entropy(scores, objective.cluster[slots // 2])
    torch.testing.assert_close(output.metrics["loss_geo"], geo.detach())
    torch.testing.assert_close(output.loss.detach(), output.metrics["loss_0"] + geo.detach())
    output.loss.backward()
    assert objective.classifier.weight.grad is not None


def test_more_clusters_than_places_are_refused() -> None:
    with pytest.raises(UserError, match=r"geo_clusters=7: the pack has only 6 places"):
        geo_clusters(LONLAT, 7, seed=0)


def test_the_clusters_are_seeded_and_saved_with_the_objective() -> None:
    assert torch.equal(make().cluster, make().cluster)
    assert "cluster" in make().state_dict()
