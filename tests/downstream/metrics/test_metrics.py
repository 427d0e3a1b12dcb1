import numpy as np
import pandas as pd
import pytest

from caco_assets.core.errors import UserError
from caco_assets.downstream.metrics.bootstrap import accuracy, bootstrap_mean
from caco_assets.downstream.metrics.paired import paired_gain


def items(predictions, labels=None):
    labels = np.zeros(len(predictions), int) if labels is None else labels
    return pd.DataFrame({"image": [f"i{n}" for n in range(len(predictions))], "label": labels, "prediction": predictions})


def slow_bootstrap(values, draws, rng):
    means = [rng.choice(values, len(values)).mean() for _ in range(draws)]
    return np.quantile(means, [0.025, 0.975])


def test_the_interval_equals_that_of_drawing_items_one_by_one():
    values = (np.random.default_rng(0).random(300) < 0.7).astype(float)
    fast = bootstrap_mean(values, 20_000, np.random.default_rng(1))
    np.testing.assert_allclose(fast, slow_bootstrap(values, 4000, np.random.default_rng(2)), atol=0.006)


def test_the_interval_is_the_same_for_the_same_seed():
    values = np.array([0.0, 1.0, 1.0, 0.5])
    assert bootstrap_mean(values, 100, np.random.default_rng(5)) == bootstrap_mean(values, 100, np.random.default_rng(5))


def test_a_certain_figure_has_an_interval_of_no_width():
    assert bootstrap_mean(np.ones(10), 100, np.random.default_rng(0)) == (1.0, 1.0)


def test_accuracy_is_the_share_of_right_answers():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_a_paired_gain_is_tighter_than_two_separate_intervals():
    rng = np.random.default_rng(0)
    right = rng.random(1000) < 0.7
    better = right | (np.arange(1000) < 60)
    gain, low, high = paired_gain(items(np.where(better, 0, 1)), items(np.where(right, 0, 1)))
    assert gain == pytest.approx(better.mean() - right.mean())
    assert 0 < low < gain < high
    alone = bootstrap_mean(right.astype(float), 10_000, np.random.default_rng(0))
    assert high - low < 0.6 * (alone[1] - alone[0])


def test_the_order_of_the_images_does_not_matter():
    a, b = items([0, 1, 0, 1]), items([0, 0, 1, 1])
    assert paired_gain(a, b) == paired_gain(a.iloc[::-1], b)


def test_swapping_the_two_turns_the_sign():
    a, b = items([0, 0, 0, 1] * 20), items([0, 0, 1, 1] * 20)
    assert paired_gain(a, b)[0] == -paired_gain(b, a)[0] == 0.25


def test_tables_about_other_images_or_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match="4 and 3 images, 3 in common"):
        paired_gain(items([0, 0, 0, 0]), items([0, 0, 0]))
    with pytest.raises(UserError, match="1 images have different labels"):
        paired_gain(items([0, 0]), items([0, 0], labels=[0, 1]))


def test_files_are_read_like_tables(tmp_path):
    a, b = items([0, 0, 1]), items([0, 1, 1])
    a.to_parquet(tmp_path / "a.parquet")
    b.to_parquet(tmp_path / "b.parquet")
    assert paired_gain(tmp_path / "a.parquet", tmp_path / "b.parquet") == paired_gain(a, b)
