"""Damaged parts of encoders and data sets: any bytes are read, or refused in one line that names the file."""

import contextlib
import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from caco_assets.core.errors import UserError
from caco_assets.core.parquet import read_rows as read_table
from caco_assets.downstream.datasets.archives import open_archives
from caco_assets.downstream.datasets.completeness import read_subset
from caco_assets.downstream.datasets.content_hash import Hashes
from caco_assets.downstream.datasets.geolocation import corners_of
from caco_assets.downstream.datasets.image_decoding import read_image, side_of
from caco_assets.downstream.datasets.masks import read_change
from caco_assets.downstream.datasets.members import open_store
from caco_assets.downstream.score_rows import RowStore, ScoreRow, read_rows, write_rows
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.pretraining.pretrained.sources import from_json
from caco_assets.pretraining.pretrained.tensors import read_tensors

ONE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
ROW = ScoreRow("r", "t", "e", "candidate", "clean", "knn5", 64, 0, "accuracy", 0.5, 0.4, 0.6, 9, "v", None, "measured", "", None)


@st.composite
def damaged(draw, sound: bytes) -> bytes:
    """The bytes with some of them changed, and perhaps cut."""
    data = bytearray(sound)
    for at, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=6)):
        data[at] = value
    return bytes(data[: draw(st.sampled_from([len(data), len(data) // 2, len(data) - 1, 20, 0]))])


def refused(path: Path, act, *errors: type[Exception]) -> str:
    """The message of a UserError, or nothing if the bytes were read."""
    said = ""
    with contextlib.suppress(*errors):
        try:
            act()
        except UserError as error:
            said = str(error)
    assert not said or (path.name in said and "\n" not in said)
    return said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("architecture", "identity", "preprocessing")
INNER = ("bands", "stretch", "mean", "std", "size")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "seco", 32), 0).save(folder, {"objective": "caco"}, {})
    return folder


@pytest.fixture
def broken(encoder: Path, tmp_path: Path):
    """An encoder whose description is given."""

    def write(description: bytes) -> Path:
        shutil.copytree(encoder, tmp_path / "encoder", dirs_exist_ok=True)
        (tmp_path / "encoder" / "encoder.json").write_bytes(description)
        return tmp_path / "encoder"

    return write


@ONE
@given(data=st.data())
def test_any_description_is_an_encoder_or_one_line(encoder: Path, broken, data):
    fields = json.loads((encoder / "encoder.json").read_text())
    place = data.draw(st.sampled_from([fields, fields["preprocessing"], fields["preprocessing"]["stretch"]]))
    place[data.draw(st.sampled_from([*place, "more"]))] = data.draw(JSON)
    folder = broken(json.dumps(fields).encode())
    refused(folder / "encoder.json", lambda: Encoder.load(folder))
    (folder / "own.json").write_text(json.dumps(fields))
    refused(folder / "own.json", lambda: from_json(folder / "own.json"))


@ONE
@given(data=st.data())
def test_any_bytes_of_a_description_are_an_encoder_or_one_line(encoder: Path, broken, data):
    folder = broken(data.draw(damaged((encoder / "encoder.json").read_bytes()) | st.binary(max_size=50)))
    refused(folder, lambda: Encoder.load(folder))


@ONE
@given(data=st.data())
def test_any_bytes_of_weights_are_an_encoder_or_one_line(encoder: Path, tmp_path: Path, data):
    folder = shutil.copytree(encoder, tmp_path / "encoder", dirs_exist_ok=True)
    (folder / "encoder.safetensors").write_bytes(data.draw(damaged((encoder / "encoder.safetensors").read_bytes()[:6000])))
    assert refused(folder, lambda: Encoder.load(folder))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mean": [0.1]}, "mean: 1 values for 3 bands"),
        ({"std": [0.2, 0, 0.2]}, "std: 0 is not above 0"),
        ({"mean": [0.1, "x", 0.1]}, "mean.1"),
        ({"bands": ["B04", "B04", "B02"]}, "bands: B04 is listed twice"),
        ({"size": 0}, "size=0"),
        ({"stretch": {"name": "x", "low": [0] * 3, "high": [1] * 3}}, "stretch: there is no 'x'"),
        ({"stretch": {"name": "seco", "low": [5] * 3, "high": [5] * 3}}, "each low has to be below its high"),
    ],
)
def test_an_impossible_preprocessing_is_refused_by_its_field(encoder: Path, broken, change: dict, says: str):
    fields = json.loads((encoder / "encoder.json").read_text())
    fields["preprocessing"] |= change
    folder = broken(json.dumps(fields).encode())
    with pytest.raises(UserError, match=rf"encoder\.json: preprocessing: .*{says}"):
        Encoder.load(folder)


def test_an_encoder_of_whole_numbers_keeps_its_identity(tmp_path: Path):
    fields = {**Preprocessing.of_pack(RGB, "seco", 32).to_dict(), "mean": [0, 0, 0], "std": [1, 1, 1]}
    wanted = Preprocessing.from_dict(fields)
    assert [type(value) for value in (*wanted.mean, *wanted.std)] == [int] * 6
    Encoder.random("test_resnet", wanted, 0).save(tmp_path, {}, {})
    assert Encoder.load(tmp_path).preprocessing == wanted


@pytest.mark.parametrize("name", ["encoder.json", "encoder.safetensors"])
def test_a_folder_in_place_of_a_file_of_an_encoder_is_named(encoder: Path, tmp_path: Path, name: str):
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(UserError, match=rf"no encoder here \({name} is missing\)"):
        Encoder.load(folder)


def checkpoint(legacy: bool) -> bytes:
    stream = BytesIO()
    torch.save(
        {"state_dict": {"conv1.weight": torch.ones(2, 3, 2, 2)}, "lr": 0.1}, stream, _use_new_zipfile_serialization=not legacy
    )
    return stream.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
@ONE
@given(data=st.data())
def test_any_bytes_of_a_checkpoint_are_tensors_or_one_line(tmp_path: Path, legacy: bool, data):
    (tmp_path / "x.pth").write_bytes(data.draw(damaged(checkpoint(legacy))))
    refused(tmp_path / "x.pth", lambda: read_tensors(tmp_path / "x.pth"))


def pictures() -> dict[str, bytes]:
    rng, made = np.random.default_rng(0), {}
    pixels = rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)
    for name, kind in (("x.png", "PNG"), ("y.jpg", "JPEG")):
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        made[name] = stream.getvalue()
    stream = BytesIO()
    Image.fromarray(pixels[..., 0]).convert("P").save(stream, "PNG")
    made["palette.png"] = stream.getvalue()
    stream = BytesIO()
    tifffile.imwrite(stream, pixels, compression="zlib", photometric="rgb")
    made["x.tif"] = stream.getvalue()
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression="tiff_lzw")
    made["lzw.tif"] = stream.getvalue()
    return made


@pytest.mark.parametrize("name", pictures())
@ONE
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_of_a_picture_are_pixels_or_one_line(tmp_path: Path, name: str, data):
    (tmp_path / name).write_bytes(data.draw(damaged(pictures()[name])))
    for act in (side_of, read_image, read_change):
        refused(tmp_path / name, lambda act=act: act(open_archives(tmp_path), name))
    if name.endswith(".tif"):
        with (tmp_path / name).open("rb") as stream:
            corners_of(stream)


@ONE
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_of_an_archive_are_members_or_one_line(tmp_path: Path, data):
    import zipfile

    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", "hello " * 30)
        archive.writestr("c.txt", "x")
    path = tmp_path / "x.zip"
    path.write_bytes(data.draw(damaged(stream.getvalue())))

    def act() -> None:
        store = open_store(path, max_bytes=1 << 20)
        for member in store.names():
            store.read(member)

    refused(path, act)


@ONE
@given(data=st.data())
def test_any_bytes_of_scores_are_rows_or_one_line(tmp_path: Path, data):
    path = tmp_path / "scores.parquet"
    write_rows(path, [ROW, ROW])
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    refused(path, lambda: read_rows(path))


def test_scores_are_read_back_as_they_were_and_other_tables_are_refused(tmp_path: Path):
    path = tmp_path / "scores.parquet"
    write_rows(path, [ROW])
    assert read_rows(path) == [ROW]
    for table in ({"a": [1]}, {**{name: [value] for name, value in vars(ROW).items()}, "value": ["high"]}):
        parquet.write_table(pa.table(table), path)
        with pytest.raises(UserError, match=r"scores\.parquet: not readable as scores \(.*; score again"):
            read_rows(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"scores\.parquet: a folder or a device, where a file belongs; score again"):
        read_rows(path)


def test_a_table_of_more_rows_than_can_be_meant_is_not_read(tmp_path: Path):
    parquet.write_table(pa.table({"a": np.zeros(100_000, np.int8)}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: 100000 rows of \d+ bytes, at most 1000"):
        read_table(tmp_path / "x.parquet", max_rows=1000)


@pytest.mark.parametrize("content", [b"", b"{", b"[{}]", b"[" * 5000, '["Föhr"]'.encode("latin-1")])
def test_a_damaged_cache_of_scores_or_hashes_is_made_again_and_said(tmp_path: Path, content: bytes, logged):
    store = RowStore(tmp_path, tmp_path / "cache")
    assert store.rows("k" * 8, lambda: [ROW]) == [ROW]
    next((tmp_path / "cache").rglob("*.json")).write_bytes(content)
    lines = logged()
    assert store.rows("k" * 8, lambda: [ROW]) == [ROW]
    assert any("scores measured again" in line for line in lines)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("x")
    hashes = Hashes(tmp_path / "hashes")
    known = hashes.of(tmp_path / "data")
    next((tmp_path / "hashes").rglob("*.json")).write_bytes(content)
    assert hashes.of(tmp_path / "data") == known


@ONE
@given(JSON)
def test_any_declaration_is_one_or_one_line(tmp_path: Path, value):
    (tmp_path / "subset.json").write_text(json.dumps(value))
    refused(tmp_path / "subset.json", lambda: read_subset(tmp_path))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("Föhr".encode("latin-1"), "not text in UTF-8"),
        (b"[" * 3000, "nested more than 100 levels"),
        (b"{}", "no list of labels"),
        (b'{"labels": [1]}', "no list of labels"),
        (b'{"labels": "Sea"}', "no list of labels"),
    ],
)
def test_odd_labels_of_a_patch_are_named(tmp_path: Path, labels: bytes, says: str):
    from caco_assets.downstream.datasets.readers.bigearthnet import read
    from caco_assets.downstream.datasets.readers.bigearthnet_pixels import BANDS

    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for band in BANDS:
            (tmp_path / name / f"{name}_{band}.tif").touch()
        (tmp_path / name / f"{name}_labels_metadata.json").write_bytes(labels)
    (tmp_path / "subset.json").write_text('{"images": 3}')
    with pytest.raises(UserError, match=rf"_labels_metadata\.json: .*{says}"):
        read(tmp_path)
