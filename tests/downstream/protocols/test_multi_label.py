"""Images with several labels: average precision, its bootstrap, probes against scikit-learn, the published layer."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torchmetrics.functional.classification import multilabel_average_precision

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.classification import Part
from caco_assets.downstream.metrics import average_precision as ap
from caco_assets.downstream.metrics.outcomes import MultiLabel
from caco_assets.downstream.metrics.paired import paired_gain
from caco_assets.downstream.probes.linear_knn import Scaler
from caco_assets.downstream.probes.multilabel import (
    fit_independent,
    fit_independent_validated,
    fit_soft_margin_adam,
    knn_shares,
    taken,
)
from caco_assets.downstream.tasks import PaperProtocol


@pytest.fixture
def noisy():
    """Labels of 200 images in 6 classes (the last without a positive), and scores of few distinct values."""
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.0]).astype(np.uint8)
    scores = np.round(labels * 0.8 + rng.normal(0, 1, labels.shape), 1).astype(np.float32)
    return labels, scores


@pytest.fixture
def blobs():
    """Features of 900 images with five overlapping labels each, and the labels."""
    rng = np.random.default_rng(1)
    labels = (rng.random((900, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    features = labels @ rng.normal(0, 1, (5, 20)) + rng.normal(0, 1.5, (900, 20))
    features = (features * rng.uniform(0.1, 30, 20) + 7).astype(np.float32)
    scale = Scaler.fit(features[:600])
    return scale(features[:600]), labels[:600], scale(features[600:]), labels[600:]


def test_weighted_average_precision_equals_scikit_learn_draw_by_draw(noisy):
    labels, scores = noisy
    rng = np.random.default_rng(3)
    macro, micro = ap.weighted_macro(labels, scores), ap.weighted_micro(labels, scores)
    for _ in range(20):
        weights = np.bincount(rng.integers(0, 200, 200), minlength=200)
        kept = weights > 0
        known = [k for k in range(5) if labels[kept, k].any()]
        theirs = [average_precision_score(labels[:, k], scores[:, k], sample_weight=weights) for k in known]
        assert macro(weights) == pytest.approx(np.mean(theirs), abs=1e-12)
        # the slow way: repeat the images
        repeated = np.repeat(labels, weights, axis=0), np.repeat(scores, weights, axis=0)
        assert micro(weights) == pytest.approx(average_precision_score(*repeated, average="micro"), abs=1e-12)


def test_a_class_without_a_positive_is_left_out_of_the_macro_mean_and_is_said(noisy):
    labels, scores = noisy
    part = Part(tuple(f"i{n}" for n in range(200)), labels)
    figures = {figure.metric: figure for figure in MultiLabel(part, scores, tuple("abcdef")).figures(100, np.random.default_rng(0))}
    theirs = multilabel_average_precision(torch.from_numpy(scores[:, :5]), torch.from_numpy(labels[:, :5]).long(), 5, "macro")
    assert figures["macro_ap"].value == pytest.approx(float(theirs), abs=1e-6)
    assert "5 of 6 classes" in figures["macro_ap"].note
    assert "none of f" in figures["macro_ap"].note
    # its negatives do rank in the micro average
    theirs = multilabel_average_precision(torch.from_numpy(scores), torch.from_numpy(labels).long(), 6, "micro")
    assert figures["micro_ap"].value == pytest.approx(float(theirs), abs=1e-6)


def test_labels_without_any_positive_are_refused():
    nothing = np.zeros((4, 3), np.uint8)
    for figure in (ap.macro_ap, ap.micro_ap):
        with pytest.raises(UserError, match="no image has any label"):
            figure(nothing, np.zeros((4, 3)))


def test_macro_and_micro_differ_and_the_published_mean_over_batches_differs_from_both(noisy):
    labels, scores = noisy
    values = {ap.macro_ap(labels, scores), ap.micro_ap(labels, scores), ap.micro_ap_batch(labels, scores, 16)}
    assert len({round(value, 4) for value in values}) == 3
    slow = [average_precision_score(labels[s : s + 16], scores[s : s + 16], average="micro") for s in range(0, 192, 16)]
    # the last eight images make no whole batch and are dropped
    assert ap.micro_ap_batch(labels, scores, 16) == pytest.approx(np.mean(slow))
    assert ap.micro_ap_batch(labels, scores, 1024) == ap.micro_ap(labels, scores)


def test_the_intervals_hold_the_figures_and_equal_a_slow_bootstrap(noisy):
    labels, scores = noisy
    part = Part(tuple(f"i{n}" for n in range(200)), labels)
    figures = MultiLabel(part, scores, tuple("abcdef"), batch=50).figures(1000, np.random.default_rng(0))
    assert [figure.metric for figure in figures] == ["micro_ap_batch", "macro_ap", "micro_ap"]
    for figure in figures:
        assert figure.low < figure.value < figure.high
    rng, slow = np.random.default_rng(9), []
    for _ in range(400):
        chosen = rng.integers(0, 200, 200)
        slow.append(average_precision_score(labels[chosen], scores[chosen], average="micro"))
    np.testing.assert_allclose((figures[2].low, figures[2].high), np.quantile(slow, [0.025, 0.975]), atol=0.015)


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_independent_logistic_regressions_agree_with_scikit_learn_within_half_a_point(blobs, c):
    train, labels, test, truth = blobs
    ours = fit_independent(train, labels, c)
    theirs = [LogisticRegression(C=c, max_iter=2000).fit(train, labels[:, k]) for k in range(5)]
    scores = np.stack([model.decision_function(test) for model in theirs], axis=1)
    assert abs(ap.macro_ap(truth, ours.scores(test)) - ap.macro_ap(truth, scores)) <= 0.005
    assert abs(ap.micro_ap(truth, ours.scores(test)) - ap.micro_ap(truth, scores)) <= 0.005
    np.testing.assert_allclose(ours.weight.numpy(), np.concatenate([model.coef_ for model in theirs]), atol=2e-2)


@pytest.mark.parametrize("k", [5, 20])
def test_shares_of_neighbours_agree_with_scikit_learn_within_half_a_point(blobs, k):
    train, labels, test, truth = blobs
    ours = knn_shares(train, labels, test, (5, 20))[k]
    theirs = KNeighborsClassifier(k, metric="cosine").fit(train, labels).predict_proba(test)
    scores = np.stack([each[:, 1] for each in theirs], axis=1)
    assert abs(ap.macro_ap(truth, ours) - ap.macro_ap(truth, scores)) <= 0.005
    np.testing.assert_allclose(ours.mean(axis=0), scores.mean(axis=0), atol=0.005)


def test_c_is_chosen_by_macro_average_precision_on_validation(blobs):
    train, labels, test, truth = blobs
    model, c = fit_independent_validated(train[:450], labels[:450], train[450:], labels[450:])
    assert c in {0.001, 0.01, 0.1, 1.0}
    assert ap.macro_ap(truth, model.scores(test)) > 0.6


def test_the_published_layer_equals_torch_autograd_step_by_step(blobs):
    """The slow, obvious version: nn.Linear, MultiLabelSoftMarginLoss, Adam, MultiStepLR on the same start, order and dropout."""
    train, labels = blobs[0][:100], blobs[1][:100]
    protocol, epochs = PaperProtocol(batch_size=32, dropout=0.2), 5
    ours = fit_soft_margin_adam(train, labels, protocol, epochs, seed=4)

    generator = torch.Generator().manual_seed(4)
    bound = train.shape[1] ** -0.5
    start = torch.empty(5, train.shape[1] + 1).uniform_(-bound, bound, generator=generator)
    layer = nn.Linear(train.shape[1], 5)
    with torch.no_grad():
        layer.weight.copy_(start[:, :-1])
        layer.bias.copy_(start[:, -1])
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4])
    x, y = torch.from_numpy(train), torch.from_numpy(labels).float()
    for _ in range(epochs):
        order = torch.randperm(100, generator=generator)
        for batch in order[:96].split(32):
            optimizer.zero_grad()
            kept = torch.rand(32, train.shape[1], generator=generator) < 0.8
            nn.MultiLabelSoftMarginLoss()(layer(x[batch] * kept / 0.8), y[batch]).backward()
            optimizer.step()
        schedule.step()
    torch.testing.assert_close(ours.weight, layer.weight.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.bias, layer.bias.detach(), atol=1e-5, rtol=1e-4)


def test_a_share_of_the_training_images_is_seeded():
    assert taken(np.zeros(100), 0.1, 42).tolist() == taken(np.zeros(100), 0.1, 42).tolist()
    assert len(set(taken(np.zeros(100), 0.1, 42))) == 10
    assert len(taken(np.zeros(3), 0.1, 42)) == 1


def test_the_paired_gain_of_scores_is_that_of_their_macro_average_precision(noisy):
    labels, scores = noisy
    part = Part(tuple(f"i{n}" for n in range(200)), labels)
    better = scores + labels.astype(np.float32)
    a, b = (pd.DataFrame(MultiLabel(part, each, tuple("abcdef")).table()) for each in (better, scores))
    gain, low, high = paired_gain(a, b.iloc[::-1], draws=300)
    assert gain == pytest.approx(ap.macro_ap(labels, better) - ap.macro_ap(labels, scores))
    assert 0 < low < gain < high
    b.at[0, "label"] = 1 - b.at[0, "label"]
    with pytest.raises(UserError, match="1 images have different labels"):
        paired_gain(a, b)
