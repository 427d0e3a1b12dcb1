"""Independent jobs, each in a process that sees one GPU alone."""

import os
import time
from pathlib import Path

import pytest
import torch

from caco_assets.downstream.scoring.gpu_pool import VISIBLE, gpus, one_each


def seen(folder: Path, number: int) -> tuple[str, int]:
    (folder / str(number)).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.environ[VISIBLE], number


def refuse(number: int) -> int:
    if number == 1:
        raise ValueError(f"job {number}")
    return number


def test_each_process_has_a_gpu_of_its_own_and_results_keep_their_order(tmp_path: Path) -> None:
    found = list(one_each(["2", "5"], seen, [(tmp_path, number) for number in range(4)]))
    assert [number for _, number in found] == [0, 1, 2, 3]
    # the first two wait for each other, so both processes have worked
    assert {name for name, _ in found} == {"2", "5"}


def test_the_error_of_a_job_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="job 1"):
        list(one_each(["0"], refuse, [(number,) for number in range(3)]))


def test_what_a_process_may_see_is_what_its_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(VISIBLE, raising=False)
    assert gpus() == ["0", "1"]
    monkeypatch.setenv(VISIBLE, "3,GPU-8f2a")
    assert gpus() == ["3", "GPU-8f2a"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus() == []
