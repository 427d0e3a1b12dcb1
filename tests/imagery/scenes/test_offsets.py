"""Whatever way a provider writes a reflectance down, harmonising gives it back: the offset is taken off once, never twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.scenes.radiometry import harmonize, has_data, radiometry_of

OFFSET_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
reflectances = st.lists(st.integers(1, 19_000), min_size=1, max_size=30).map(lambda units: np.array(units) / 10_000)


@st.composite
def published(draw):
    """What a provider publishes of a band: its entry of `raster:bands`, the item's properties, the baseline, and the true formula.

    Numbers carry the +1000 from baseline 04.00 on, unless the provider took it away and set a flag (some keep `offset: -0.1` beside
    the flag). Scale and offset are written as in STAC 1.0, as in STAC 1.1, or left out where the baseline says them.
    """
    baseline = draw(st.sampled_from(["02.09", "02.14", "03.01", "04.00", "05.09", "05.11"]))
    new = baseline >= "04.00"
    flag = draw(st.sampled_from([None, *OFFSET_FLAGS]))
    applied = draw(st.booleans()) if flag else False
    properties = {"s2:processing_baseline": baseline} | ({flag: applied} if flag else {})
    scale = draw(st.sampled_from([1e-4, 2e-4]))
    shift = -0.1 if new and not applied else 0.0
    prefix = draw(st.sampled_from(["", "raster:"]))
    facts = {"nodata": 0}
    if scale != 1e-4 or draw(st.booleans()):
        facts[f"{prefix}scale"] = scale
    if draw(st.booleans()):
        facts[f"{prefix}offset"] = -0.1 if new and applied and draw(st.booleans()) else shift
    return facts, properties, baseline, scale, shift


@given(published(), reflectances)
def test_harmonising_undoes_what_the_provider_wrote(item, reflectance):
    facts, properties, baseline, scale, shift = item
    numbers = np.clip(np.rint((reflectance - shift) / scale), 1, 65_535).astype(np.uint16)[None, None]
    meaning = radiometry_of(facts, properties, baseline)
    assert meaning is not None
    back = harmonize(numbers, np.array([meaning.scale]), np.array([meaning.offset]), has_data(numbers, meaning.nodata))
    # a coarse scale rounds to its own steps, and the smallest number stands for what is darker
    assert np.abs(back[0, 0] - np.maximum(reflectance * 10_000, 1)).max() <= max(scale * 10_000, 1)


@given(published(), reflectances)
def test_harmonised_numbers_are_harmonised_already(item, reflectance):
    facts, properties, baseline, _, _ = item
    meaning = radiometry_of(facts, {**properties, OFFSET_FLAGS[0]: True}, baseline)
    assert meaning.offset == 0.0
    numbers = np.rint(reflectance * 10_000).astype(np.uint16)[None, None]
    same = harmonize(numbers, np.array([1e-4]), np.array([0.0]), has_data(numbers, 0))
    assert (same == numbers).all()
