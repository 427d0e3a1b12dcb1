"""Figures of GPUs. No machine of these tests has one, so the module of `nvidia-ml-py` is replaced by one that answers like it."""

import sys
from types import SimpleNamespace

import pytest

from caco_assets.observability.gpu import gpus


class NvmlError(Exception):
    """As `pynvml.NVMLError`."""


class Nvml:
    """The part of `pynvml` that is used: a GPU, a second one that is split, and the calls that open and close the library."""

    NVMLError = NvmlError

    def __init__(self, driver: bool = True) -> None:
        self.driver, self.opened, self.nvmlMemory_v2 = driver, 0, 2

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NvmlError("NVML Shared Library Not Found")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:
        if device == 1:
            raise NvmlError("Not Supported")
        return SimpleNamespace(gpu=87, memory=5)

    def nvmlDeviceGetMemoryInfo(self, device: int, version: int) -> SimpleNamespace:
        assert version == self.nvmlMemory_v2
        return SimpleNamespace(total=81920 << 20, used=1024 << 20)


def test_busy_and_memory_of_each_gpu_are_read_and_the_library_is_closed(monkeypatch: pytest.MonkeyPatch):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpus() == [("0", 0.87, 1024 << 20, 81920 << 20)]
    assert nvml.opened == 0


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(driver=False))
    assert gpus() == []


def test_without_the_package_there_are_no_figures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus() == []
