"""Versions, the data they were made from, and back: with small files in place of real products, and real DVC and MLflow."""

import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.core.products import Product, content_hash, produce, recorded
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing
from caco_assets.registry.lineage.gc import find_garbage
from caco_assets.registry.lineage.record import LINEAGE, collect, read
from caco_assets.registry.lineage.restore import restore
from caco_assets.registry.lineage.tree import lineage_json, lineage_tree
from caco_assets.registry.lineage.usage import use_of
from caco_assets.registry.register import register_encoder
from caco_assets.registry.versions import find
from caco_assets.resources.dvc.commit import commit_stale, data_versions
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings, load_settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def quiet(_: str) -> None:
    return


@dataclass
class Workspace:
    """A home in which data is made and encoders are registered."""

    settings: Settings
    tracking: Tracking

    def make(self, *shards: str) -> None:
        """The data products, an archive of shards with these contents."""
        paths, text = self.settings.paths, "+".join(shards)
        self._file("locations", paths.locations, "places")
        self._file("scenes", paths.scenes, f"scenes {text}")
        for record in (paths.records / "archive").glob("*.json"):
            record.unlink()
        shutil.rmtree(paths.archive, ignore_errors=True)
        for number, content in enumerate(shards):
            name = f"shard={number:04d}"
            self._folder(f"archive/{name}", paths.archive / name, {"chips.tar": content, "chips.parquet": f"index of {content}"})
        self._file("quarantine", paths.quarantine, f"refused {text}")
        self._folder("pack", paths.pack, {"images-0000.npy": f"packed {text}"})

    def register(self, seed: int, parent: str | None = None) -> str:
        """Register an encoder that was trained on the pack as it is; its address."""
        folder = self.settings.home / f"encoder-{seed}"
        data: dict[str, object] = {"pack": recorded(self.settings.paths.records, "pack").content_hash}
        if parent:
            data["parent"] = self._begin_with(parent)
        encoder = Encoder.random("resnet10t", Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32), seed)
        encoder.save(folder, {"objective": "caco"}, data)
        commit_stale(self.settings)
        record, versions = collect(self.settings, folder, encoder.identity), data_versions(self.settings)
        return register_encoder(self.settings, folder, None, versions, None, self.tracking, record).uri

    def _begin_with(self, uri: str) -> dict[str, str]:
        """The product `parent`, as a warm start makes it of the champion; what names it."""
        older = self.settings.home / f"encoder-{uri.rpartition('/')[2]}"
        named = {"uri": uri, "identity": Encoder.load(older).identity}
        records, target = self.settings.paths.records, self.settings.paths.root / "parent"

        def make(folder: Path) -> dict[str, str]:
            shutil.copytree(older, folder)
            (folder / "parent.json").write_text(json.dumps(named, sort_keys=True) + "\n")
            return named

        produce("parent", target, records=records, recipe="1", inputs=named, make=make)
        return named

    def hash(self, name: str) -> str:
        return recorded(self.settings.paths.records, name).content_hash

    def _file(self, name: str, path: Path, text: str) -> Product:
        return self._produce(name, path, text, lambda target: target.write_text(text))

    def _folder(self, name: str, path: Path, files: dict[str, str]) -> Product:
        def make(target: Path) -> None:
            target.mkdir(parents=True)
            for file, text in files.items():
                (target / file).write_text(text)

        return self._produce(name, path, json.dumps(files), make)

    def _produce(self, name: str, path: Path, mark: str, make) -> Product:
        def written(target: Path) -> dict:
            make(target)
            return {"made": mark}

        return produce(name, path, records=self.settings.paths.records, recipe="1", inputs={"mark": mark}, make=written)


def _workspace(home: Path, migrated_mlflow: Path) -> Workspace:
    settings = load_settings("tiny", home=home)
    database = settings.paths.workspace / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copyfile(migrated_mlflow, database)
    return Workspace(settings, open_tracking(settings))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path) -> Workspace:
    """Version 1 of two shards; version 2 of three, with the weights of 1 to begin with; version 3 of other data, begun with 2."""
    made = _workspace(tmp_path_factory.mktemp("grown"), migrated_mlflow)
    made.make("a", "b")
    made.register(1)
    made.make("a", "b", "c")
    made.register(2, parent="models:/caco-tiny/1")
    made.make("d")
    made.register(3, parent="models:/caco-tiny/2")
    return made


def test_a_version_carries_its_record_and_its_main_facts_as_tags(grown: Workspace) -> None:
    version = find(grown.tracking, "models:/caco-tiny/2")
    record = read(grown.tracking, version)
    assert version.tags["parent"] == "models:/caco-tiny/1"
    assert version.tags["environment.torch"] == record.environment["torch"]
    assert record.outs["workspace/tiny/data/pack"]["md5"] == version.tags["data.pack"]
    assert {"locations", "scenes", "archive", "pack"} <= record.stages.keys()
    assert record.settings["pretraining"]["epochs"] == grown.settings.pretraining.epochs
    assert record.recipes["encoder"]
    inputs = grown.tracking.client.get_run(version.run_id).inputs.dataset_inputs
    assert {each.dataset.name: each.dataset.digest for each in inputs}["pack"] == version.tags["data.pack"]


def test_the_tree_goes_from_the_encoder_down_to_the_places(grown: Workspace) -> None:
    tree = lineage_tree(grown.tracking, "models:/caco-tiny@challenger").splitlines()
    assert tree[0].startswith("models:/caco-tiny/3 (challenger), registered 20")
    for word in ("encoder", "parent", "scores", "gate", "run", "code", "recipes", "environment", "settings"):
        assert any(f"─ {word} " in line for line in tree), word
    depth = {
        name: next(line.index(name) for line in tree if f"─ {name}  " in line)
        for name in ("pack", "archive", "scenes", "locations")
    }
    assert depth["pack"] < depth["archive"] < depth["scenes"] < depth["locations"]
    everything = lineage_json(grown.tracking, "models:/caco-tiny/3")
    assert everything["parent"]["uri"] == "models:/caco-tiny/2"
    assert json.loads(json.dumps(everything))["lineage"]["vintage"] == "2026-10"


@pytest.mark.parametrize("what", ["shard", "file", "prefix"])
def test_a_shard_names_who_was_trained_on_it_and_who_inherited_from_them(grown: Workspace, what: str) -> None:
    record = read(grown.tracking, find(grown.tracking, "models:/caco-tiny/1"))
    files = record.files[record.outs["workspace/tiny/data/archive"]["md5"]]
    digest = record.products["archive/shard=0001"]["content_hash"]
    use = use_of(
        grown.settings, grown.tracking, {"shard": digest, "file": files["shard=0001/chips.tar"], "prefix": digest[:6]}[what]
    )
    assert use.trained == ("models:/caco-tiny/1", "models:/caco-tiny/2")
    assert use.inherited == ("models:/caco-tiny/3",)
    assert "shard=0001" in use.text()
    assert "would affect 3 registered versions" in use.text()


def test_a_shard_that_came_later_touches_later_versions_alone(grown: Workspace) -> None:
    record = read(grown.tracking, find(grown.tracking, "models:/caco-tiny/2"))
    use = use_of(grown.settings, grown.tracking, record.products["archive/shard=0002"]["content_hash"])
    assert use.touched == ("models:/caco-tiny/2", "models:/caco-tiny/3")


@pytest.mark.parametrize(("digest", "said"), [("0" * 32, "no product, shard or file"), ("abc", "too short")])
def test_a_hash_of_nothing_is_one_clear_line(grown: Workspace, digest: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        use_of(grown.settings, grown.tracking, digest)
    assert "\n" not in str(caught.value)


def test_the_commands_print_tree_and_use(
    grown: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACO_HOME", str(grown.settings.home))
    monkeypatch.setenv("CACO_PROFILE", "tiny")
    printed = []
    for arguments in (["models:/caco-tiny/1"], ["models:/caco-tiny/1", "--json"], ["data", grown.hash("pack")], ["data"]):
        with pytest.raises(SystemExit) as ended:
            main(["lineage", *arguments])
        printed.append((ended.value.code, capsys.readouterr()))
    assert [code for code, _ in printed] == [0, 0, 0, 2]
    assert "└─ data" in printed[0][1].out
    assert json.loads(printed[1][1].out)["uri"] == "models:/caco-tiny/1"
    assert "models:/caco-tiny/3 was trained on it" in printed[2][1].out
    assert "write `caco lineage" in printed[3][1].err


def test_an_encoder_whose_data_has_moved_on_is_not_registered(grown: Workspace) -> None:
    folder = grown.settings.home / "encoder-1"
    with pytest.raises(UserError, match="trained on pack"):
        collect(grown.settings, folder, "…")


def test_a_version_that_began_with_another_comes_back_with_it(grown: Workspace, tmp_path: Path) -> None:
    restored = restore(grown.settings, "models:/caco-tiny/2", tmp_path / "then", tracking=grown.tracking)
    there = load_settings(str(restored.profile), home=restored.home)
    parent = recorded(there.paths.records, "parent")
    assert parent.facts["uri"] == "models:/caco-tiny/1"
    assert Encoder.load(parent.path).identity == parent.facts["identity"]


def test_a_record_that_was_altered_is_refused(tmp_path: Path, migrated_mlflow: Path) -> None:
    made = _workspace(tmp_path, migrated_mlflow)
    made.make("a")
    version = find(made.tracking, made.register(1))
    (stored,) = (made.settings.paths.workspace / "mlflow" / "artifacts").rglob(Path(version.tags[LINEAGE]).name)
    stored.write_text(stored.read_text().replace("2026-10", "2026-11"))
    with pytest.raises(UserError, match="is damaged"):
        read(made.tracking, version)
    with pytest.raises(UserError, match="is damaged"), find_garbage(made.settings, tracking=made.tracking):
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"profile": "../elsewhere"},
        {"profile": "/etc"},
        {"stages": {"../x": {}}},
        {"stages": {"pack": {"outs": [{"path": "../stolen", "md5": "0" * 32}]}}},
        {"stages": {"pack": {"outs": [{"path": "/stolen", "md5": "0" * 32}]}}},
        {"stages": {"pack": {"outs": [{"path": "pack", "md5": "../../x"}]}}},
        {"files": {"0" * 32 + ".dir": {"../../stolen": "0" * 32}}},
        {"products": {"../../../../stolen": {"path": "../data/pack"}}},
        {"products": {"pack": {"path": "../../../../stolen"}}},
    ],
)
def test_a_record_that_reaches_out_of_its_home_is_refused_before_anything_is_written(
    grown: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    record = read(grown.tracking, find(grown.tracking, "models:/caco-tiny/1"))
    monkeypatch.setattr("caco_assets.registry.lineage.restore.read", lambda *_: replace(record, **change))
    with pytest.raises(UserError, match="outside the home; nothing was written"):
        restore(grown.settings, "models:/caco-tiny/1", tmp_path / "then", tracking=grown.tracking)
    assert not (tmp_path / "then").exists()


def _files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_register_grow_collect_garbage_restore(logged, tmp_path: Path, migrated_mlflow: Path) -> None:
    made = _workspace(tmp_path / "home", migrated_mlflow)
    paths = made.settings.paths
    made.make("a", "b")
    first = made.register(1)
    data = _files(paths.root / "data")
    made.make("a", "rejected")
    commit_stale(made.settings)
    made.make("a", "b", "c")
    last = made.register(2)
    now = _files(paths.root / "data")

    with find_garbage(made.settings, remote=True, tracking=made.tracking) as found:
        cache, remote = found.stores
        # scenes, two files of a shard and the archive that listed them, quarantine, a pack of one file
        assert (len(cache.waste), len(remote.waste)) == (7, 7)
        assert {name: count for name, (count, _) in cache.by_product().items()} == {
            "archive of tiny": 3, "pack of tiny": 2, "quarantine of tiny": 1, "scenes of tiny": 1,
        }  # fmt: skip
        assert "archive of tiny: 3 objects" in found.text()
        found.delete()
    with find_garbage(made.settings, remote=True, tracking=made.tracking) as found:
        assert found.bytes == 0

    restored = restore(made.settings, first, tmp_path / "then", tracking=made.tracking)
    there = load_settings(str(restored.profile), home=restored.home)
    assert _files(there.paths.root / "data") == data
    assert _files(paths.root / "data") == now
    assert there.model_dump(exclude={"home"}) == made.settings.model_dump(exclude={"home"})
    assert recorded(there.paths.records, "archive/shard=0001").content_hash == content_hash(there.paths.archive / "shard=0001")
    # again: the same; another version there, or any folder with something in it: no
    restore(made.settings, first, tmp_path / "then", tracking=made.tracking)
    for out in (tmp_path / "then", made.settings.home):
        with pytest.raises(UserError, match="--out"):
            restore(made.settings, last, out, tracking=made.tracking)

    shutil.rmtree(paths.workspace / "dvc" / "cache")
    said = logged()
    again = restore(made.settings, first, tmp_path / "again", tracking=made.tracking)
    assert _files(load_settings(str(again.profile), home=again.home).paths.root / "data") == data
    assert any("fetching them from the remote" in line for line in said)
    shutil.rmtree(paths.workspace / "dvc")
    with pytest.raises(UserError, match="neither in the cache nor in the remote"):
        restore(made.settings, first, tmp_path / "lost", tracking=made.tracking)


def test_remains_of_old_work_go_and_those_of_work_under_way_stay(tmp_path: Path, migrated_mlflow: Path) -> None:
    made = _workspace(tmp_path, migrated_mlflow)
    made.make("a")
    root = made.settings.paths.root
    old = root / ".encoder.partial-0123456789ab"
    held, young = root / ".encoder.partial-aaaaaaaaaaaa", root / ".encoder.partial-bbbbbbbbbbbb"
    for folder in (old, held, young):
        folder.mkdir()
        (folder / "checkpoint.pt").write_text("weights")
        for beside in ("config.json", "lock"):
            (folder.with_name(f"{folder.name}.{beside}")).write_text("")
    month = time.time() - 30 * 86_400
    for path in root.rglob("*"):
        if path.name.startswith(".encoder") or path.parent.name.startswith(".encoder"):
            os.utime(path, (month, month))
    (young / "checkpoint.pt").write_text("newer weights")
    with held.with_name(f"{held.name}.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with find_garbage(made.settings, tracking=made.tracking) as found:
            assert {each.path.name for each in found.leftovers} == {old.name, f"{old.name}.config.json", f"{old.name}.lock"}
            found.delete()
    assert (young.exists(), held.exists(), old.exists()) == (True, True, False)
    assert (root / "data" / "pack").exists()
