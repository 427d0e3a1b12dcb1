"""The layout of `workspace/`, said once."""

from __future__ import annotations

from pathlib import Path

from caco_assets.settings.frozen import Frozen


class Paths(Frozen):
    """The layout of `workspace/`, said once."""

    home: Path
    workspace: Path
    profile: str

    @property
    def root(self) -> Path:
        """Root folder of this profile."""
        return self.workspace / self.profile

    @property
    def records(self) -> Path:
        """Small JSON records of finished products."""
        return self.root / "records"

    @property
    def catalog(self) -> Path:
        """Static STAC catalog: `catalog.json`, `items.parquet` and, for the embedded Earth, the COGs and `truth/`."""
        return self.root / "catalog"

    @property
    def change_truth(self) -> Path:
        """Ground truth of change from the imagery: parquet with `location_id` and `changed`."""
        return self.catalog / "truth" / "change.parquet"

    @property
    def benchmarks(self) -> Path:
        """Labelled twins in the published layouts."""
        return self.root / "benchmarks"

    @property
    def locations(self) -> Path:
        """`locations.parquet`."""
        return self.root / "data" / "locations.parquet"

    @property
    def scenes(self) -> Path:
        """`scenes.parquet`."""
        return self.root / "data" / "scenes.parquet"

    @property
    def archive(self) -> Path:
        """Folder of `shard=0007/` folders."""
        return self.root / "data" / "archive"

    @property
    def quarantine(self) -> Path:
        """`quarantine.parquet`: every rejected chip, with reason codes."""
        return self.root / "data" / "quarantine.parquet"

    @property
    def pack(self) -> Path:
        """Folder that training reads."""
        return self.root / "data" / "pack"

    @property
    def probe_set(self) -> Path:
        """`probe_set.npz`: the few labelled images on which training is probed."""
        return self.root / "data" / "probe_set.npz"

    @property
    def encoders(self) -> Path:
        """Folder with one folder per imported encoder (`caco encoder import`)."""
        return self.root / "encoders"

    def encoder_scores(self, name: str) -> Path:
        """Scores of one of `encoders`."""
        return self.encoders / f"{name}.scores.parquet"

    @property
    def change_maps(self) -> Path:
        """Folder of the change maps: `change_maps.parquet`, `maps.tar`, `figures.json` and pictures."""
        return self.root / "change_maps"

    @property
    def encoder(self) -> Path:
        """Result of pretraining: `encoder.safetensors`, `encoder.json`, `metrics.jsonl`, `change_*`."""
        return self.root / "encoder"

    @property
    def scores(self) -> Path:
        """`scores.parquet`."""
        return self.root / "scores.parquet"

    @property
    def report(self) -> Path:
        """Folder of `report.html`, `model_card.md`, `scorecard.json`."""
        return self.root / "report"

    @property
    def data_docs(self) -> Path:
        """Static site of the validation results."""
        return self.root / "data_docs"

    @property
    def cache(self) -> Path:
        """Features and other files that can be deleted and recomputed."""
        return self.root / "cache"
