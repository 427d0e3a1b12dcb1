"""Files of a few kilobytes that ask for gigabytes are refused before memory is taken."""

import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import open_archives
from caco_assets.downstream.datasets.image_decoding import read_image, side_of
from caco_assets.downstream.datasets.members import open_store
from caco_assets.downstream.datasets.tiff import read_tiff
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.pretraining.pretrained.import_weights import Wish, import_encoder
from caco_assets.pretraining.pretrained.tensors import read_tensors

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
HEAD = MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def global_(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def storage(key: str, count: int) -> bytes:
    """The opcodes of torch's persistent id of a storage of so many floats."""
    short = struct.pack("<I", len(key)) + key.encode()
    return (
        b"(X\x07\0\0\0storage"
        + global_("torch", "FloatStorage")
        + b"X"
        + short
        + b"X\x03\0\0\0cpu"
        + b"J"
        + struct.pack("<i", count)
    ) + b"NtQ"


def program(*opcodes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(opcodes) + b"."


def zipped(path: Path, content: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", content)
        for name, data in members.items():
            archive.writestr(f"x/data/{name}", data)
    return path


@pytest.fixture
def taken(monkeypatch) -> SimpleNamespace:
    """Bytes of the tensors that are made."""
    counted, zeros = SimpleNamespace(bytes=0), torch.zeros

    def count(*shape, **options):
        counted.bytes += int(np.prod(shape)) * 4
        assert counted.bytes < 64 << 20, "too much memory asked for"
        return zeros(*shape, **options)

    monkeypatch.setattr(torch, "zeros", count)
    return counted


def test_a_checkpoint_cannot_ask_for_more_storage_than_it_has_bytes(tmp_path: Path, taken):
    side = 750_000
    many = program(b"}", *(b"X\x02\0\0\0" + f"{i:02d}".encode() + storage(str(i), side) + b"s" for i in range(99)))
    (tmp_path / "x.pth").write_bytes(HEAD + many + b"\0" * (3 << 20))
    with pytest.raises(UserError, match=r"x\.pth: not readable as weights of torch \(.*its storages are larger than the file"):
        read_tensors(tmp_path / "x.pth")
    assert taken.bytes < 8 << 20


def test_members_of_a_zip_cannot_name_the_same_bytes_again_and_again(tmp_path: Path):
    many = program(b"}", *(b"X\x02\0\0\0" + f"{i:02d}".encode() + storage("0", 250_000 - i) + b"s" for i in range(99)))
    zipped(tmp_path / "x.pth", many, **{"0": b"\0" * 1_000_000})
    with pytest.raises(UserError, match=r"x\.pth: not readable as weights of torch"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("opcodes", "says"),
    [
        (b"(" + b"\x8f" * (1 << 20) + b"l", "its objects would take more than"),  # empty sets of 216 bytes
        (b"r\xff\xff\xff\x7f", "it numbers an object 2147483647 after"),  # reserves 34 GB
    ],
    ids=["empty sets", "a numbered place"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_whose_objects_would_fill_memory_is_refused_before_they_are_made(tmp_path: Path, opcodes, says, legacy):
    content = program(b"N", opcodes) if opcodes.startswith(b"r") else program(opcodes)
    content = b"\x80\x04" + content[2:]
    path = tmp_path / "x.pth"
    if legacy:
        path.write_bytes(HEAD + content)
    else:
        zipped(path, content)
    with pytest.raises(UserError, match=rf"x\.pth: not readable as weights of torch \(UnpicklingError: {says}"):
        read_tensors(path)


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x8d"], ids=["bytes", "text"])
def test_a_length_beyond_the_file_is_refused(tmp_path: Path, opcode):
    content = b"\x80\x04" + opcode + struct.pack("<Q", 1 << 50) + b"abc."
    (tmp_path / "x.pth").write_bytes(HEAD + content)
    zipped(tmp_path / "y.pth", content)
    for name in ("x.pth", "y.pth"):
        with pytest.raises(UserError, match="not readable as weights of torch"):
            read_tensors(tmp_path / name)


def test_a_network_of_views_of_the_same_few_bytes_is_refused(tmp_path: Path):
    few = torch.ones(1000)
    torch.save({f"blocks.{i}.weight": few[:999] for i in range(99)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: its 99 tensors share the same few bytes"):
        read_tensors(tmp_path / "x.pth")


def test_tied_weights_are_sound(tmp_path: Path):
    weight = torch.randn(10, 10)
    torch.save({"a": weight, "b": weight, "c": torch.ones(3)}, tmp_path / "x.pth")
    assert set(read_tensors(tmp_path / "x.pth")) == {"a", "b", "c"}


def test_a_file_beyond_the_limit_is_not_read_and_the_limit_is_named(settings, tmp_path: Path):
    with (tmp_path / "x.safetensors").open("wb") as stream:
        stream.truncate(40 * 10**9)
    with pytest.raises(UserError, match=r"x\.safetensors: 40\.0 GB, weights of at most 32 GB are read; --max-gb allows more"):
        read_tensors(tmp_path / "x.safetensors")
    torch.save({"a": torch.ones(300_000)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"at most 0\.001 GB"):
        import_encoder(settings, str(tmp_path / "x.pth"), "x", Wish(source="imagenet", max_gb=0.001))


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "seco", 32), 0).save(tmp_path / "encoder", {}, {})
    return tmp_path / "encoder"


@pytest.mark.parametrize("giant", ["vit_huge_patch16_gap_448", "resnetv2_152x4_bit", "test_vit"])
def test_an_encoder_json_that_names_another_network_is_refused_before_it_is_built(encoder: Path, giant: str, monkeypatch):
    fields = json.loads((encoder / "encoder.json").read_text())
    (encoder / "encoder.json").write_text(json.dumps({**fields, "architecture": giant}))
    monkeypatch.setattr(Encoder, "random", lambda *_: pytest.fail("built"))
    with pytest.raises(UserError, match=rf"encoder\.safetensors: not the weights of a {giant} for B04, B03, B02: .* is "):
        Encoder.load(encoder)


@pytest.mark.parametrize("size", [4097, 10**6, 10**30])
def test_an_encoder_json_with_an_enormous_input_is_refused(encoder: Path, size: int):
    fields = json.loads((encoder / "encoder.json").read_text())
    fields["preprocessing"]["size"] = size
    (encoder / "encoder.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"encoder\.json: preprocessing: size="):
        Encoder.load(encoder)


def test_weights_that_do_not_fit_the_named_backbone_are_refused_before_it_is_built(settings, tmp_path: Path, monkeypatch):
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "x.safetensors")
    monkeypatch.setattr(Encoder, "random", lambda *_: pytest.fail("built"))
    wish = Wish(source="imagenet", backbone="vit_huge_patch16_gap_448")
    with pytest.raises(UserError, match="weights: not those of a vit_huge_patch16_gap_448"):
        import_encoder(settings, str(tmp_path / "x.safetensors"), "x", wish)


def tif_header(path: Path, rows: int, cols: int, data: bytes = b"\0" * 64) -> None:
    """A TIFF whose directory says rows and columns, with one deflated strip."""
    entries = [(256, 4, cols), (257, 4, rows), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, rows)]
    entries.append((279, 4, len(data)))
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + b"\0" * 4)


def png_header(path: Path, rows: int, cols: int) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", cols, rows, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("rows", [15_000, 40_000, 2**31 - 1])
def test_a_picture_whose_header_asks_for_gigabytes_is_refused(tmp_path: Path, rows: int):
    tif_header(tmp_path / "x.tif", rows, 40_000)
    png_header(tmp_path / "x.png", rows, 40_000)
    for name in ("x.tif", "x.png"):
        for read in (side_of, read_image):
            with pytest.raises(UserError, match=rf"x\{name[1:]}"):
                read(open_archives(tmp_path), name)


@pytest.mark.parametrize("compression", ["zlib", "lzw"])
def test_a_strip_that_unpacks_to_more_than_its_picture_stops_there(tmp_path: Path, compression: str):
    if compression == "zlib":
        data = zlib.compress(bytes(80 << 20), 9)
        assert len(data) < 1 << 20
        tif_header(tmp_path / "x.tif", 8, 8, data)
        with pytest.raises(UserError, match=r"x is damaged \(unpacks to more than 64 bytes"):
            read_tiff(tmp_path / "x.tif", "x", advice="")
        tif_header(tmp_path / "x.tif", 8, 8, zlib.compress(bytes(80)))  # rows that the picture does not have: some writers do so
        assert read_tiff(tmp_path / "x.tif", "x", advice="").pixels.shape == (8, 8)
    else:
        Image.fromarray(np.zeros((8, 8000), np.uint8)).save(tmp_path / "x.tif", compression="tiff_lzw")
        data = bytearray((tmp_path / "x.tif").read_bytes())
        with tifffile.TiffFile(tmp_path / "x.tif") as tiff:
            at = tiff.pages.first.tags["ImageWidth"].valueoffset
        data[at : at + 4] = struct.pack("<I", 8)
        (tmp_path / "x.tif").write_bytes(data)
        assert read_tiff(tmp_path / "x.tif", "x", advice="").pixels.shape == (8, 8)


def test_a_member_that_unpacks_beyond_its_kind_is_not_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("list.txt", bytes(80 << 20))
    archives = open_archives(tmp_path)
    with pytest.raises(UserError, match=r"list\.txt unpacks to \d+ bytes, at most 67108864 are read"):
        archives.text("x/list.txt")
    store = open_store(tmp_path / "x.zip", max_bytes=1 << 20)
    with pytest.raises(UserError, match=r"list\.txt unpacks to \d+ bytes, at most 1048576 are read"):
        store.read("list.txt")
