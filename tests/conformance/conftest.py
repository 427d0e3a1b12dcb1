"""A second set of golden-format files, under other settings, from a slow and obvious implementation of the published step.

It is written from the description of the method, one similarity at a time, and shares no code with the package.
"""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

SETTINGS = {
    "emb_dim": 24, "queue": 36, "batch": 12, "img": 48, "momentum": 0.5, "temp": 0.2, "lr": 0.1, "sgd_momentum": 0.8, "wd": 1e-3,
    "seed": 11, "n": 40,
}  # fmt: skip
SPACES = {"moco": 1, "seco": 3, "teco": 3, "caco": 3}


@pytest.fixture(scope="session")
def recipe(golden: Path) -> ModuleType:
    """`recipe.py` of the golden folder."""
    spec = importlib.util.spec_from_file_location("golden_recipe", golden / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def other_golden(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of golden-format files with other settings."""
    folder = tmp_path_factory.mktemp("other_golden")
    for name in SPACES:
        np.savez(folder / f"{name}_tiny.npz", **slow_run(name, recipe))
    return folder


class SlowState(nn.Module):
    """The reference's state, under the reference's names."""

    def __init__(self, name: str, recipe: ModuleType) -> None:
        super().__init__()
        E, C, K = SPACES[name], SETTINGS["emb_dim"], SETTINGS["queue"]
        self.register_buffer("queue", torch.zeros(E, C, K))
        self.register_buffer("queue_ptr", torch.zeros(E, 1, dtype=torch.int64))
        self.encoder_q = nn.Sequential(*list(recipe.tiny().children())[:-1], nn.Flatten())
        self.encoder_k = nn.Sequential(*list(recipe.tiny().children())[:-1], nn.Flatten())
        for side in ("q", "k"):
            heads = [nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, C)) for _ in range(E)]
            setattr(self, f"heads_{side}", nn.ModuleList(heads))
        self.load_state_dict(recipe.fill(self.state_dict(), SETTINGS["seed"]))


def unit(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    z = head(features)
    return z / z.norm(dim=1, keepdim=True)


def slow_logits(name: str, i: int, q, keys, queue, label) -> torch.Tensor:
    """Logits of space `i`, one at a time. `q` (N, C); `keys[j]` (N, C) of view j; `queue` (C, K); `label` (N,)."""
    N, K = len(q), queue.shape[1]
    paired = name in ("teco", "caco")
    rows = [*range(0, N, 2), *range(1, N, 2)] if paired else range(N)
    table = []
    for r in rows:
        row = [q[r] @ keys[i][r]]
        row += [q[r] @ queue[:, k] for k in range(K) if not paired or k % 2 == r % 2]
        others = [q[r] @ keys[j][n] for j in range(len(keys)) for n in range(N) if i > 0 and j != i]
        cross = []
        for n in range(N):
            if n % 2 != r % 2:
                ignored = name == "caco" and n // 2 == r // 2 and label[r] == 0
                cross.append(q[r] @ keys[i][n] + (-1e8 if ignored else 0.0))
        if name == "seco":
            row += others
        elif name == "teco":
            row += cross + others
        elif name == "caco":
            row += others + cross
        table.append(torch.stack(row))
    return torch.stack(table) / SETTINGS["temp"]


def slow_loss(logits: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(())
    for table in logits:
        for row in table:
            total = total + (torch.logsumexp(row, 0) - row[0]) / len(table)
    return total


def slow_run(name: str, recipe: ModuleType, steps: int = 2) -> dict[str, np.ndarray]:
    """All entries of one golden-format file."""
    random = np.random.default_rng(5)
    state, s = SlowState(name, recipe), SETTINGS
    trained = [(n, p) for n, p in state.named_parameters() if n.startswith(("encoder_q", "heads_q"))]
    momenta: dict[str, torch.Tensor] = {}
    averages, seen = np.zeros((s["n"], 3)), np.zeros(s["n"], np.int64)
    out = {"state_keys": np.array(list(state.state_dict())), "cfg": np.array(" ".join(f"{k}={v}" for k, v in s.items()))}
    for step in range(steps):
        E, B = SPACES[name], s["batch"]
        x_u8 = random.integers(0, 256, (1 + E, B, 3, s["img"], s["img"]), dtype=np.uint8)
        places = random.choice(s["n"] // 2, B // 2, replace=False)
        inds = np.array([2 * place + period for place in places for period in (0, 1)])
        label = random.integers(0, 2, B)
        views = torch.from_numpy(x_u8).float() / 127.5 - 1
        for key, value in state.named_parameters():
            if key.startswith(("encoder_k", "heads_k")):
                source = state.get_parameter(key.replace("_k", "_q", 1))
                value.data = s["momentum"] * value.data + (1 - s["momentum"]) * source.data
        features = state.encoder_q(views[0])
        q = [unit(head, features) for head in state.heads_q]
        with torch.no_grad():
            features_k = [state.encoder_k(view) for view in views[1:]]
            keys = [[unit(head, f) for f in features_k] for head in state.heads_k]
        logits = [slow_logits(name, i, q[i], keys[i], state.queue[i].clone(), label) for i in range(E)]
        loss = slow_loss(logits)
        state.zero_grad()
        loss.backward()
        if name == "caco":
            with torch.no_grad():
                f0, f2 = state.encoder_k(views[0]), features_k[1]
                l0, l2 = unit(state.heads_k[1], f0), unit(state.heads_k[1], f2)
            for r, slot in enumerate(inds):
                pair = (r // 2) * 2
                lt, st = math.dist(l0[pair], l0[pair + 1]), math.dist(l0[r], l2[r])
                new = np.array([lt, st, lt / (st + 1e-4)])
                averages[slot] = (4 * averages[slot] + new) / 5 if seen[slot] else new
                seen[slot] = 1
        for i in range(E):
            for n in range(B):
                state.queue[i, :, (int(state.queue_ptr[i]) + n) % s["queue"]] = keys[i][i][n]
            state.queue_ptr[i] = (state.queue_ptr[i] + B) % s["queue"]
        for key, value in trained:
            if value.grad is None:
                continue
            out[f"s{step}/grad/{key}"] = value.grad.numpy().copy()
            momenta[key] = value.grad + s["wd"] * value.data + s["sgd_momentum"] * momenta.get(key, torch.zeros(()))
            value.data = value.data - s["lr"] * momenta[key]
        entries = {"x_u8": x_u8, "inds": inds, "mmweights": label, "loss": loss.detach().numpy()}
        entries |= {f"logits{i}": table.detach().numpy() for i, table in enumerate(logits)}
        entries["acc"] = np.array([100 * float((table.argmax(1) == 0).float().mean()) for table in logits])
        entries |= {"queue": state.queue.numpy().copy(), "queue_ptr": state.queue_ptr.numpy().copy()}
        if name == "caco":
            entries |= {"ema_lt_st_ratio": averages.copy(), "ema_seen": seen.copy()}
        entries["sum_abs"] = np.array([value.double().abs().sum().item() for value in state.state_dict().values()])
        out |= {f"s{step}/{key}": value for key, value in entries.items()}
    return out
