"""Pictures and tables of a cell: each class by its figures, pictures small enough for the event log, legends in their colours."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from caco_assets.downstream.inspection.cell_figures import LIMIT, classes_picture, confusion_picture, natural_colors, small_png
from caco_assets.downstream.metrics.per_class import confusion_of, figures_of
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

PNG = b"\x89PNG"


@pytest.fixture
def items(tmp_path: Path) -> Path:
    return tmp_path / "items.parquet"


def test_each_class_of_one_label_has_recall_precision_and_f1(items: Path) -> None:
    pd.DataFrame({"image": list("abcde"), "label": [0, 0, 0, 1, 1], "prediction": [0, 0, 1, 1, 0]}).to_parquet(items)
    first, second, third = figures_of(items, ("crop", "forest", "river"))
    assert first == {"class": "crop", "images": 3, "recall": 0.6667, "precision": 0.6667, "f1": 0.6667}
    assert (second["recall"], second["precision"]) == (0.5, 0.5)
    # neither there nor said: no figure, rather than 0
    assert (third["images"], third["recall"], third["precision"], third["f1"]) == (0, None, None, None)
    counts = confusion_of(items, 3)
    assert counts is not None
    assert counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert confusion_picture(counts, ("crop", "forest", "river"), "title").startswith(PNG)


def test_each_class_of_several_labels_has_its_average_precision(items: Path) -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.uint8)
    scores = np.array([[0.9, 0.1], [0.5, 0.2], [0.4, 0.3]], np.float32)
    pd.DataFrame({"image": list("abc"), "label": list(labels), "score": list(scores)}).to_parquet(items)
    assert confusion_of(items, 2) is None
    records = figures_of(items, ("crop", "forest"))
    # found at ranks 1 and 3: (1/1 + 2/3) / 2
    assert records[0] == {"class": "crop", "images": 2, "average_precision": 0.8333}
    assert records[1]["average_precision"] is None
    assert classes_picture(records, "average_precision", "title").startswith(PNG)


def test_pixels_of_a_class_are_summed_over_all_tiles(items: Path) -> None:
    counts = {(0, 0): [8, 2], (0, 1): [1, 1], (1, 0): [0, 0], (1, 1): [3, 5]}
    pd.DataFrame({"image": ["a", "b"], **{f"truth_{i}_predicted_{j}": value for (i, j), value in counts.items()}}).to_parquet(items)
    background, change = figures_of(items, ("no change", "change"), scored=(1,))
    assert (change["pixels"], change["iou"], change["f1"], change["counts"]) == (8, 0.8, 0.8889, True)
    assert (background["recall"], background["counts"]) == (0.8333, False)


def test_a_picture_too_large_for_the_log_has_fewer_colours_but_keeps_those_of_its_legend() -> None:
    figure = Figure(figsize=(5, 5), dpi=90)
    figure.add_axes((0, 0.1, 1, 0.9)).imshow(np.random.default_rng(0).integers(0, 90, (400, 400, 3), dtype=np.uint8))
    figure.legend(handles=[Patch(facecolor="#4e79a7", label="not found")], loc="lower center")
    plain = BytesIO()
    figure.savefig(plain, format="png")
    assert plain.tell() > LIMIT
    png = small_png(figure)
    assert len(png) <= LIMIT
    colors = {color for _, color in Image.open(BytesIO(png)).convert("RGB").getcolors(1 << 20) or []}
    assert (0x4E, 0x79, 0xA7) in colors


def test_a_picture_in_natural_colours_shows_both_dates_by_one_stretch() -> None:
    fmt = PixelFormat(("B02", "B03", "B04", "B08"), 1e-4)
    images = np.stack([np.full((4, 8, 8), 500), np.full((4, 8, 8), 2000)]).astype(np.uint16)
    images[1, 2] = 3000  # red
    before, after = natural_colors(images, fmt)
    assert before.max() == 0
    assert after[0, 0, 0] == 255
    assert after[0, 0, 1] == after[0, 0, 2] < 255
