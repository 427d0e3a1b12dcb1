"""Training of decoders and networks that is interrupted ends as it would have ended."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.datasets.classification import Part as Images
from caco_assets.downstream.datasets.segmentation import PHOTOGRAPH
from caco_assets.downstream.features.baselines import Candidate
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.features.pyramids import Fresh, Tiles, Tuned
from caco_assets.downstream.finetuning.decoder_loop import DecoderConfig, Part, fit
from caco_assets.downstream.finetuning.dense_targets import Change
from caco_assets.downstream.finetuning.epoch_checkpoint import EpochCheckpoint
from caco_assets.downstream.protocols.evaluation import Evaluation
from caco_assets.downstream.protocols.fine_tune import fine_tune, fine_tune_paper
from caco_assets.downstream.tasks import TASKS
from caco_assets.pretraining.encoder.encoder import EUROSAT_RGB, RGB, Encoder, Preprocessing
from caco_assets.settings import FineTune

CPU = torch.device("cpu")
SIDE = 32
EPOCHS = 4


def encoder() -> Encoder:
    return Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "eurosat", SIDE), 0)


def tiles(seed: int) -> Tiles:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (5, 2, 3, SIDE, SIDE)).astype(np.uint8)
    return Tiles(images, rng.integers(0, 2, (5, SIDE, SIDE)).astype(np.uint8), PHOTOGRAPH)


class PulledPlugError(Exception):
    """The power went."""


class Broken(Change):
    """Loses power in the validation of some epoch."""

    def __init__(self, epoch: int) -> None:
        object.__setattr__(self, "outputs", 1)
        object.__setattr__(self, "left", [epoch])

    def validation_score(self, counts_for_validation: np.ndarray) -> tuple[float, float]:
        self.left[0] -= 1
        if self.left[0] == 0:
            raise PulledPlugError
        return super().validation_score(counts_for_validation)


@pytest.mark.parametrize("tuned", [False, True])
def test_a_decoder_ends_as_if_nothing_had_happened(tmp_path, tuned):
    frozen = encoder().eval()
    checkpoint = EpochCheckpoint(tmp_path / "state.pt", seconds=0)
    recipe = DecoderConfig(EPOCHS, 2, 1e-3, 1e-4, 0.9, 1e-4)

    def trained(target: Change, checkpoint: EpochCheckpoint | None = None):
        train = Part(tiles(0), Tuned(frozen) if tuned else Fresh(frozen))
        return fit(train, Part(tiles(1), Fresh(frozen)), target, recipe, 3, CPU, checkpoint)

    expected = trained(Change())
    before = torch.get_rng_state()
    with pytest.raises(PulledPlugError):
        trained(Broken(3), checkpoint)
    assert torch.load(checkpoint.path, weights_only=True)["epoch"] == 2
    torch.rand(5)  # another process, another state of chance
    found = trained(Change(), checkpoint)
    assert (found.epoch, found.threshold, found.score) == (expected.epoch, expected.threshold, expected.score)
    for one, other in ((found.decoder, expected.decoder), (found.tuned, expected.tuned)):
        if one is not None and other is not None:
            theirs = other.state_dict()
            assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())
    torch.set_rng_state(before)


def images() -> LabelledImages:
    rng = np.random.default_rng(0)
    pixels = {f"i{n:02d}": rng.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8) for n in range(36)}
    labels = rng.integers(0, 2, len(pixels))
    names = np.array(list(pixels))
    parts = {
        part: Images(tuple(names[index]), labels[index])
        for part, index in zip(("train", "val", "test"), np.split(np.arange(36), (20, 28)), strict=True)
    }
    return LabelledImages("noise", ("a", "b"), EUROSAT_RGB, (3, SIDE, SIDE), "uint8", parts, "v", "noise", pixels.__getitem__)


def evaluation(cache: Path, checkpoint: EpochCheckpoint) -> Evaluation:
    options = FineTune(epochs=EPOCHS, batch_size=8, learning_rates=(1e-3, 3e-3), warmup=0.1)
    given, source = Candidate.of("caco", "candidate", 0, encoder()), encoder()
    return Evaluation(TASKS["eurosat"], images(), given, source, SIDE, 1, 0, FeatureCache(cache), options, checkpoint)


@pytest.mark.parametrize(("protocol", "stop"), [(fine_tune, 3), (fine_tune, 6), (fine_tune_paper, 3)])
def test_a_fine_tuned_network_ends_as_if_nothing_had_happened(logged, tmp_path, monkeypatch, protocol, stop):
    """Stopped at the first rate, at the second one, and without validation."""
    (expected,) = protocol(evaluation(tmp_path, EpochCheckpoint()))
    checkpoint = EpochCheckpoint(tmp_path / "state.pt", seconds=0)
    saved = []

    def save(state) -> None:
        EpochCheckpoint.save(checkpoint, state)
        saved.append((state["rate"], state["epoch"]))
        if len(saved) == stop - (stop > EPOCHS):
            raise PulledPlugError

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(PulledPlugError):
        list(protocol(evaluation(tmp_path, checkpoint)))
    monkeypatch.undo()
    lines = logged()
    (found,) = protocol(evaluation(tmp_path, EpochCheckpoint(checkpoint.path, seconds=0)))
    assert f"resumes after epoch {saved[-1][1]}" in lines
    assert found.note == expected.note
    np.testing.assert_array_equal(found.outcome.predictions, expected.outcome.predictions)


def test_a_damaged_state_is_said_and_removed(logged, tmp_path):
    lines = logged()
    checkpoint = EpochCheckpoint(tmp_path / "state.pt")
    checkpoint.path.write_bytes(b"not a state")
    assert checkpoint.load() is None
    assert not checkpoint.path.exists()
    assert "training starts from the beginning" in lines[0]


def test_states_are_written_once_in_a_while_and_nothing_is_written_without_a_place(tmp_path):
    assert not EpochCheckpoint(tmp_path / "state.pt", seconds=3600).due()
    assert EpochCheckpoint(tmp_path / "state.pt", seconds=0).due()
    assert not EpochCheckpoint(None, seconds=0).due()


def test_what_was_judged_leaves_no_state_behind(tmp_path):
    checkpoint = EpochCheckpoint(tmp_path / "state.pt", seconds=0)
    list(fine_tune(evaluation(tmp_path, checkpoint)))
    assert checkpoint.path.exists()
    checkpoint.clear()
    assert not checkpoint.path.exists()
    assert replace(checkpoint, path=None).load() is None


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_finetune_resume import EpochCheckpoint, evaluation, fine_tune
folder = Path(sys.argv[2])
checkpoint = EpochCheckpoint(folder / "state.pt", seconds=0)
save = checkpoint.save
checkpoint.save = lambda state: (save(state), print(state["epoch"], flush=True), time.sleep(0.2))
list(fine_tune(evaluation(folder, checkpoint)))
"""


@pytest.mark.systems
def test_a_killed_process_resumes_in_another(logged, tmp_path):
    (expected,) = fine_tune(evaluation(tmp_path, EpochCheckpoint()))
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert [process.stdout.readline().strip() for _ in range(2)] == ["1", "2"]
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    lines = logged()
    (found,) = fine_tune(evaluation(tmp_path, EpochCheckpoint(tmp_path / "state.pt")))
    assert "resumes after epoch" in lines[0]
    assert found.note == expected.note
    np.testing.assert_array_equal(found.outcome.predictions, expected.outcome.predictions)
