"""Settings of the room `pretraining`: the objective, the encoder and its training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from caco_assets.settings.frozen import Frozen


class Pretraining(Frozen):
    """The objective, the encoder and its training."""

    objective: str = "caco"
    """A registered name of `pretraining/objectives/`."""
    fidelity: Literal["improved", "reference"] = "improved"
    change_estimate: Literal["distance", "ratio", "ema_ratio"] = "ema_ratio"
    backbone: str = "resnet18"
    """A timm name."""
    bands: tuple[str, ...] = Field(default=("B04", "B03", "B02"), min_length=1)
    """Bands of the encoder's input images, in this order."""
    pack_bands: tuple[str, ...] | None = None
    """Bands of the pack, which may be more than `bands`, so that one pack serves several band sets; none: `bands`."""
    stretch: Literal["seco", "seco_fine", "eurosat", "reflectance"] = "seco"
    """How reflectance becomes uint8 in the pack (see `pretraining/stretch.py`)."""
    image_size: int = Field(default=224, ge=32)
    crop_scale: tuple[float, float] = (0.2, 1.0)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in pixels; the published range is for 264-pixel images and erases texture in smaller ones."""
    embedding_dim: int = Field(default=128, ge=2)
    batch_size: int = Field(default=256, ge=2)
    """Images per step over all processes; even for objectives that need both periods of a place."""
    epochs: int = Field(default=200, ge=1)
    queue_size: int = Field(default=16_384, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    momentum: float = Field(default=0.999, ge=0, le=1)
    """Momentum of the key encoder's moving average."""
    geo_clusters: int = Field(default=100, ge=2)
    """Number of regions of the Earth that `gssl` distinguishes."""
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
    """`torch.compile` for the encoders and, on a GPU, for the colours of the views; worth its compile time only on a GPU."""
    pack_on_gpu: float = Field(default=0.5, ge=0, le=1)
    """Largest fraction of a GPU's free memory that the pack may take; a larger pack is streamed from host memory."""
    threads: int = Field(default=0, ge=0)
    """CPU threads for the views; 0: all cores."""
    warm_start: Literal["none", "champion"] = "none"
    """`champion`: training starts from the weights of the serving version, if any; `none`: from scratch."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints within an epoch: the most training time that a kill can lose."""
    launcher: Literal["inline", "process", "torchrun", "ray"] = "inline"
    """`inline`: in the command's process (Dagster always uses a separate one); else a name of `pretraining/launch.py`."""
    processes: int = Field(default=1, ge=1)
    """Processes per machine that share each batch, one per GPU; for `torchrun` and `ray`."""
    nodes: int = Field(default=1, ge=1)
    """Machines with `processes` processes each; for `ray`."""
    restarts: int = Field(default=8, ge=0)
    """Times that training resumes from its last checkpoint when a machine or a process is lost; for `ray`."""
    squared_distances: bool = False
    """Square the distances in the change ratio, as in the published formula but not the published code."""
    aligned_seasons: bool = False
    """The long-term distance compares the same season of both periods, as in the published formula but not the published code."""
    probe_every: int = Field(default=0, ge=0)
    """Epochs between probes during training; 0: none."""
    probe_task: str | None = None
    """The row of `downstream.tasks` whose training and validation splits supply the images of the probe during training."""

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
