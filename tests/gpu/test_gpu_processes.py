"""Two processes on two GPUs, with synchronised batch norm, give the losses of one."""

import subprocess
from pathlib import Path

import pytest
import torch

from caco_assets.pretraining.launch.launchers import command
from caco_assets.pretraining.training.metrics_log import read_metrics
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import Pretraining

pytestmark = pytest.mark.gpu

OPTIONS = {
    "backbone": "test_resnet",
    "image_size": 32,
    "batch_size": 16,
    "queue_size": 64,
    "epochs": 2,
    "device": "cuda",
    "precision": "fp32",
}


def losses(pack: Path, target: Path, **changes: object) -> list[float]:
    """Of every step of a training by the command line of its launcher."""
    config = RunConfig(pack=pack, target=target, pretraining=Pretraining(**{**OPTIONS, **changes}))
    file = target.with_name(f"{target.name}.config.json")
    file.write_text(config.model_dump_json())
    done = subprocess.run(command(file, config.pretraining), stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line["loss"] for line in read_metrics(target / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("objective", ["caco", "simclr_caco"])
def test_two_gpus_make_the_losses_of_one(cuda: torch.device, pack: Path, tmp_path: Path, objective: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"one GPU here ({torch.cuda.get_device_name(cuda)}): two processes need one each")
    one = losses(pack, tmp_path / "one", objective=objective)
    two = losses(pack, tmp_path / "two", objective=objective, launcher="torchrun", processes=2)
    assert two == pytest.approx(one, rel=1e-3)
