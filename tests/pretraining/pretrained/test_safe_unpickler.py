"""Files of weights are read without running them: tensors come out, whatever else the pickle says is left dead."""

import collections
import io
import os
import pickle
import pickletools
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from caco_assets.core.errors import UserError
from caco_assets.pretraining.pretrained.safe_unpickler import InertUnpickler
from caco_assets.pretraining.pretrained.tensors import read_tensors

EVENTS: list[str] = []
"""What the interpreter was asked to do while a file was read (audit events that only a program in the file could cause)."""
WATCHED: list[bool] = []


def watch(event: str, arguments: tuple) -> None:
    if WATCHED and event in ("os.system", "subprocess.Popen", "exec", "import", "os.exec", "os.spawn", "socket.connect", "open"):
        EVENTS.append(f"{event} {arguments[:1]}")


sys.addaudithook(watch)


class Bomb:
    """Runs a command when it is unpickled in the usual way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


class Stateful:
    """A class of its author's package, with a state to be set."""

    def __init__(self) -> None:
        self.value = 3


class Listing(list):
    """A container of its author's package."""


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=generator)
    return {
        "plain": base,
        "view": base.T[1:],
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(7),
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "counts": torch.arange(5),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(base[0].clone()),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
def test_every_tensor_comes_out_of_both_formats(tmp_path: Path, zipped: bool) -> None:
    wanted = collections.OrderedDict(tensors())
    torch.save({"epoch": 3, "state_dict": wanted}, tmp_path / "weights.ckpt", _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path / "weights.ckpt")
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
def test_a_checkpoint_that_would_run_a_command_gives_its_tensors_and_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "ran"
    hyper = {"bomb": Bomb(mark), "own": Stateful(), "list": Listing([1, Bomb(mark)]), "namespace": SimpleNamespace(a=Bomb(mark))}
    saved = {"hyper_parameters": hyper, "state_dict": collections.OrderedDict(a=torch.ones(3)), "callbacks": {os.path.join: 1}}
    torch.save(saved, tmp_path / "bad.ckpt", _use_new_zipfile_serialization=zipped)
    WATCHED.append(True)
    try:
        found = read_tensors(tmp_path / "bad.ckpt")
    finally:
        WATCHED.clear()
    caused = [event for event in EVENTS if not event.startswith("open") or "bad.ckpt" not in event]
    EVENTS.clear()
    assert caused == []
    assert not mark.exists()
    assert torch.equal(found["a"], torch.ones(3))
    # the same file run in the usual way: the bomb is a live one
    torch.load(tmp_path / "bad.ckpt", weights_only=False)
    assert mark.exists()


def no_storage(*_: object) -> torch.Tensor:
    raise AssertionError("no storage was asked for")


def read(pickled: bytes) -> object:
    return InertUnpickler(io.BytesIO(pickled), no_storage).load()


PROGRAMS = {
    "a global": b"cos\nsystem\n(S'exit 3'\ntR.",
    "an old instance": b"(S'exit 3'\nios\nsystem\n.",
    "an old object": b"(cos\nsystem\nS'exit 3'\no.",
    "a dotted name": b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x02os\x8c\x06system\x86R\x8c\x06exit 3\x85R.",
    "a stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x06exit 3\x85R.",
    "a method of a known class": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93\x8c\x06exit 3\x85R.",
    "exec": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x13import os; os._exit\x85R.",
    "a new object": b"\x80\x02cos\n_wrap_close\n)\x81}X\x01\x00\x00\x00aK\x01sb.",
    "a class called twice": b"\x80\x02csubprocess\nPopen\n(S'false'\ntR(S'false'\ntR.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_pickle_written_by_hand_runs_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pickletools.dis(PROGRAMS[name], io.StringIO())  # it is a pickle
    for module, function in ((os, "system"), (os, "popen")):
        monkeypatch.setattr(module, function, lambda *_: pytest.fail("a command was run"))
    WATCHED.append(True)
    try:
        read(PROGRAMS[name])
    finally:
        WATCHED.clear()
    caused, EVENTS[:] = list(EVENTS), []
    assert caused == []


def test_what_one_file_does_to_a_stand_in_or_a_known_name_reaches_no_other_file() -> None:
    # BUILD with attributes on a stranger's class, on a storage type, on a rebuilding function and on the mapping
    for target in (
        b"csome\nThing\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
    ):
        state = b"}X\x04\x00\x00\x00evilK\x01s"
        for pickled in (b"\x80\x02" + target + state + b"b.", b"\x80\x02" + target + b"N" + state + b"\x86b."):
            try:
                read(pickled)
            except (pickle.UnpicklingError, AttributeError, TypeError):
                continue
    for fresh in (
        b"csome\nThing\n.",
        b"ctorch\nFloatStorage\n.",
        b"ctorch._utils\n_rebuild_tensor_v2\n.",
        b"ccollections\nOrderedDict\n.",
    ):
        assert not hasattr(read(b"\x80\x02" + fresh), "evil")


def rewritten(path: Path, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of a zip of torch's with one member replaced."""
    target = path.with_name("rewritten.ckpt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as out:
        for info in source.infolist():
            ours = info.filename.endswith(name)
            out.writestr(info.filename, content if ours else source.read(info), compression if ours else zipfile.ZIP_STORED)
    return target


def test_files_that_lie_about_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "good.ckpt"
    torch.save({"a": torch.ones(16)}, path)
    with pytest.raises(UserError, match="a storage of 16 elements with 4 bytes"):
        read_tensors(rewritten(path, "data/0", b"1234"))
    with pytest.raises(UserError, match="is compressed or larger than it can be"):
        read_tensors(rewritten(path, "data/0", bytes(64), zipfile.ZIP_DEFLATED))
    torch.save({"a": torch.ones(1).expand(10**6)}, path)
    with pytest.raises(UserError, match=r"a tensor of \(1000000,\) in a storage of 1 elements"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as weights of torch"),
        (b"not a pickle at all", "not readable as weights of torch"),
        (pickle.dumps({"a": 1}), "not readable as weights of torch"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_tensors(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth: no such file of weights"):
        read_tensors(tmp_path / "none.pth")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"script/{name}", "")
    with pytest.raises(UserError, match="a TorchScript program, not weights"):
        read_tensors(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("a/b.txt", "x")
    with pytest.raises(UserError, match="not one of torch's"):
        read_tensors(tmp_path / "other.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(UserError, match="holds a pickled object, which cannot be read without running it"):
        read_tensors(tmp_path / "whole.pth")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match=r"no state dict in it \(it holds epoch, lr\)"):
        read_tensors(tmp_path / "empty.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match="not readable as safetensors"):
        read_tensors(tmp_path / "cut.safetensors")
