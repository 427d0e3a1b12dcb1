"""Fine-tuning for image labels, and `evaluate`, which judges any encoder on any task."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.classification import LabelledImages, Part
from caco_assets.downstream.evaluate import TaskRequest, evaluate, evaluations_file
from caco_assets.downstream.features.baselines import Candidate
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.features.preprocessed_images import joined, preprocessed
from caco_assets.downstream.finetuning.network_loop import Labels, Network, predict, train_network
from caco_assets.downstream.protocols.evaluation import Evaluation
from caco_assets.downstream.protocols.fine_tune import fine_tune, fine_tune_paper
from caco_assets.downstream.tasks import TASKS
from caco_assets.pretraining.encoder.encoder import EUROSAT_RGB, RGB, Encoder, Preprocessing
from caco_assets.settings import FineTune, TaskData, load_settings

ARCHITECTURE = "test_resnet"
SIDE = 16
OPTIONS = FineTune(epochs=4, batch_size=16, learning_rates=(3e-3,), warmup=0.1)


def quiet(_line: str) -> None:
    pass


def striped(rng: np.random.Generator, label: int) -> np.ndarray:
    """uint8 (3, 16, 16): stripes along or across, of the same colours, so that only shape tells the classes apart."""
    pattern = np.zeros((SIDE, SIDE))
    pattern[:: 4 if label else 1, :: 1 if label else 4] = 1
    pattern = np.roll(pattern, rng.integers(0, 4, 2), (0, 1))
    return np.clip(60 + 120 * pattern + rng.normal(0, 15, (3, SIDE, SIDE)), 0, 255).astype(np.uint8)


def stripes(several: bool = False, count: int = 96) -> LabelledImages:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    images = {f"i{n:03d}": striped(rng, label) for n, label in enumerate(labels)}
    shown = np.stack([labels, 1 - labels], 1).astype(np.uint8) if several else labels.astype(np.int64)
    names, cuts = np.array(list(images)), (count // 2, 3 * count // 4)
    parts = {
        part: Part(tuple(names[index]), shown[index])
        for part, index in zip(("train", "val", "test"), np.split(np.arange(count), cuts), strict=True)
    }
    return LabelledImages(
        "stripes", ("along", "across"), EUROSAT_RGB, (3, SIDE, SIDE), "uint8", parts, "v1", "stripes", images.__getitem__
    )


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.random(ARCHITECTURE, Preprocessing.of_pack(RGB, "eurosat", 32), 3)


@pytest.fixture
def evaluation(encoder, tmp_path):
    def make(data: LabelledImages, seed: int = 0, options: FineTune = OPTIONS) -> Evaluation:
        candidate = Candidate.of("caco", "candidate", 0, encoder)
        return Evaluation(TASKS["eurosat"], data, candidate, encoder, 32, seed, 0, FeatureCache(tmp_path / "cache"), options)

    return make


@pytest.mark.parametrize("several", [False, True])
def test_a_network_learns_what_a_frozen_one_does_not_show(evaluation, several):
    (result,) = fine_tune(evaluation(stripes(several)))
    figures = {figure.metric: figure for figure in result.outcome.figures(100, np.random.default_rng(0))}
    figure = figures["macro_ap" if several else "accuracy"]
    assert figure.value > 0.9
    assert figure.low <= figure.value <= figure.high
    assert result.method == "fine_tune"
    assert "chosen on validation" in result.note
    assert result.outcome.n == 24


def test_the_encoder_itself_is_left_as_it_was(evaluation, encoder):
    before = encoder.identity
    list(fine_tune(evaluation(stripes())))
    assert encoder.identity == before


def test_the_same_seed_gives_the_same_network_and_another_seed_another(evaluation, encoder):
    data = stripes()
    inputs = preprocessed(encoder, data, "train", 32, evaluation(data).cache)
    labels = Labels.of(data.parts["train"], data.classes)

    def trained(seed: int) -> np.ndarray:
        *_, (_, _, network) = train_network(encoder, inputs, data.parts["train"].labels, labels, OPTIONS, seed)
        return predict(network, inputs, OPTIONS)

    before = torch.get_rng_state()
    one = trained(1)
    torch.rand(3)  # chance elsewhere changes nothing
    np.testing.assert_array_equal(one, trained(1))
    assert not np.allclose(one, trained(2))
    torch.set_rng_state(before)
    trained(1)
    assert torch.equal(before, torch.get_rng_state())


def test_validation_chooses_among_the_rates(evaluation):
    hopeless, good = 1e-9, 3e-3
    (result,) = fine_tune(evaluation(stripes(), options=OPTIONS.model_copy(update={"learning_rates": (hopeless, good)})))
    assert "rate 0.003" in result.note


def test_the_paper_way_trains_on_validation_images_too_and_takes_the_last_epoch(evaluation):
    (result,) = fine_tune_paper(evaluation(stripes()))
    assert "last of 4 epochs" in result.note
    assert (result.outcome.predictions == result.outcome.part.labels).mean() > 0.9


def test_the_kept_inputs_are_what_the_encoder_itself_would_see(evaluation, encoder, tmp_path):
    data = stripes()
    inputs = preprocessed(encoder, data, "val", 32, evaluation(data).cache)
    pixels = np.stack([data.decode(name) for name in data.parts["val"].names])
    own = encoder.preprocess(pixels, data.pixel_format, 32)
    # half precision holds less than a tenth of one of the 256 levels
    np.testing.assert_allclose(inputs.batch(np.arange(len(inputs))).numpy(), own.numpy(), atol=0.1 / 255 / 0.22)
    assert len(list((tmp_path / "cache" / "inputs").glob("*.npy"))) == 1


def test_two_parts_are_joined_as_one(evaluation, encoder):
    data = stripes()
    train, val = (preprocessed(encoder, data, part, 32, evaluation(data).cache) for part in ("train", "val"))
    both = joined(train, val)
    assert len(both) == len(train) + len(val)
    mixed = np.array([50, 0, 71, 3])
    expected = torch.cat([each.batch(np.array([n])) for each, n in ((val, 2), (train, 0), (val, 23), (train, 3))])
    assert torch.equal(both.batch(mixed), expected)


def test_draws_of_one_set_share_their_inputs(evaluation, encoder, tmp_path):
    data = replace(stripes(), folds=(stripes().parts, stripes().parts))
    for seed in (0, 1):
        for part in ("train", "val", "test"):
            preprocessed(encoder, data.fold(seed), part, 32, evaluation(data).cache)
    assert len(list((tmp_path / "cache" / "inputs").glob("*.npy"))) == 1


def test_bfloat16_trains_on_a_processor_too(evaluation):
    (result,) = fine_tune(evaluation(stripes(), options=OPTIONS.model_copy(update={"precision": "bf16", "optimizer": "sgd"})))
    assert 0 <= (result.outcome.predictions == result.outcome.part.labels).mean() <= 1


def test_a_network_is_a_backbone_and_a_linear_layer(encoder):
    network = Network(encoder, 5, torch.Generator().manual_seed(0))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


# --- evaluate ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("caco_assets.pretraining.encoder.encoder.try_to_load_from_cache", lambda *_: None)
    return load_settings("tiny", home=tmp_path, downstream={"baselines": ["raw_statistics"], "seeds": [0, 1], "paper_epochs": 2})


@pytest.fixture
def task_request(eurosat):
    wanted = {"task": "eurosat", "data": str(eurosat), "protocols": ["clean"], "sizes": [32], "fine_tune": True}
    return TaskRequest(TaskData.model_validate(wanted), twin=True)


def test_an_encoder_is_judged_recorded_and_not_judged_again(logged, settings, task_request, encoder):
    short = settings.downstream.model_copy(update={"fine_tune_twin": FineTune(epochs=1, learning_rates=(1e-3,))})
    settings = settings.model_copy(update={"downstream": short})
    lines = logged()
    rows = evaluate(settings, [task_request], encoder, name="mine")
    tuned = [row for row in rows if row.method == "fine_tune"]
    # the settings for twins, one row for each seed, and none for statistics, which have nothing to train
    assert [(row.encoder, row.seed, row.protocol) for row in tuned] == [("mine", 0, "clean"), ("mine", 1, "clean")]
    assert "of 1 chosen" in tuned[0].note
    assert {row.row for row in rows} == {"eurosat_twin"}
    assert {row.encoder for row in rows} == {"mine", "raw_statistics"}
    stored = pd.read_parquet(evaluations_file(settings))
    assert len(stored) == len(rows)
    lines.clear()
    assert evaluate(settings, [task_request], encoder, name="mine") == rows
    assert not any("encode" in line or "image" in line for line in lines)
    assert len(pd.read_parquet(evaluations_file(settings))) == len(rows)


@pytest.mark.systems
def test_tasks_on_several_gpus_give_the_rows_of_one_process(settings, task_request, encoder, tmp_path):
    task_requests = [
        replace(task_request, wanted=task_request.wanted.model_copy(update={"fine_tune": False, "limit": limit}))
        for limit in (40, 60)
    ]
    alone = settings.model_copy(update={"home": tmp_path / "alone"})
    rows = evaluate(alone, task_requests, encoder, name="mine")
    assert evaluate(settings, task_requests, encoder, name="mine", gpus=("0", "1")) == rows
    assert len(pd.read_parquet(evaluations_file(settings))) == len(rows)


def test_rows_of_tasks_before_a_failing_one_are_kept_and_bad_data_stops_before_work(settings, task_request, encoder, tmp_path):
    plain = replace(task_request, wanted=task_request.wanted.model_copy(update={"fine_tune": False}))
    absent = TaskRequest(TaskData(task="aid_20", data=tmp_path / "nowhere"), twin=False)
    with pytest.raises(UserError, match=r"downstream\.tasks\.aid_20: .*nothing there; fetch it from https://captain-whu"):
        evaluate(settings, [plain, absent], encoder, name="mine")
    assert not evaluations_file(settings).exists()
    evaluate(settings, [plain], encoder, name="mine")
    assert evaluations_file(settings).exists()


def test_a_limit_and_a_twin_are_in_the_name_of_the_row(task_request):
    assert task_request.task_name == "eurosat_twin"
    part = replace(task_request, wanted=task_request.wanted.model_copy(update={"limit": 20}), twin=False)
    assert part.task_name == "eurosat_limit20"


def test_the_command_judges_prints_and_records(settings, eurosat, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("CACO_HOME", str(tmp_path))
    monkeypatch.setenv("CACO_DOWNSTREAM__BASELINES", '["raw_statistics"]')
    encoder.save(tmp_path / "mine", {}, {})
    wanted = ["--profile", "tiny", "--encoder", str(tmp_path / "mine"), "--protocol", "clean", "--size", "32", "--limit", "15"]
    done = CliRunner().invoke(main, ["evaluate", "--task", "eurosat", "--data", str(eurosat), *wanted], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "eurosat_limit15 · clean · linear probe · 32 px" in done.output
    assert "raw_statistics" in done.output
    assert "evaluations.parquet" in done.output
    wrong = CliRunner().invoke(main, ["evaluate", "--task", "eurosta", *wanted])
    assert wrong.exit_code == 2
    assert "did you mean eurosat" in wrong.output
    assert CliRunner().invoke(main, ["evaluate", *wanted]).exit_code == 2
