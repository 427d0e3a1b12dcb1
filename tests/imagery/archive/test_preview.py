"""The picture of an archive's chips."""

import pytest

from caco_assets.imagery.archive.preview import chips_preview, rgb_bands


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (["B02", "B03", "B04", "B08"], ["B04", "B03", "B02"]),
        (["blue", "green", "red"], ["red", "green", "blue"]),
        (["swir16", "nir", "red", "green"], ["swir16", "nir", "red"]),
        (["B08", "B04"], ["B08", "B08", "B08"]),
    ],
)
def test_natural_colours_where_there_are_some(bands, shown):
    assert rgb_bands(bands) == shown


def test_the_picture_is_a_png_also_of_an_empty_archive(small_archive, tmp_path):
    for folder in (small_archive, tmp_path / "absent"):
        assert chips_preview(folder).startswith(b"\x89PNG")
