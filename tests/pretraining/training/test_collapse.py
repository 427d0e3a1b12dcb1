"""Signs of collapse: the queue's figures against slow and obvious ones, the warning, and the refusal to register."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from caco_assets.core.errors import UserError
from caco_assets.core.products import produce
from caco_assets.pretraining.assets import embeddings_have_not_collapsed
from caco_assets.pretraining.training.collapse import CollapseWarning, queue_figures
from caco_assets.registry.scored_encoder import ScoredEncoder
from caco_assets.registry.stage import register
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.resources.profile import Profile
from caco_assets.settings import Settings


@pytest.mark.parametrize(("dim", "count"), [(4, 16), (16, 40), (8, 5)])
def test_the_queues_figures_are_those_of_all_pairs_and_of_a_singular_value_decomposition(dim: int, count: int) -> None:
    columns = F.normalize(torch.randn(dim, count, generator=torch.Generator().manual_seed(dim)), dim=0)
    keys = columns.T.double().numpy()
    shares = np.linalg.svd(keys, compute_uv=False) ** 2 / count
    pairs = [float(a @ b) for i, a in enumerate(keys) for j, b in enumerate(keys) if i != j]
    rank, cosine = queue_figures(columns)
    assert rank == pytest.approx(np.exp(-sum(p * np.log(p) for p in shares if p > 1e-12)), rel=1e-5)
    assert cosine == pytest.approx(np.mean(pairs), abs=1e-6)


def test_keys_on_one_point_have_one_direction_and_keys_on_the_axes_have_all() -> None:
    point = F.normalize(torch.ones(6, 30), dim=0)
    assert queue_figures(point) == pytest.approx((1.0, 1.0), abs=1e-5)
    axes = torch.eye(6).repeat(1, 5)
    rank, cosine = queue_figures(axes)
    assert rank == pytest.approx(6, rel=1e-6)
    assert cosine == pytest.approx((5 * 6 * 4) / (30 * 29), abs=1e-6)


def test_a_stretch_of_epochs_that_look_like_collapse_is_said_once(logged) -> None:
    said = logged()
    warning = CollapseWarning()
    for epoch, (spread, rank) in enumerate([(0.9, 30.0), (0.15, 9.0), (0.1, 8.0), (0.8, 30.0), (0.7, 1.2)]):
        warning.check(epoch, {"epoch_embedding_std": spread, "queue_rank": rank})
    assert len(said) == 2
    assert "after epoch 2 the embeddings look like collapse: spread 0.150 of 1 (below 0.05" in said[0]
    assert "the queue's keys in 1.2 directions" in said[1]


def test_a_collapsed_encoder_is_never_registered(settings: Settings) -> None:
    facts = {"collapsed": True, "embedding_std": 0.01}

    def make(folder):
        folder.mkdir(parents=True)
        (folder / "encoder.json").write_text("{}")
        return facts

    encoder = produce("encoder", settings.paths.encoder, records=settings.paths.records, recipe="test", inputs={}, make=make)
    tracking = Tracking("sqlite:///never-opened.db", "tiny", None, settings.home)
    with pytest.raises(UserError, match=r"encoder: its embeddings have collapsed \(spread 0.010 of 1\); it is not registered"):
        register(settings, ScoredEncoder(encoder, encoder), tracking)
    check = embeddings_have_not_collapsed(Profile(name="tiny", home=str(settings.home)))
    assert (check.passed, check.description) == (False, "spread 0.010 of 1")
    (spec,) = embeddings_have_not_collapsed.check_specs
    assert spec.blocking  # what follows in the graph, the registry with it, is not made
