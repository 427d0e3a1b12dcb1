"""On a GPU: no step makes the host wait, training learns and is saved, and an interrupted one resumes."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder, backbone
from caco_assets.pretraining.loading.gpu_loader import DeviceLoader
from caco_assets.pretraining.loading.sampler import Batch, Sampler
from caco_assets.pretraining.objectives import OBJECTIVES, Objective, ObjectiveConfig, build, objective_class
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.pretrain import make_encoder
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import Pretraining

pytestmark = pytest.mark.gpu


@pytest.fixture
def free_mode() -> Iterator[None]:
    """Waiting is allowed again afterwards."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def step(objective: Objective, sgd: torch.optim.Optimizer, batch: Batch) -> torch.Tensor:
    objective.before_step()
    with torch.autocast(batch.views.device.type, torch.bfloat16):
        output = objective(batch.views, batch.slots)
    sgd.zero_grad(set_to_none=True)
    output.loss.backward()
    sgd.step()
    objective.after_step(output)
    return output.loss.detach()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_step_makes_the_host_wait(pack: Path, cuda: torch.device, name: str, free_mode: None):
    sampler = Sampler(pack, objective_class(name).plan, batch_size=8, image_size=48, crop_scale=(0.2, 1.0), seed=0)
    loader = DeviceLoader(sampler, device=cuda, memory=1.0)
    config = ObjectiveConfig(slots=2 * sampler.places, queue_size=64, embedding_dim=16, geo_clusters=4, lonlat=sampler.lonlat)
    network = backbone("resnet18", 3)
    objective = build(name, config, network, features=512, seed=0).to(cuda).train()
    sgd = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], 0.01, momentum=0.9, fused=True)
    found = [step(objective, sgd, batch) for batch in loader.epoch(0)]
    torch.cuda.set_sync_debug_mode("error")
    found += [step(objective, sgd, batch) for batch in loader.epoch(1)]
    torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(found).isfinite().all()


def options(**changes: object) -> Pretraining:
    values = {
        "stretch": "reflectance",
        "image_size": 48,
        "batch_size": 8,
        "queue_size": 64,
        "epochs": 6,
        "momentum": 0.99,
        "device": "cuda",
    }
    return Pretraining(**{**values, **changes})


def run(pack: Path, folder: Path, opts: Pretraining, **sinks: object) -> dict:
    return make_encoder(RunConfig(pack=pack, target=folder, pretraining=opts), **sinks)


def losses(folder: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in read_metrics(folder / "metrics.jsonl") if name in line]


def test_a_short_training_with_caco_starts_as_on_the_cpu_and_its_encoder_serves_there(
    pack: Path, cuda: torch.device, tmp_path: Path
):
    for device in ("cpu", "cuda"):
        facts = run(pack, tmp_path / device, options(device=device, precision="fp32", epochs=2, learning_rate=0.003))
        assert not facts["collapsed"]
    on_cpu, on_gpu = losses(tmp_path / "cpu"), losses(tmp_path / "cuda")
    assert on_gpu[0] == pytest.approx(on_cpu[0], rel=0.01)
    # blurred views differ by a few levels, and what follows drifts apart
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0.1)
    encoder = Encoder.load(tmp_path / "cuda")
    assert np.isfinite(encoder.features(np.ones((2, 12, 48, 48), np.uint16), ARCHIVE)).all()


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


class KillAt:
    def __init__(self, step: int) -> None:
        self._step = step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._step:
            raise Killed


@pytest.mark.parametrize("memory", [1.0, 0.0], ids=["resident", "streamed"])
def test_an_interrupted_training_resumes_to_the_same_losses(pack: Path, cuda: torch.device, tmp_path: Path, memory: float):
    opts = options(pack_on_gpu=memory, precision="fp32", learning_rate=0.003)
    run(pack, tmp_path / "whole", opts)
    with pytest.raises(Killed):
        run(pack, tmp_path / "parts", opts, sinks=[KillAt(20)])
    run(pack, tmp_path / "parts", opts)
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    # sums of a GPU's convolutions come in any order: equal up to that
    np.testing.assert_allclose(parts, whole, rtol=2e-2)


def test_bfloat16_and_float32_tell_the_same_story(pack: Path, cuda: torch.device, tmp_path: Path):
    first = {}
    for precision in ("bf16", "fp32"):
        run(pack, tmp_path / precision, options(precision=precision, epochs=1))
        first[precision] = losses(tmp_path / precision)[0]
    assert first["bf16"] == pytest.approx(first["fp32"], rel=0.05)
