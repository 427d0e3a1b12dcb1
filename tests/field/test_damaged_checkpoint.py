"""A checkpoint with a changed byte is not resumed from: the one before it is, and the numbers are those of a whole run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.training.checkpoint import LAST, PREVIOUS, Checkpoints, read

CONFIG = {"seed": 0}


def opened(folder: Path) -> tuple[Checkpoints, nn.Linear]:
    torch.manual_seed(0)
    network = nn.Linear(40, 40)
    return Checkpoints(folder, network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9), CONFIG, 1.0), network


def trained(folder: Path, steps: int = 3) -> list[torch.Tensor]:
    """Checkpoints of steps 1 … `steps`; the weights of each."""
    checkpoints, network = opened(folder)
    weights = []
    for step in range(1, steps + 1):
        network(torch.ones(2, 40)).sum().backward()
        checkpoints.optimizer.step()
        checkpoints.save(0, step)
        weights.append(network.weight.detach().clone())
    return weights


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def weights_at(file: Path) -> int:
    """Where the weights lie in a checkpoint."""
    return file.read_bytes().index(read(file)["objective"]["weight"].numpy().tobytes()[:64])


def test_the_one_before_is_kept_and_sound(tmp_path: Path) -> None:
    trained(tmp_path)
    assert [read(tmp_path / name)["step"] for name in (LAST, PREVIOUS)] == [3, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, LAST]


def test_a_resume_falls_back_to_the_one_before_aloud(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    weights = trained(tmp_path)
    flip(tmp_path / LAST, weights_at(tmp_path / LAST))
    # torch itself would take it
    assert not torch.equal(torch.load(tmp_path / LAST, weights_only=True)["objective"]["weight"], weights[2])
    lines = logged()
    checkpoints, network = opened(tmp_path)
    checkpoints.load()
    assert checkpoints.step == 2
    assert torch.equal(network.weight, weights[1])
    assert lines == [f"pretrain: {tmp_path / LAST} is damaged; resuming from the checkpoint before it, of step 2"]


def test_after_a_fall_back_the_sound_one_is_not_lost(tmp_path: Path) -> None:
    trained(tmp_path)
    flip(tmp_path / LAST, weights_at(tmp_path / LAST))
    checkpoints, _ = opened(tmp_path)
    checkpoints.load()
    checkpoints.save(0, 3)
    assert [read(tmp_path / name)["step"] for name in (LAST, PREVIOUS)] == [3, 2]


def test_a_file_system_without_links_keeps_the_one_before_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refused)
    trained(tmp_path)
    assert [read(tmp_path / name)["step"] for name in (LAST, PREVIOUS)] == [3, 2]


def test_a_missing_last_one_is_said_too(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    trained(tmp_path)
    (tmp_path / LAST).unlink()
    lines = logged()
    checkpoints, _ = opened(tmp_path)
    checkpoints.load()
    assert lines == [f"pretrain: {tmp_path / LAST} is missing; resuming from the checkpoint before it, of step 2"]


def test_two_damaged_ones_are_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{LAST}: not a readable checkpoint; delete it"):
        opened(tmp_path)[0].load()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    trained(folder)
    return folder / LAST


@given(data=st.data())
def test_no_changed_byte_of_a_checkpoint_changes_a_number(sound: Path, data: st.DataObject) -> None:
    """Headers and padding may be damaged without harm; numbers may not."""
    content = bytearray(sound.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = sound.with_name("damaged.pt")
    damaged.write_bytes(content)
    try:
        state = read(damaged)
    except UserError:
        return
    expected = read(sound)
    assert (state["epoch"], state["step"], state["recipe"]) == (expected["epoch"], expected["step"], expected["recipe"])
    assert torch.equal(state["objective"]["weight"], expected["objective"]["weight"])
    assert torch.equal(state["optimiser"]["state"][0]["momentum_buffer"], expected["optimiser"]["state"][0]["momentum_buffer"])
