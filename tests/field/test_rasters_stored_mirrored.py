"""Images whose first row is in the south, whose first column is in the east, or that are rotated: refused by every reader."""

import numpy as np
import pytest
from affine import Affine
from folder_chips import LEFT, TOP, folder_chip, numbers, write_raster

from caco_assets.core.errors import UserError
from caco_assets.imagery.reading.gdal import UnreadableError, open_raster
from caco_assets.imagery.reading.http.tiff_index import read_index
from caco_assets.imagery.seco_layout.layout import PlaceFolder, list_dates
from caco_assets.imagery.seco_layout.pixels import Numbers, read_pixels, read_position
from caco_assets.inference.embed import embed
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing

FAR = 640
PLACES = {
    "south up": Affine(10, 0, LEFT, 0, 10, TOP - FAR),
    "mirrored": Affine(-10, 0, LEFT + FAR, 0, -10, TOP),
    "rotated": Affine(7, 7, LEFT, 7, -7, TOP),
    "rotated by half a turn": Affine(-10, 0, LEFT + FAR, 0, 10, TOP - FAR),
}


@pytest.mark.parametrize("kind", PLACES)
def test_no_reader_takes_the_pixels_of_such_an_image(tmp_path, kind):
    layers = numbers()
    image = write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, names=("B02", "B03"), transform=PLACES[kind])
    reason = f"is not north up but {kind.split(' by')[0] if 'half' not in kind else 'south up'}; gdalwarp IN OUT turns it"
    with pytest.raises(UnreadableError, match=reason), open_raster(str(image)):
        pass
    with pytest.raises(UserError, match=reason):
        folder_chip(image.parent)
    encoder = Encoder.random("resnet10t", Preprocessing.of_pack(("B02", "B03"), "seco", 32), 0)
    with pytest.raises(UserError, match=reason):
        embed(image, encoder, tile=32)
    assert read_index(image.read_bytes()) is None, "over HTTP it is left to `open_raster` too"
    write_raster(tmp_path / "000001" / "2020-01-13" / "B2.tif", layers[:1], transform=PLACES[kind])
    (date,), _ = list_dates(PlaceFolder(1, tmp_path / "000001"))
    with pytest.raises(UnreadableError, match=reason):
        read_position(date, ("B02",), 64, 10.0)
    with pytest.raises(UnreadableError, match=reason):
        read_pixels(date, ("B02",), Numbers(), 64)


def test_the_same_image_turned_north_up_is_read(tmp_path):
    layers = numbers()
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers)
    outcome = folder_chip(tmp_path / "tifs")
    assert outcome.pixels is not None
    assert np.array_equal(outcome.pixels, layers[..., 16:48, 16:48])
