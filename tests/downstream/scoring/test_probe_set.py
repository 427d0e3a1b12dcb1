"""The probe set: a balanced, seeded choice that never sees the test part, as a product of its own."""

from dataclasses import replace

import numpy as np
import pytest

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.readers.eurosat import read
from caco_assets.downstream.probes.linear_knn import knn_predict
from caco_assets.downstream.scoring.probe_set import balanced, write_probe_set
from caco_assets.downstream.stage import probe_set
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.pretraining.training.online_probe import TRAIN, VALIDATION, ProbeSet, load_probe
from caco_assets.settings import load_settings


def silent(line: str) -> None:
    pass


def wanted(tmp_path, **downstream):
    row = {"tasks": {"eurosat_twin": {"task": "eurosat"}}, **downstream}
    return load_settings("tiny", home=tmp_path, pretraining={"probe_task": "eurosat_twin"}, downstream=row)


def test_classes_take_turns_and_a_small_one_gives_all_it_has():
    labels = np.array([0] * 50 + [1] * 50 + [2] * 3)
    chosen = labels[balanced(labels, 23, np.random.default_rng(0))]
    assert np.bincount(chosen).tolist() == [10, 10, 3]
    np.testing.assert_array_equal(balanced(labels, 999, np.random.default_rng(0)), np.arange(103))
    first, again, other = (balanced(labels, 20, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_the_test_part_is_never_read(eurosat, tmp_path):
    data = read(eurosat)
    decoded = []
    watched = replace(data, decode=lambda name: decoded.append(name) or data.decode(name))
    facts = write_probe_set(tmp_path / "set.npz", watched, seed=0)
    assert set(decoded) == set(data.parts["train"].names) | set(data.parts["val"].names)
    assert not set(decoded) & set(data.parts["test"].names)
    assert (facts["train"], facts["validation"], facts["classes"]) == (60, 20, 10)
    written = ProbeSet.read(tmp_path / "set.npz")
    for number, part in ((TRAIN, "train"), (VALIDATION, "val")):
        np.testing.assert_array_equal(written.labels[written.part == number], data.parts[part].labels)
    np.testing.assert_array_equal(written.images[0], data.decode(data.parts["train"].names[0]))


def test_the_probe_agrees_with_the_knn_of_the_scores(eurosat, tmp_path):
    write_probe_set(tmp_path / "set.npz", read(eurosat), seed=0)
    preprocessing = Preprocessing.of_pack(RGB, "eurosat", 32)
    encoder = Encoder.random("test_resnet", preprocessing, 0)
    found = ProbeSet.read(tmp_path / "set.npz")
    features, train = encoder.features(found.images, found.pixel_format), found.part == TRAIN
    guess = knn_predict(features[train], found.labels[train], features[~train], 10, (20,))[20]
    figure = load_probe(tmp_path / "set.npz", "test_resnet", preprocessing)(encoder.backbone)
    assert figure == pytest.approx((guess == found.labels[~train]).mean())


def test_the_stage_makes_one_product_and_reuses_it(tmp_path, make_eurosat):
    settings = wanted(tmp_path)
    make_eurosat(settings.paths.benchmarks / "eurosat", per_class=80)
    product = probe_set(settings)
    assert product.path == settings.paths.probe_set
    assert (product.facts["train"], product.facts["validation"]) == (240, 120)
    found = ProbeSet.read(product.path)
    assert set(np.bincount(found.labels[found.part == TRAIN])) == {24}
    assert set(np.bincount(found.labels[found.part == VALIDATION])) == {12}
    assert probe_set(settings).reused


def test_a_row_that_cannot_be_probed_on_is_named(tmp_path):
    with pytest.raises(UserError, match=r"profile tiny: pretraining.probe_task names no row of downstream.tasks"):
        probe_set(load_settings("tiny", home=tmp_path))
    with pytest.raises(UserError, match=r"pretraining.probe_task=twin: no row of downstream.tasks \(eurosat_twin\)"):
        load_settings("tiny", home=tmp_path, pretraining={"probe_task": "twin"})
    absent = {"eurosat_twin": {"task": "eurosat", "data": str(tmp_path / "none"), "optional": True}}
    with pytest.raises(UserError, match=r"pretraining.probe_task=eurosat_twin: data=.*none: there is nothing there; name another"):
        probe_set(wanted(tmp_path, tasks=absent))
    with pytest.raises(UserError, match=r"make the embedded twins first"):
        probe_set(wanted(tmp_path))
