"""How many seeds a decoder has in which protocol."""

import pytest

from caco_assets.downstream.evaluate import TaskRequest, evaluate
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.settings import Dense, TaskData, load_settings
from caco_assets.synthetic.twins import levir_cd


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("caco_assets.pretraining.encoder.encoder.try_to_load_from_cache", lambda *_: None)
    short = {"epochs": 1, "batch_size": 2, "paper_seeds": 1}
    return load_settings("tiny", home=tmp_path, downstream={"seeds": [0, 1], "dense_twin": short, "baselines": ["random"]})


def test_paper_may_have_fewer_seeds_than_clean_and_so_have_its_random_encoders(settings, tmp_path):
    levir_cd.write_twin(tmp_path / "twin", 0, 12)
    order = TaskRequest(TaskData(task="levir_cd", data=tmp_path / "twin", tile=32, limit=4), twin=True)
    encoder = Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "seco", 32), 5)
    rows = evaluate(settings, [order], encoder, name="mine")
    seeds = {(row.encoder, row.protocol, row.seed) for row in rows}
    assert seeds == {(name, "paper", 0) for name in ("mine", "random")} | {
        (name, "clean", seed) for name in ("mine", "random") for seed in (0, 1)
    }


def test_by_default_archives_have_all_seeds_and_twins_one_in_paper():
    assert Dense().paper_seeds is None
    downstream = load_settings("embedded").downstream
    assert (downstream.dense.paper_seeds, downstream.dense_twin.paper_seeds) == (None, 1)
    assert len(downstream.seeds) >= 3
