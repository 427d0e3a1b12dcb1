"""One typed, frozen `Settings`: a named profile (YAML), overridden by `CACO_…` variables (`CACO_SAMPLING__PLACES=64`)."""

from __future__ import annotations

import difflib
import json
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from caco_assets.errors import UserError

PROFILES = Path(__file__).with_name("profiles")
S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(_Frozen):
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
    places_per_shard: int = Field(default=500, ge=1)


class SyntheticSource(_Frozen):
    """The embedded Earth, written as a static STAC catalog of COGs."""

    kind: Literal["synthetic"] = "synthetic"
    scenes_per_season: int = Field(default=2, ge=1)
    """Acquisitions of a city per season and period; some of them are cloudy."""
    changed_share: float = Field(default=0.3, ge=0, le=1)
    """Share of places with true long-term change between the two periods."""
    benchmark_images_per_class: int = Field(default=100, ge=10)
    """Size of the EuroSAT twin: images in each of the ten classes."""


class FolderSource(_Frozen):
    """A folder of GeoTIFFs, one multi-band file per date, indexed as a STAC catalog by `caco catalog build`."""

    kind: Literal["folder"] = "folder"
    path: Path
    bands: tuple[str, ...]
    """Band names in file order."""
    date_pattern: str = r"(\d{4}-\d{2}-\d{2})"
    """Regular expression whose first group is the date in the file name."""
    scale: float = Field(default=1e-4, gt=0)
    """Reflectance per digital number."""
    offset: float = 0.0
    """Reflectance at digital number 0."""
    nodata: float | None = 0


class CatalogSource(_Frozen):
    """A static STAC catalog on disk."""

    kind: Literal["catalog"] = "catalog"
    path: Path


class StacApiSource(_Frozen):
    """A STAC API."""

    kind: Literal["stac_api"] = "stac_api"
    url: str
    collection: str = "sentinel-2-l2a"
    signer: Literal["none", "planetary_computer"] = "none"


Source = Annotated[SyntheticSource | FolderSource | CatalogSource | StacApiSource, Field(discriminator="kind")]


class Imagery(_Frozen):
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
    period_months: int = Field(default=12, ge=1, le=36)
    min_clear: float = Field(default=0.9, gt=0, le=1)
    """Share of a chip's pixels that must be clear (SCL where there is one, a reflectance test where not)."""
    max_scene_cloud: float = Field(default=90.0, ge=0, le=100)
    """Scenes cloudier than this (percent) are not even tried."""
    workers: int = Field(default=2, ge=1)

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


class Validation(_Frozen):
    """When data is bad enough to stop."""

    max_quarantined: float = Field(default=0.5, ge=0, le=1)
    """Largest share of wanted chips that may be in quarantine."""


class Pretraining(_Frozen):
    """What has changed?"""

    objective: str = "caco"
    """A registered name of `pretraining/objectives/`."""
    fidelity: Literal["improved", "reference"] = "improved"
    change_estimate: Literal["distance", "ratio", "ema_ratio"] = "ema_ratio"
    backbone: str = "resnet18"
    """A timm name."""
    bands: tuple[str, ...] = Field(default=("B04", "B03", "B02"), min_length=1)
    stretch: Literal["seco", "seco_fine", "eurosat", "reflectance"] = "seco"
    """How reflectance becomes uint8 in the pack (see `pretraining/stretch.py`)."""
    image_size: int = Field(default=224, ge=32)
    crop_scale: tuple[float, float] = (0.2, 1.0)
    embedding_dim: int = Field(default=128, ge=2)
    batch_size: int = Field(default=256, ge=2)
    """Images per step over all processes; even for objectives that need both periods of a place."""
    epochs: int = Field(default=200, ge=1)
    queue_size: int = Field(default=16_384, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    momentum: float = Field(default=0.999, ge=0, le=1)
    """Of the key encoder's moving average."""
    ema_beta: float = Field(default=0.8, ge=0, lt=1)
    """Weight of the old value in the moving average of the change ratio."""
    learning_rate: float = Field(default=0.03, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[float, ...] = (0.6, 0.8)
    """Fractions of training where the step schedule divides the rate by ten."""
    warmup_epochs: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0)
    """CPU threads for the views; 0: all cores."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints."""
    probe_every: int = Field(default=0, ge=0)
    """Epochs between kNN probes during training; 0: none."""

    @model_validator(mode="after")
    def _crop_scale_in_order(self) -> Pretraining:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale={low:g}, {high:g}: needs two shares of the image, the smaller first, above 0 and at most 1"
            )
        return self


class TaskData(_Frozen):
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


class Downstream(_Frozen):
    """How good is it?"""

    tasks: dict[str, TaskData] = {}
    """Name of the row in scores → what to run."""
    baselines: tuple[Literal["random", "imagenet", "raw_statistics"], ...] = ("random", "imagenet", "raw_statistics")
    seeds: tuple[int, ...] = (0, 1, 2)
    paper_epochs: int = Field(default=100, ge=1)
    bootstrap: int = Field(default=1000, ge=100)


class Registry(_Frozen):
    """Which version serves?"""

    model: str = "caco-resnet18"
    policy: Path = Path("mlflow/promotion.yaml")
    """Relative to the home folder."""
    tracking_uri: str | None = None
    """An MLflow server; none: SQLite and files in the workspace."""


class Automation(_Frozen):
    """The monthly loop."""

    cron: str = "0 3 1 * *"
    timezone: str = "UTC"


class Settings(BaseSettings):
    """Everything that decides a run. Frozen; a wrong key or value stops before work starts."""

    model_config = SettingsConfigDict(env_prefix="CACO_", env_nested_delimiter="__", frozen=True, extra="forbid")

    profile: str
    home: Path
    """Folder of `dvc.yaml`, `mlflow/` and `workspace/`: moving it moves all state (`CACO_HOME`)."""
    seed: int = 0
    vintage: str = Field(default="2026-11", pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    """The late period ends with this month."""
    gap_years: int = Field(default=4, ge=1)
    """The early period lies this many years before the late one."""
    sampling: Sampling = Sampling()
    imagery: Imagery = Imagery()
    validation: Validation = Validation()
    pretraining: Pretraining = Pretraining()
    downstream: Downstream = Downstream()
    registry: Registry = Registry()
    automation: Automation = Automation()

    @model_validator(mode="after")
    def _rooms_agree(self) -> Settings:
        absent = [band for band in self.pretraining.bands if band not in self.imagery.bands]
        if absent:
            raise ValueError(
                f"pretraining.bands: {', '.join(absent)} is not among imagery.bands ({', '.join(self.imagery.bands)}); add it there"
            )
        if self.imagery.period_months > 12 * self.gap_years:
            raise ValueError(
                f"imagery.period_months={self.imagery.period_months}: the two periods overlap with gap_years={self.gap_years}; "
                f"at most {12 * self.gap_years} months"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the profile, but for the two that chose the profile (see `load_settings`)."""

        def environment() -> dict[str, Any]:
            return {key: value for key, value in env_settings().items() if key not in ("profile", "home")}

        return (environment, init_settings)  # pyright: ignore[reportReturnType]

    @cached_property
    def paths(self) -> Paths:
        """Where everything of this profile lives."""
        return Paths(home=self.home, workspace=self.home / "workspace", profile=self.profile)

    @property
    def shards(self) -> int:
        """Number of shards that `sampling.places` fill."""
        return -(-self.sampling.places // self.sampling.places_per_shard)


class Paths(_Frozen):
    """The layout of `workspace/`, said once."""

    home: Path
    workspace: Path
    profile: str

    @property
    def root(self) -> Path:
        """All that belongs to this profile."""
        return self.workspace / self.profile

    @property
    def records(self) -> Path:
        """Small JSON records of finished products."""
        return self.root / "records"

    @property
    def catalog(self) -> Path:
        """Static STAC catalog: `catalog.json`, `items.parquet`, and for the embedded Earth the COGs and `truth/`."""
        return self.root / "catalog"

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
        """`quarantine.parquet`: every chip refused, with reason codes."""
        return self.root / "data" / "quarantine.parquet"

    @property
    def pack(self) -> Path:
        """Folder that training reads."""
        return self.root / "data" / "pack"

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
        """Features and other things that are quick to lose."""
        return self.root / "cache"


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def find_home() -> Path:
    """`CACO_HOME`, else the nearest folder upwards that holds `dvc.yaml`, else the working directory."""
    if home := os.environ.get("CACO_HOME"):
        return Path(home).expanduser().resolve()
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), here)


def load_settings(profile: str | None = None, home: Path | None = None, **overrides: Any) -> Settings:
    """Read a profile by name (or a path to a YAML file) and check every value.

    Args:
        profile: name in `profiles/` or path to a `.yaml`; default `CACO_PROFILE`, else `embedded`.
        home: default `find_home()`.
        overrides: nested values that win over the profile (not over the environment).

    Raises:
        UserError: no such profile, an unknown key, or a value that is not allowed; names the field, the value and what is allowed.
    """
    name = profile or os.environ.get("CACO_PROFILE") or "embedded"
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.exists():
        choices = ", ".join(profile_names())
        raise UserError(f"profile={name}: there is no such profile; choose one of {choices}, or give a path to a .yaml file")
    home = (home or find_home()).resolve()
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a profile is a mapping of section names, got {type(values).__name__}")
    _check_environment()
    try:
        return Settings(**{**_expand(_merge(values, overrides), home), "profile": path.stem, "home": home})
    except ValidationError as error:
        raise UserError(_explain(path.stem, error)) from error
    except SettingsError as error:
        raise UserError(_not_json(str(error))) from error


def _check_environment() -> None:
    """Stop at a `CACO_…` variable that was meant as a setting and names none: it would be ignored in silence."""
    for name in sorted(os.environ):
        if not name.upper().startswith("CACO_") or name.upper() in ("CACO_HOME", "CACO_PROFILE"):
            continue
        section, nested, _ = name.upper().removeprefix("CACO_").lower().partition("__")
        if section in Settings.model_fields:
            continue
        close = difflib.get_close_matches(section, Settings.model_fields, n=1, cutoff=0.8)
        if nested or close:
            hint = f"did you mean CACO_{close[0].upper()}? " if close else ""
            raise UserError(f"{name}={os.environ[name]}: no such setting; {hint}sections: {', '.join(Settings.model_fields)}")


def _not_json(message: str) -> str:
    """Which variable of the section that pydantic names holds a list or mapping that is not JSON."""
    wrong = []
    for name, value in sorted(os.environ.items()):
        section = name.upper().removeprefix("CACO_").lower().partition("__")[0]
        if name.upper().startswith("CACO_") and f'"{section}"' in message:
            try:
                json.loads(value)
            except json.JSONDecodeError:
                wrong.append(f"{name}={value}")
    return f'{"; ".join(wrong)}: a list or a section is written as JSON, such as [1, 2] or {{"places": 64}}'


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # another kind of source has other fields: nothing of the old one stays
        other = both and value.get("kind", merged[key].get("kind")) != merged[key].get("kind")
        merged[key] = _merge(merged[key], value) if both and not other else value
    return merged


def _expand(value: Any, home: Path) -> Any:
    """Replace `${NAME}` by the environment's value; `CACO_REAL` has a default beside the home folder."""
    defaults = {"CACO_REAL": str(home.parent / "shared" / "real")}
    if isinstance(value, dict):
        return {key: _expand(item, home) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, home) for item in value]
    if isinstance(value, str):
        known = defaults | dict(os.environ)
        for name in re.findall(r"\$\{(\w+)\}", value):
            if name not in known:
                raise UserError(f"{value}: {name} is not set in the environment; set it, or write the path out")
        return re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], value)
    return value


def _explain(profile: str, error: ValidationError) -> str:
    """The first problem in one line: field, value, what is allowed."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    value = problem["input"]
    variable = "CACO_" + "__".join(str(part) for part in problem["loc"]).upper()
    if variable in os.environ:
        profile = f"{profile} with {variable}"
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"profile {profile}: {field}={value!r}: unknown key; {hint}allowed: {', '.join(allowed)}"
    shown = f"{field}={value!r}: " if not isinstance(value, (dict, BaseModel)) else (f"{field}: " if field else "")
    message = problem["msg"].removeprefix("Value error, ")
    return f"profile {profile}: {shown}{message}"


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model at a location of the settings tree."""
    model: Any = Settings
    for part in loc:
        sources = {"synthetic": SyntheticSource, "folder": FolderSource, "catalog": CatalogSource, "stac_api": StacApiSource}
        if part in sources and model is Imagery:
            model = sources[str(part)]
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else model
            model = TaskData if part == "tasks" else model
    return list(model.model_fields)
