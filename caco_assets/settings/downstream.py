"""Settings of the room `downstream`: the tasks, protocols and budgets of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

if TYPE_CHECKING:
    from pydantic._internal._repr import ReprArgs

from caco_assets.settings.frozen import Frozen
from caco_assets.settings.names import Name


class TaskData(Frozen):
    """Data and evaluation settings of one task."""

    task: str
    """A name in the table of `downstream/tasks.py`."""
    data: Path | None = None
    """The archive or folder as published; none: the embedded twin."""
    optional: bool = False
    """An optional task whose data is absent is reported as not measured, with the reason; otherwise absence is an error."""
    protocols: tuple[Literal["paper", "clean"], ...] = ("paper", "clean")
    sizes: tuple[int, ...] = (64,)
    """Input sides in pixels of the `clean` protocol; `paper` is always 64."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many images per split (a seeded choice, recorded in every row); none: all."""
    tile: int | None = Field(default=None, ge=32, multiple_of=32)
    """Side in pixels of the tiles of a task with a class for each pixel; none: the task's own."""
    fine_tune: bool = False
    """Train the whole network on the task too, not only a layer on frozen features: minutes on a GPU, hours without one."""


class FineTune(Frozen):
    """How a whole network is trained on a task of image labels."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=2)
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", serialization_alias="optimiser")
    """`sgd`: with momentum 0.9."""
    learning_rates: tuple[float, ...] = Field(default=(1e-4, 1e-3), min_length=1)
    """The validation split selects one; the `paper` protocol uses the first."""
    weight_decay: float = Field(default=0.05, ge=0)
    paper_size: int = Field(default=224, ge=32)
    """Input side in pixels if `paper` fine-tunes; otherwise `sizes` of the row applies."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Fraction of training in which the rate rises to its maximum; a cosine then lowers it to zero."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bfloat16 on a GPU that supports it, else float32."""

    def __repr_args__(self) -> ReprArgs:
        """Keep the original name of `optimizer`, because the keys of measured scores are made from this text."""
        return [("optimiser" if name == "optimizer" else name, value) for name, value in super().__repr_args__()]


class Dense(Frozen):
    """How a decoder is trained on a task with a class for each pixel, by Adam."""

    epochs: int = Field(default=100, ge=1)
    """Epochs of a decoder on a frozen encoder."""
    fine_tune_epochs: int = Field(default=100, ge=1)
    """Epochs of a decoder trained together with its encoder."""
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of the decoder."""
    encoder_rate: float = Field(default=1e-4, gt=0)
    """Learning rate of an encoder that is trained too."""
    weight_decay: float = Field(default=1e-4, ge=0)
    decay: float = Field(default=0.95, gt=0, le=1)
    """Factor applied to the rates after each epoch."""
    cache_gb: float = Field(default=8.0, ge=0)
    """Largest size in GB of the cached features of one split; above it, tiles are encoded at every step."""
    paper_seeds: int | None = Field(default=None, ge=1)
    """Number of `seeds` used by the `paper` protocol; none: all."""


class Downstream(Frozen):
    """Tasks, protocols and budgets of an evaluation."""

    tasks: dict[Name, TaskData] = Field(default_factory=dict)
    """Name of the score row → the task to run."""
    baselines: tuple[Literal["random", "imagenet", "raw_statistics"], ...] = ("random", "imagenet", "raw_statistics")
    encoders: tuple[Name, ...] = ()
    """Names of imported encoders (`caco encoder import`) that scores and report compare with the profile's own."""
    allow_overlap: bool = False
    """Test images that lie on pretraining places are a warning instead of an error: for published sets, whose places are fixed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    paper_epochs: int = Field(default=100, ge=1)
    bootstrap: int = Field(default=1000, ge=100)
    dense: Dense = Dense()
    """Decoder training on archives, as published."""
    dense_twin: Dense = Dense(epochs=5, fine_tune_epochs=4, batch_size=4, paper_seeds=1)
    """On embedded twins: what two cores do in a minute or two."""
    fine_tune: FineTune = FineTune()
    """Fine-tuning on archives, similar to published fine-tuning."""
    fine_tune_twin: FineTune = FineTune(epochs=6, batch_size=16, learning_rates=(1e-3,), paper_size=64)
    """On embedded twins: what two cores do in a minute or two."""
