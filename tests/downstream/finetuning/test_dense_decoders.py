"""Decoders: what they learn, what stays frozen, and the rows they end in."""

import numpy as np
import pytest
import torch

from caco_assets.downstream.datasets.segmentation import PHOTOGRAPH, DenseImages
from caco_assets.downstream.datasets.tiles import Scene
from caco_assets.downstream.features.baselines import Candidate, RawStatistics
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.features.pyramids import POSITIONS, Fresh, Kept, Tiles, Tuned, of_images, pyramids, turned
from caco_assets.downstream.finetuning.decoder_loop import DecoderConfig, Part, answers, fit
from caco_assets.downstream.finetuning.dense_targets import Change, Cover
from caco_assets.downstream.finetuning.unet import UNetDecoder
from caco_assets.downstream.inspection.cell_figures import LIMIT, masks_picture
from caco_assets.downstream.metrics.example_masks import kept
from caco_assets.downstream.metrics.per_class import figures_of
from caco_assets.downstream.protocols.dense import DENSE_PROTOCOLS, DenseEvaluation
from caco_assets.downstream.score_rows import read_rows
from caco_assets.downstream.scoring.score_task import resolve_tasks
from caco_assets.downstream.stage import score
from caco_assets.downstream.tasks import find_task
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.settings import Dense, load_settings
from caco_assets.synthetic.twins import levir_cd, loveda

ARCHITECTURE = "test_resnet"
CPU = torch.device("cpu")
RECIPE = DecoderConfig(epochs=10, batch_size=4, learning_rate=3e-3, weight_decay=1e-4, decay=0.95, encoder_rate=1e-3)


def quiet(_):
    return None


def encoder(seed=0) -> Encoder:
    return Encoder.random(ARCHITECTURE, Preprocessing.unit_rgb(32), seed).eval()


def squares(count, side=32, seed=0, dates=2):
    """Noise in which a bright square has appeared (two dates), or stands (one)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 100, (count, dates, 3, side, side)).astype(np.uint8)
    masks = np.zeros((count, side, side), np.uint8)
    for number in range(count):
        row, col = rng.integers(0, side - 16, 2)
        images[number, -1, :, row : row + 16, col : col + 16] += 120
        masks[number, row : row + 16, col : col + 16] = 1
    return Tiles(images, masks, PHOTOGRAPH)


def f1_of(fitted, part, target):
    guess = np.concatenate(list(answers(fitted, part, target)))
    truth = part.tiles.masks == 1
    both = np.count_nonzero((guess == 1) & truth)
    return 2 * both / (np.count_nonzero(guess == 1) + np.count_nonzero(truth))


def test_the_decoder_gives_a_logit_for_each_pixel_also_where_sides_halve_unevenly():
    for side in (96, 64, 72):
        levels = [torch.randn(2, width, side // stride, side // stride) for width, stride in ((4, 2), (6, 4), (8, 8))]
        assert UNetDecoder([4, 6, 8], 5)(levels).shape == (2, 5, side, side)


def test_a_plainly_visible_change_is_learned_on_a_frozen_encoder_that_stays_as_it_was():
    frozen = encoder()
    before = {name: tensor.clone() for name, tensor in frozen.backbone.state_dict().items()}
    train, val, test = (Part(squares(24, seed=seed), Fresh(frozen)) for seed in (0, 1, 2))
    fitted = fit(train, val, Change(), RECIPE, 0, CPU)
    assert f1_of(fitted, test, Change()) > 0.75
    assert fitted.score is not None
    # weights, and the running statistics of batch norm
    after = frozen.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_land_cover_is_learned_too():
    frozen, target = encoder(), Cover(2, (0, 1))
    train, val, test = (Part(squares(24, seed=seed, dates=1), Fresh(frozen)) for seed in (0, 1, 2))
    assert f1_of(fit(train, val, target, RECIPE, 0, CPU), test, target) > 0.75


def test_fine_tuning_moves_a_copy_and_never_the_encoder_itself():
    given = encoder()
    identity = given.identity
    tuned = Tuned(given)
    fitted = fit(Part(squares(8), tuned), Part(squares(4, seed=1), Fresh(given)), Change(), RECIPE, 0, CPU)
    assert given.identity == identity
    assert fitted.tuned is not None
    assert fitted.tuned.encoder.identity != identity
    assert list(answers(fitted, Part(squares(4, seed=2), Fresh(given)), Change()))


def test_the_same_seed_gives_the_same_decoder_and_another_seed_another():
    train = Part(squares(8), Fresh(encoder()))
    state = torch.random.get_rng_state()
    short = DecoderConfig(2, 4, 1e-3, 0.0, 0.95, 1e-3)
    one, same, other = (fit(train, None, Change(), short, seed, CPU).decoder.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_validation_the_last_epoch_counts_at_one_half():
    fitted = fit(Part(squares(4), Fresh(encoder())), None, Change(), DecoderConfig(3, 2, 1e-3, 0, 1, 1e-3), 0, CPU)
    assert (fitted.epoch, fitted.threshold, fitted.score) == (3, 0.5, None)


def test_eight_positions_are_eight_different_pictures():
    picture = np.arange(9).reshape(3, 3)
    assert len({turned(picture, position).tobytes() for position in range(POSITIONS)}) == 8
    assert (turned(picture, 0) == picture).all()


def test_kept_features_are_those_of_encoding_again_in_every_position(tmp_path):
    frozen, tiles = encoder(), squares(5)
    kept = pyramids(frozen, frozen.identity, tiles, "stem", POSITIONS, tmp_path, 1e9)
    assert isinstance(kept, Kept)
    index, positions = [4, 0, 2, 2], [7, 0, 3, 5]
    for one, other in zip(kept.levels(tiles, index, positions), Fresh(frozen).levels(tiles, index, positions), strict=True):
        # half precision on disk
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)


def test_features_that_would_take_too_much_are_encoded_at_every_step_and_that_is_logged(logged, tmp_path):
    said = logged()
    frozen = encoder()
    assert isinstance(pyramids(frozen, frozen.identity, squares(5), "stem", POSITIONS, tmp_path, 1e3), Fresh)
    assert "encoded at every step" in said[0]
    assert not list(tmp_path.iterdir())


def test_of_two_dates_the_levels_are_absolute_differences():
    frozen, tiles = encoder(), squares(3)
    with torch.no_grad():
        levels = of_images(frozen, tiles.images, tiles.fmt)
        both = [frozen.pyramid(frozen.preprocess(tiles.images[:, date], tiles.fmt, 32)) for date in (0, 1)]
    assert len(levels) == 5
    for level, before, after in zip(levels, *both, strict=True):
        torch.testing.assert_close(level, (before - after).abs(), rtol=1e-4, atol=1e-5)


@pytest.fixture
def made_up(tmp_path) -> DenseEvaluation:
    """A data set of bright squares that have appeared."""
    known = {f"{part}{n}": squares(1, 64, seed=100 * k + n) for k, part in enumerate(("train", "test")) for n in range(10)}
    scenes = {part: tuple(Scene(name, 64, 64) for name in known if name.startswith(part)) for part in ("train", "test")}
    data = DenseImages(
        task="made_up",
        classes=("no change", "change"),
        scored=(1,),
        pixel_format=PHOTOGRAPH,
        dates=2,
        dtype="uint8",
        scenes=scenes,
        version="1",
        note="made up",
        decode=lambda name: (known[name].images[0], known[name].masks[0]),
    ).tiled(64)
    training = Dense(epochs=8, fine_tune_epochs=3, batch_size=4, learning_rate=3e-3)
    who = Candidate.of("caco", "candidate", 0, encoder())
    return DenseEvaluation(find_task("levir_cd"), data, who, encoder(), 0, FeatureCache(tmp_path), training)


@pytest.mark.parametrize("name", sorted(DENSE_PROTOCOLS))
def test_every_protocol_finds_the_change_and_says_how(made_up, name):
    (found,) = DENSE_PROTOCOLS[name](made_up)
    figures = {figure.metric: figure.value for figure in found.outcome.figures(200, np.random.default_rng(0))}
    assert figures["f1_change"] > 0.5
    assert figures["iou_change"] < figures["f1_change"]
    assert found.outcome.n == 10
    assert ("no validation" in found.note) == (name == "dense_paper")
    assert found.method == ("fine_tune" if name == "dense_fine_tune" else "frozen_decoder")


def test_plain_pixels_stand_in_the_same_rows(made_up):
    from dataclasses import replace

    for name in ("dense_paper", "dense_clean"):
        (found,) = DENSE_PROTOCOLS[name](replace(made_up, source=RawStatistics()))
        (f1, _) = found.outcome.figures(200, np.random.default_rng(0))
        assert f1.value > 0.9
        assert "no network" in found.note


@pytest.fixture
def ready(tmp_path, monkeypatch):
    """Settings whose encoder and twins are there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("caco_assets.pretraining.encoder.encoder.try_to_load_from_cache", lambda *_: None)
    tasks = {name: {"task": name, "tile": 32, "fine_tune": name == "levir_cd"} for name in ("levir_cd", "loveda")}
    settings = load_settings(
        "tiny", home=tmp_path, downstream={"seeds": [0, 1], "dense_twin": {"epochs": 2, "fine_tune_epochs": 1}}
    )
    only = dict(load_settings("tiny", home=tmp_path, downstream={"tasks": tasks}).downstream.tasks.items())
    downstream = settings.downstream.model_copy(update={"tasks": {name: only[name] for name in tasks}})
    settings = settings.model_copy(update={"downstream": downstream})
    levir_cd.write_twin(settings.paths.benchmarks / "levir_cd", 0, 12)
    loveda.write_twin(settings.paths.benchmarks / "loveda", 0, 12)
    Encoder.random(ARCHITECTURE, Preprocessing.of_pack(RGB, "seco", 32), 5).save(settings.paths.encoder, {}, {})
    return settings


def test_dense_rows_stand_beside_all_baselines_with_their_seeds_and_items(ready):
    rows = read_rows(score(ready).path)
    measured = [row for row in rows if row.status == "measured"]
    assert {(row.row, row.metric) for row in measured} == {
        ("levir_cd", "f1_change"),
        ("levir_cd", "iou_change"),
        ("loveda", "miou"),
    }
    for protocol in ("paper", "clean"):
        assert {row.encoder for row in measured if row.protocol == protocol} == {"caco", "random", "raw_statistics"}
    frozen = [row for row in measured if (row.encoder, row.method, row.row) == ("caco", "frozen_decoder", "loveda")]
    assert {(row.protocol, row.seed) for row in frozen} == {("paper", 0), ("paper", 1), ("clean", 0), ("clean", 1)}
    assert {row.seed for row in measured if row.encoder == "raw_statistics"} == {0}
    assert {row.method for row in measured if row.row == "levir_cd"} == {"frozen_decoder", "fine_tune"}
    assert {row.size for row in rows} == {32}
    for row in measured:
        assert 0 <= row.ci_low <= row.value <= row.ci_high <= 1
        assert (row.items is None) == (row.metric == "iou_change")
    absent = [row for row in rows if row.encoder == "imagenet"]
    assert absent
    assert all(row.status == "not_measured" for row in absent)
    assert score(ready).reused
    # a few answers are kept as masks, the same tiles for every encoder, and are shown beside image and truth
    for each in resolve_tasks(ready):
        assert isinstance(each.data, DenseImages)
        clean = [
            row
            for row in measured
            if (row.row, row.protocol, row.method) == (each.task_name, "clean", "frozen_decoder") and row.items
        ]
        shown = [kept(ready.paths.root / row.items) for row in clean]
        assert len({tuple(answers) for answers in shown}) == 1
        assert 1 <= len(shown[0]) <= 3
        png = masks_picture(each.data, shown[0], ready.paths.cache / "tiles", "title")
        assert png is not None
        assert len(png) <= LIMIT
        (figures,) = {len(figures_of(ready.paths.root / row.items, each.data.classes, each.data.scored)) for row in clean}
        assert figures == len(each.data.classes)
