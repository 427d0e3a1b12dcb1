"""What makes a step fast: nothing in it waits for the device, memory lies channels-last, four key passes, compiled encoders."""

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import backbone
from caco_assets.pretraining.encoder.preprocessing import RGB
from caco_assets.pretraining.objectives import FIDELITY, OBJECTIVES, Objective, ObjectiveConfig, build
from caco_assets.pretraining.training.compiled import compile_encoders
from caco_assets.pretraining.views.augmentation import draw
from caco_assets.pretraining.views.gpu_renderer import DeviceRenderer
from caco_assets.pretraining.views.view_plans import PLANS

PLACES, BATCH, SIDE = 8, 8, 32


def make(name: str, fidelity: str = "improved") -> Objective:
    lonlat = np.random.default_rng(0).uniform((-180, -60), (180, 70), (PLACES, 2))
    sizes = {"slots": 2 * PLACES, "embedding_dim": 8, "queue_size": 32, "geo_clusters": 4}
    config = ObjectiveConfig(**sizes, switches=FIDELITY[fidelity], lonlat=lonlat)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = backbone("test_resnet", 3)
    return build(name, config, network, features=int(network.num_features), seed=0)


def batch(objective: Objective, device: str = "cpu") -> tuple[Tensor, Tensor]:
    views = torch.randn(len(objective.plan.views), BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return views.to(device), torch.arange(BATCH).to(device)


def step(objective: Objective, optimizer: torch.optim.Optimizer, views: Tensor, slots: Tensor) -> Tensor:
    objective.before_step()
    output = objective(views, slots)
    optimizer.zero_grad(set_to_none=True)
    output.loss.backward()
    optimizer.step()
    objective.after_step(output)
    return output.loss


def sgd(objective: Objective) -> torch.optim.SGD:
    trained = [p for p in objective.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_step_asks_the_device_for_a_number(name: str, monkeypatch: pytest.MonkeyPatch):
    """Tensors of the device `meta` have no values: reading one fails, where on a GPU it would wait."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know `meta`
    objective = make(name).to("meta").train()
    optimizer = sgd(objective)
    for _ in range(2):
        loss = step(objective, optimizer, *batch(objective, "meta"))
    assert loss.device.type == "meta"
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


@pytest.mark.parametrize("plan", ["caco", "moco"])
@pytest.mark.parametrize("bands", [RGB, ("B08", "B11")])
def test_no_view_asks_the_device_for_a_number(plan: str, bands: tuple[str, ...]):
    meta = torch.device("meta")
    renderer = DeviceRenderer(PLANS[plan], bands, 40, SIDE, (0.5,) * len(bands), (0.5,) * len(bands), meta)
    images = torch.empty((20, 40, 40, len(bands)), dtype=torch.uint8, device=meta)
    parameters = draw(np.random.default_rng(0), PLANS[plan], BATCH, 40, (0.2, 1.0))
    which = np.zeros((len(PLANS[plan].views), BATCH), np.int64)
    views = renderer.render(images, which, parameters)
    assert views.shape == (len(PLANS[plan].views), BATCH, len(bands), SIDE, SIDE)


def test_images_weights_and_features_lie_channels_last():
    objective = make("caco")
    convolution = next(module for module in objective.encoder_q.modules() if isinstance(module, nn.Conv2d))
    seen: list[Tensor] = []
    convolution.register_forward_hook(lambda module, inputs, output: seen.extend((module.weight, *inputs, output)))
    objective(*batch(objective))
    assert len(seen) == 3
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)


def test_the_change_estimate_costs_one_pass_more_than_the_three_keys():
    counts = {}
    for name in ("teco", "caco"):
        objective = make(name)
        passes: list[int] = []
        objective.get_submodule("encoder_k").register_forward_hook(lambda *_, passes=passes: passes.append(1))
        objective(*batch(objective))
        counts[name] = len(passes)
    assert counts == {"teco": 3, "caco": 4}


def test_a_step_computes_nothing_that_is_not_needed():
    objective = make("caco")
    views, slots = batch(objective)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        objective.encoder_q(views[0])
    with FlopCounterMode(display=False) as whole:
        step(objective, sgd(objective), views, slots)
    # query forward and backward (two forwards, less the gradient of the pixels), four keys; heads and logits are the rest
    assert 6.5 < whole.get_total_flops() / once.get_total_flops() < 7.2


def test_compiled_encoders_train_to_the_same_weights():
    losses, states = [], []
    for compiled in (False, True):
        objective = make("caco").train()
        if compiled:
            compile_encoders(objective, backend="aot_eager")
        optimizer = sgd(objective)
        losses.append([step(objective, optimizer, *batch(objective)).item() for _ in range(3)])
        states.append(objective.state_dict())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-4)
    assert states[0].keys() == states[1].keys()
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-3, equal_nan=True)


def test_without_a_c_compiler_compiling_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match=re.escape("pretraining.compile=true: this machine has no C compiler")):
        compile_encoders(make("caco"))
