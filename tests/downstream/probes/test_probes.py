import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from caco_assets.downstream.datasets.readers import eurosat
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.probes.linear_adam import fit_linear_adam
from caco_assets.downstream.probes.linear_knn import Scaler, fit_logistic, fit_validated, knn_predict
from caco_assets.downstream.tasks import PaperProtocol
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing


@pytest.fixture
def blobs():
    """Features (train, test) of five overlapping classes, and their labels."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (5, 20))
    labels = rng.integers(0, 5, 1200)
    features = (centres[labels] + rng.normal(0, 1.6, (1200, 20))) * rng.uniform(0.1, 30, 20) + 7
    features = features.astype(np.float32)
    return features[:800], labels[:800], features[800:], labels[800:]


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_logistic_regression_agrees_with_scikit_learn_within_half_a_point(blobs, c):
    train, labels, test, truth = blobs
    scale = Scaler.fit(train)
    theirs = LogisticRegression(C=c, max_iter=2000).fit(scale(train), labels)
    ours = fit_logistic(scale(train), labels, 5, c)
    assert abs((ours.predict(scale(test)) == truth).mean() - theirs.score(scale(test), truth)) <= 0.005
    np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, atol=2e-2)


@pytest.mark.parametrize("k", [5, 20])
def test_nearest_neighbours_agree_with_scikit_learn_within_half_a_point(blobs, k):
    train, labels, test, truth = blobs
    scale = Scaler.fit(train)
    theirs = KNeighborsClassifier(k, metric="cosine").fit(scale(train), labels).score(scale(test), truth)
    ours = (knn_predict(scale(train), labels, scale(test), 5, (5, 20))[k] == truth).mean()
    assert abs(ours - theirs) <= 0.005


@pytest.fixture(scope="module")
def seen(real, tmp_path_factory):
    """Standardised features (train, test) of a random network on pictures of the real EuroSAT, and their labels."""
    data = eurosat.read(real / "eurosat_rgb" / "EuroSAT.zip").limited(800, seed=0)
    encoder = Encoder.random("test_resnet", Preprocessing.unit_rgb(32), 0)
    cache = FeatureCache(tmp_path_factory.mktemp("features"))
    train, test = (
        cache.features(encoder, "random", data, part, 32) for part in ("train", "test" if "test" in data.parts else "val")
    )
    scale = Scaler.fit(train)
    truth = data.parts["test" if "test" in data.parts else "val"].labels
    return scale(train), data.parts["train"].labels, scale(test), truth


@pytest.mark.parametrize("c", [0.01, 0.1])
def test_on_features_of_real_pictures_logistic_regression_agrees_too(seen, c):
    train, labels, test, truth = seen
    theirs = LogisticRegression(C=c, max_iter=3000).fit(train, labels).score(test, truth)
    ours = (fit_logistic(train, labels, 10, c).predict(test) == truth).mean()
    assert abs(ours - theirs) <= 0.005
    assert ours > 0.3


@pytest.mark.parametrize("k", [5, 20])
def test_on_features_of_real_pictures_nearest_neighbours_agree_too(seen, k):
    train, labels, test, truth = seen
    theirs = KNeighborsClassifier(k, metric="cosine").fit(train, labels).score(test, truth)
    assert abs((knn_predict(train, labels, test, 10, (k,))[k] == truth).mean() - theirs) <= 0.005


def test_more_neighbours_than_images_counts_as_all_of_them():
    bank, labels = np.eye(3, dtype=np.float32), np.array([1, 1, 0])
    assert knn_predict(bank, labels, bank, 2, (5, 20))[20].tolist() == [1, 1, 1]


def test_a_tied_vote_goes_to_the_lower_class():
    bank, labels = np.array([[1, 0], [0, 1]], np.float32), np.array([1, 0])
    assert knn_predict(bank, labels, bank, 2, (2,))[2].tolist() == [0, 0]


def test_the_chosen_c_is_the_best_on_validation_and_the_strongest_of_equals():
    rng = np.random.default_rng(1)
    signal = rng.integers(0, 2, 300)
    features = np.stack([signal * 2 - 1 + rng.normal(0, 0.1, 300), rng.normal(0, 1, 300)], 1).astype(np.float32)
    _, c = fit_validated(features[:200], signal[:200], features[200:], signal[200:], 2)
    # every C separates this perfectly
    assert c == 1e-3


def test_a_constant_feature_does_not_spoil_the_scale():
    features = np.ones((5, 2), np.float32)
    features[:, 1] = np.arange(5)
    scaled = Scaler.fit(features)(features)
    assert np.isfinite(scaled).all()
    assert scaled[:, 0].tolist() == [0] * 5


def test_the_paper_probe_equals_torch_autograd_step_by_step(blobs):
    """The slow, obvious version: nn.Linear, cross-entropy, Adam and MultiStepLR on the same start and the same order."""
    train, labels, *_ = blobs
    train = Scaler.fit(train)(train)[:100]
    labels = labels[:100]
    protocol, epochs = PaperProtocol(), 5
    ours = fit_linear_adam([train], labels, 5, protocol, epochs, seed=4)

    generator = torch.Generator().manual_seed(4)
    bound = train.shape[1] ** -0.5
    start = torch.empty(5, train.shape[1] + 1).uniform_(-bound, bound, generator=generator)
    layer = nn.Linear(train.shape[1], 5)
    with torch.no_grad():
        layer.weight.copy_(start[:, :-1])
        layer.bias.copy_(start[:, -1])
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4])
    x, y = torch.from_numpy(train), torch.from_numpy(labels)
    for _ in range(epochs):
        order = torch.randperm(100, generator=generator)
        for batch in order.split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[batch]), y[batch]).backward()
            optimizer.step()
        schedule.step()
    torch.testing.assert_close(ours.weight, layer.weight.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.bias, layer.bias.detach(), atol=1e-5, rtol=1e-4)


def test_the_paper_probe_takes_turns_with_the_versions_of_the_features(blobs):
    train, labels, *_ = blobs
    one, other = train, np.zeros_like(train)
    both = fit_linear_adam([one, other], labels, 5, PaperProtocol(), 2, seed=0)
    alone = fit_linear_adam([one], labels, 5, PaperProtocol(), 2, seed=0)
    assert not torch.equal(both.weight, alone.weight)
    # with one epoch only the first version is seen
    torch.testing.assert_close(
        fit_linear_adam([one, other], labels, 5, PaperProtocol(), 1, seed=0).weight,
        fit_linear_adam([one], labels, 5, PaperProtocol(), 1, seed=0).weight,
    )


def test_probes_leave_torchs_global_generator_alone(blobs):
    train, labels, *_ = blobs
    before = torch.get_rng_state()
    fit_linear_adam([train], labels, 5, PaperProtocol(), 1, seed=0)
    fit_logistic(Scaler.fit(train)(train), labels, 5, 1.0)
    assert torch.equal(before, torch.get_rng_state())
