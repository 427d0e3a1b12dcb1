"""Backbones of each kind, from their making through a step of training, saving and loading to features and a pyramid."""

from pathlib import Path

import numpy as np
import pytest
import torch

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import ARCHIVE, RGB, Encoder, Preprocessing
from caco_assets.pretraining.objectives import ObjectiveConfig, build
from caco_assets.settings import S2_BANDS

SIDE, BATCH = 32, 4


@pytest.fixture(scope="module")
def chips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4_000, (2, 12, 40, 40), dtype=np.uint16)


def trained(name: str, bands: tuple[str, ...]) -> Encoder:
    """After one step of CACo at 32 px."""
    encoder = Encoder.random(name, Preprocessing.of_pack(bands, "seco", SIDE), seed=0)
    before = encoder.identity
    config = ObjectiveConfig(slots=2 * BATCH, embedding_dim=8, queue_size=2 * BATCH)
    objective = build("caco", config, encoder.backbone, features=encoder.width, seed=0).train()
    sgd = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], 0.01, momentum=0.9, fused=True)
    views = torch.randn(4, BATCH, len(bands), SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    objective.before_step()
    output = objective(views, torch.arange(BATCH))
    output.loss.backward()
    sgd.step()
    objective.after_step(output)
    assert output.loss.isfinite()
    assert encoder.identity != before
    for module in encoder.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one pass stands for the many that running statistics need
    with torch.no_grad():
        encoder.backbone(torch.randn(64, len(bands), SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    return encoder.eval()


@pytest.mark.parametrize(
    ("name", "bands", "width", "channels"),
    [
        ("resnet18", S2_BANDS, 512, [64, 64, 128, 256, 512]),
        ("resnet50", RGB, 2048, [64, 256, 512, 1024, 2048]),
        ("vit_small_patch16_224", RGB, 384, [384] * 5),
        ("vit_small_patch16_224", ("B08", "B11"), 384, [384] * 5),
    ],
)
def test_a_backbone_of_any_bands_trains_saves_loads_and_gives_features(tmp_path, chips, name, bands, width, channels):
    encoder = trained(name, bands)
    encoder.save(tmp_path, training_config={}, data={})
    loaded = Encoder.load(tmp_path)
    assert loaded.identity == encoder.identity
    features = loaded.features(chips, ARCHIVE)
    assert features.shape == (2, width)
    assert np.isfinite(features).all()
    # trained weights lie channels-last, loaded ones do not: the same sums in another order
    np.testing.assert_allclose(features, encoder.features(chips, ARCHIVE), rtol=1e-3, atol=1e-3 * np.abs(features).max())
    with torch.no_grad():
        levels = loaded.pyramid(torch.zeros(1, len(bands), 64, 64))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (wide, 64 // stride, 64 // stride) for wide, stride in zip(channels, (2, 4, 8, 16, 32), strict=True)
    ]


@pytest.fixture(scope="module")
def transformer() -> Encoder:
    return Encoder.random("test_vit", Preprocessing.of_pack(RGB, "seco", 64), seed=0).eval()


def test_a_transformer_has_positions_of_its_own_size_and_takes_others(transformer: Encoder, chips: np.ndarray):
    assert transformer.backbone.get_parameter("pos_embed").shape[1] == 4 * 4 + 1
    assert transformer.features(chips, ARCHIVE, size=96).shape == transformer.features(chips, ARCHIVE).shape


@pytest.mark.parametrize("size", [40, 8])
def test_a_size_that_patches_do_not_fill_is_refused(transformer: Encoder, chips: np.ndarray, size: int):
    with pytest.raises(UserError, match=f"image size {size}: test_vit cuts images into patches of 16 pixels; take (32|16) or"):
        transformer.features(chips, ARCHIVE, size=size)
    with pytest.raises(UserError, match=f"image size {size}: test_vit"):
        Encoder.random("test_vit", Preprocessing.of_pack(RGB, "seco", size), seed=0)


def test_a_transformer_behind_another_size_is_saved_and_loaded_with_its_own_positions(
    transformer: Encoder, chips: np.ndarray, tmp_path: Path
):
    smaller = transformer.with_preprocessing(Preprocessing.of_pack(RGB, "seco", 32))
    smaller.save(tmp_path, training_config={}, data={})
    loaded = Encoder.load(tmp_path)
    assert loaded.identity == smaller.identity
    assert np.array_equal(loaded.features(chips, ARCHIVE), smaller.features(chips, ARCHIVE))


def test_a_transformers_coarser_levels_are_means_and_its_finer_ones_between(transformer: Encoder):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        levels = transformer.pyramid(images)
    assert [tuple(level.shape[2:]) for level in levels] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    coarse, fine = levels[4], levels[2]
    assert coarse.isfinite().all()
    assert fine.std() > 0
