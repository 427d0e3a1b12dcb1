"""The table of downstream tasks; a new task is one reader in `datasets/readers/` and one entry here."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.datasets.completeness import IncompleteError
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.segmentation import DenseImages


@dataclass(frozen=True)
class PaperProtocol:
    """Constants of the published linear probe."""

    learning_rate: float = 1e-3
    """Learning rate of Adam with default moments and no weight decay."""
    batch_size: int = 32
    milestones: tuple[float, ...] = (0.6, 0.8)
    """Fractions of training after which the rate is divided by ten; training takes `downstream.paper_epochs` (published: 100)."""
    size: int = 64
    """Side of the input, pixels; un-normalised RGB in [0, 1]."""
    limits: tuple[tuple[int, int], ...] | None = None
    """Reflectance × 10 000 of B04, B03 and B02 that maps to 0 and 1; None: 0 … 0.275."""
    dropout: float = 0.0
    """On the features, during training."""
    train_share: float = 1.0
    """Share of the training images used, a seeded choice."""


@dataclass(frozen=True)
class Task:
    """One benchmark."""

    name: str
    title: str
    reader: str
    """`module:function` in `datasets/readers/`: path → `LabelledImages`, or `DenseImages` if `tile` is set."""
    metric: str
    classes: int
    licence: str
    page: str
    """Page of its authors."""
    mirrors: tuple[str, ...] = field(default=(), kw_only=True)
    """Other download pages: the authors' own, and those that torchgeo reads."""
    paper: PaperProtocol = field(default_factory=PaperProtocol)
    protocols: Mapping[str, str] = field(default_factory=lambda: {"paper": "paper", "clean": "clean", "fine_tune": "fine_tune"})
    """Pass (`paper`, `clean` and, if the profile enables it, `fine_tune`) → the protocol that runs it, a name in `PROTOCOLS` or
    `DENSE_PROTOCOLS`. Omitted passes do not exist for this task."""
    twin: str = ""
    """Folder of the embedded twin; empty: the task's name."""
    tile: int = 0
    """Side in pixels of the tiles of a dense task (a class for each pixel); 0: the task is not dense."""

    @property
    def dense(self) -> bool:
        """Whether labels are per pixel."""
        return self.tile > 0

    @property
    def folder(self) -> str:
        """Folder of the embedded twin, below the folder of twins."""
        return self.twin or self.name

    @property
    def sources(self) -> str:
        """Page and mirrors, for messages."""
        return f"{self.page} (also {', '.join(self.mirrors)})" if self.mirrors else self.page

    def read(self, path: Path, hashes: Hashes = FRESH) -> LabelledImages | DenseImages:
        """Open and check the data at `path`.

        Args:
            path: the data as its authors ship it.
            hashes: cache of content hashes.

        Raises:
            UserError: the data is absent (`DataAbsentError`), incomplete (`IncompleteError`) or not in its authors' layout.
        """
        module, _, function = self.reader.partition(":")
        reader: Callable[[Path, Hashes], LabelledImages | DenseImages] = getattr(
            importlib.import_module(f"caco_assets.downstream.datasets.readers.{module}"), function
        )
        try:
            return reader(path, hashes)
        except IncompleteError as error:
            raise IncompleteError(f"{error}; the data set is at {self.sources}") from error


_ACCURACY, _MACRO_AP, _F1_CHANGE, _MIOU = "accuracy", "macro_ap", "f1_change", "miou"
_FINE_TUNED = {"paper": "fine_tune_paper", "clean": "clean", "fine_tune": "fine_tune"}
_MULTILABEL = {"paper": "multilabel_paper", "clean": "multilabel_clean", "fine_tune": "fine_tune"}
_DENSE = {"paper": "dense_paper", "clean": "dense_clean", "fine_tune": "dense_fine_tune"}
_EUROSAT_PAGE = "https://github.com/phelber/EuroSAT"
_EUROSAT_MIRRORS = ("https://zenodo.org/records/7711810", "https://hf.co/datasets/torchgeo/eurosat")
_AID_LICENCE = "none stated; Google Earth imagery, for research"
_AID_PAGE = "https://captain-whu.github.io/AID/"
_BIGEARTHNET_LICENCE = "CDLA-Permissive-1.0"
_BIGEARTHNET_PAGE = "https://bigearth.net"
_BIGEARTHNET_PAPER = PaperProtocol(batch_size=1024, size=128, dropout=0.2, train_share=0.1)
_ISPRS_LICENCE = "none stated; on request"
_ISPRS_PAGE = "https://www.isprs.org/resources/datasets/benchmarks/UrbanSemLab/"

_TABLE = (
    Task("eurosat", "EuroSAT (RGB)", "eurosat:read", _ACCURACY, 10, "MIT", _EUROSAT_PAGE, mirrors=_EUROSAT_MIRRORS),
    Task("eurosat_ms", "EuroSAT (13 bands)", "eurosat_ms:read", _ACCURACY, 10, "MIT", _EUROSAT_PAGE, mirrors=_EUROSAT_MIRRORS),
    Task(
        "aid_20",
        "AID (20 % for training)",
        "aid:read_20",
        _ACCURACY,
        30,
        _AID_LICENCE,
        _AID_PAGE,
        paper=PaperProtocol(size=224),
        protocols=_FINE_TUNED,
        twin="aid",
    ),
    Task(
        "aid_50",
        "AID (50 % for training)",
        "aid:read_50",
        _ACCURACY,
        30,
        _AID_LICENCE,
        _AID_PAGE,
        paper=PaperProtocol(size=224),
        protocols=_FINE_TUNED,
        twin="aid",
    ),
    Task(
        "bigearthnet",
        "BigEarthNet-S2 (first version, 19 labels)",
        "bigearthnet:read",
        _MACRO_AP,
        19,
        _BIGEARTHNET_LICENCE,
        _BIGEARTHNET_PAGE,
        paper=_BIGEARTHNET_PAPER,
        protocols=_MULTILABEL,
        mirrors=("https://zenodo.org/records/12687186",),
    ),
    Task(
        "bigearthnet_v2",
        "BigEarthNet-S2 (second version)",
        "bigearthnet_v2:read",
        _MACRO_AP,
        19,
        _BIGEARTHNET_LICENCE,
        _BIGEARTHNET_PAGE,
        paper=_BIGEARTHNET_PAPER,
        protocols=_MULTILABEL,
        mirrors=("https://zenodo.org/records/10891137", "https://hf.co/datasets/torchgeo/bigearthnet"),
    ),
    Task(
        "oscd",
        "OSCD",
        "oscd:read",
        _F1_CHANGE,
        2,
        "CC BY-NC-SA 4.0",
        "https://rcdaudt.github.io/oscd/",
        paper=PaperProtocol(size=96, limits=((426, 3698), (667, 2969), (885, 2620))),
        protocols=_DENSE,
        tile=96,
        mirrors=(
            "https://ieee-dataport.org/open-access/oscd-onera-satellite-change-detection",
            "https://hf.co/datasets/hkristen/oscd",
        ),
    ),
    Task(
        "dynamicearthnet",
        "DynamicEarthNet",
        "dynamicearthnet:read",
        _MIOU,
        6,
        "CC BY 4.0",
        "https://mediatum.ub.tum.de/1650201",
        paper=PaperProtocol(size=256),
        protocols=_DENSE,
        tile=256,
        mirrors=("https://github.com/aysim/dynnet",),
    ),
    Task(
        "levir_cd",
        "LEVIR-CD",
        "levir_cd:read",
        _F1_CHANGE,
        2,
        "none stated",
        "https://justchenhao.github.io/LEVIR/",
        paper=PaperProtocol(size=256),
        protocols=_DENSE,
        tile=256,
        mirrors=("https://hf.co/datasets/satellite-image-deep-learning/LEVIR-CD",),
    ),
    Task(
        "whu_cd",
        "WHU-CD",
        "whu_cd:read",
        _F1_CHANGE,
        2,
        "none stated",
        "http://gpcv.whu.edu.cn/data/building_dataset.html",
        paper=PaperProtocol(size=256),
        protocols=_DENSE,
        tile=256,
    ),
    Task(
        "loveda",
        "LoveDA",
        "loveda:read",
        _MIOU,
        7,
        "CC BY-NC-SA 4.0",
        "https://github.com/Junjue-Wang/LoveDA",
        paper=PaperProtocol(size=256),
        protocols=_DENSE,
        tile=256,
        mirrors=("https://zenodo.org/records/5706578",),
    ),
    Task(
        "potsdam",
        "ISPRS Potsdam",
        "isprs:read_potsdam",
        _MIOU,
        5,
        _ISPRS_LICENCE,
        _ISPRS_PAGE,
        paper=PaperProtocol(size=256),
        protocols=_DENSE,
        tile=256,
    ),
    Task(
        "vaihingen",
        "ISPRS Vaihingen",
        "isprs:read_vaihingen",
        _MIOU,
        5,
        _ISPRS_LICENCE,
        _ISPRS_PAGE,
        paper=PaperProtocol(size=256),
        protocols=_DENSE,
        tile=256,
    ),
)
TASKS = {task.name: task for task in _TABLE}


def find_task(name: str) -> Task:
    """The entry of the table.

    Raises:
        UserError: there is no such task; the message suggests the nearest.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"task={name}: there is no such task; {hint}allowed: {', '.join(TASKS)}")
    return TASKS[name]
