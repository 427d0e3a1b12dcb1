"""The gallery: which places it shows, which dates and bands, and that it is a picture for any pack."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caco_assets.pretraining.change.estimate import ChangeState
from caco_assets.pretraining.change.gallery import draw_gallery, pick_dates, rank, shown_bands
from caco_assets.pretraining.change.ground_truth import ChangeTruth
from caco_assets.pretraining.pack.format import Pack


def state(places: int, seen: int | None = None) -> ChangeState:
    found = ChangeState(2 * places, beta=0.8)
    slots = torch.arange(2 * (places if seen is None else seen))
    values = (slots.float() * 7) % 13
    found.update(slots, values, values, values)
    found.relabel(seed=0, monotone=True)
    return found


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (("B02", "B03", "B04", "B08"), ("B04", "B03", "B02")),
        (("swir16", "red", "nir", "green", "blue"), ("red", "green", "blue")),
        (("red", "nir", "green"), ("red", "nir", "green")),
        (("VV", "VH"), ("VV",)),
    ],
)
def test_true_colours_where_there_are_any(bands: tuple[str, ...], shown: tuple[str, ...]) -> None:
    assert shown_bands(bands) == shown


def test_both_dates_are_of_one_season_where_the_place_has_one() -> None:
    assert pick_dates(np.array([[False, True, True], [True, False, True]])) == (2, 2)
    assert pick_dates(np.array([[False, True, False], [True, False, True]])) == (1, 0)


def test_places_are_ranked_by_the_mean_of_their_periods_and_a_place_not_seen_is_left_out(tmp_path: Path, make_pack) -> None:
    pack = Pack.open(make_pack(tmp_path / "pack"))
    found = state(12, seen=9)
    by_hand = found.ratio.reshape(-1, 2).mean(dim=1)[:9]
    ranked = rank(found, pack)
    assert [pair.place for pair in ranked] == torch.argsort(-by_hand, stable=True).tolist()
    assert [pair.estimate for pair in ranked] == pytest.approx(by_hand.sort(descending=True).values.tolist())
    words = {pair.place: pair.label for pair in ranked}
    for place, (early, late) in enumerate(found.label.reshape(-1, 2)[:9].tolist()):
        assert (
            words[place]
            == {
                (0, 0): "unchanged",
                (1, 1): "changed",
                (1, 0): "changed (early)",
                (0, 1): "changed (late)",
            }[early, late]
        )


@pytest.mark.parametrize("bands", [("B04", "B03", "B02"), ("B08",)])
@pytest.mark.parametrize("seen", [0, 1, 12])
def test_it_is_a_picture_for_any_bands_and_any_number_of_places(tmp_path: Path, make_pack, bands, seen: int) -> None:
    pack = Pack.open(make_pack(tmp_path / "pack", bands=bands))
    truth = ChangeTruth(np.arange(12) % 2 == 0, np.arange(12) < 6)
    assert draw_gallery(tmp_path / "gallery.png", state(12, seen), pack, truth) == 2 * (seen // 2)
    with Image.open(tmp_path / "gallery.png") as picture:
        assert picture.width > 1000
