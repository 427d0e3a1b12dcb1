"""The ladder of objectives on the embedded Earth alone: how well each encoder sees real land, and how well it knows change.

Every objective is pretrained on the same pack (`synthetic.chips`: places of invented towns, two periods, cloudless dates) with
the same number of steps and images per step, for several seeds. Each encoder is scored by the `clean` protocol (frozen encoder at
64 px, validated linear probe, kNN) on the EuroSAT twin, whose towns are in no pack, and on the real EuroSAT of `CACO_REAL`, of
which pretraining saw no pixel and no label. Objectives that estimate change are held against the true change of the places by the
area under the ROC curve.

The marks are published rows for ResNet-18 under another protocol: ImageNet 86.2, CACo with 100 000 real places 93.1. What is not
reached is reported as such. Finished runs in `--folder` are not repeated, so a ladder can be made in pieces (a folder belongs to
one set of options); `--at-once` trains and judges several rungs side by side, which fills a GPU; `--quick` is one short rung.

The last line is one JSON object; `ratio` is the best objective's accuracy on the real EuroSAT over the mark of ImageNet: mean,
lowest and highest seed. It is the best of all rows on the tested images; the table has the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from caco_assets.core.atomic import write_atomic
from caco_assets.observability.logs import log_to
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.pack.format import Pack
from caco_assets.pretraining.training.pretrain import make_encoder
from caco_assets.pretraining.training.run_config import RunConfig
from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic.chips import DrawnPlace, Wanted, draw_places

MARK, GOAL = 0.862, 0.931
LADDER = ("moco_v2", "moco_v2_tp", "gssl", "seco", "teco", "caco", "simclr", "simclr_seco", "simclr_caco")
ESTIMATES = ("ratio", "distance")
"""Further rows of `caco`; its default is `ema_ratio`."""
PROFILE = """
vintage: 2023-12
imagery: {source: {kind: synthetic, benchmark_images_per_class: 100}, chip_size: %(side)d, seasons: %(seasons)d, min_seasons: 3}
downstream:
  tasks:
    eurosat_twin: {task: eurosat, protocols: [clean]}
    eurosat_real: {task: eurosat, data: "${CACO_REAL}/eurosat_rgb/EuroSAT.zip", optional: true, protocols: [clean]}
  seeds: [0]
  bootstrap: 1000
"""
MOMENTUM_CONTRAST = {"temperature": 0.1, "momentum": 0.99}
IN_BATCH = {"temperature": 0.2}
BLUR = (0.1 / 264, 2 / 264)
"""The published range as a share of the image's side."""


def settings_in(folder: Path, options: argparse.Namespace) -> Settings:
    """The profile of the ladder, its state below `folder`."""
    os.environ.setdefault("CACO_REAL", str(Path(__file__).resolve().parents[2] / "shared" / "real"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ladder.yaml"
    path.write_text(PROFILE % {"side": options.side, "seasons": options.seasons})
    return load_settings(str(path), home=folder)


def wanted(options: argparse.Namespace) -> Wanted:
    """Europe, where EuroSAT lies."""
    return Wanted(options.side, options.seasons, box=(-9.0, 36.0, 29.0, 62.0), pure=options.pure, level=options.level)


def make_pack(folder: Path, options: argparse.Namespace) -> Path:
    """The pack of all rungs and the truth beside it; drawn once."""
    target, truth = folder / "pack", folder / "truth.parquet"
    if truth.exists():
        return target
    step = 64
    jobs = [(0, start, min(start + step, options.places), wanted(options)) for start in range(0, options.places, step)]
    rows: list[dict[str, Any]] = []

    def chips(places: Iterable[DrawnPlace]) -> Iterator[Any]:
        for place in places:
            rows.append({"location_id": place.chips[0].location_id, "changed": place.changed, "fraction": place.fraction})
            yield from place.chips

    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        build(
            chips(chain.from_iterable(pool.map(_draw, jobs))),
            target,
            bands=("B04", "B03", "B02"),
            archive_bands=("B04", "B03", "B02"),
            stretch=options.stretch,
            chip_size=options.side,
            seasons=options.seasons,
            min_seasons=3,
            total=2 * options.seasons * options.places,
        )
    pq.write_table(pa.Table.from_pylist(rows), truth)
    return target


def same_options(folder: Path, options: argparse.Namespace) -> None:
    """Refuse a folder whose pack or results are those of other options."""
    elsewhere = {"quick", "folder", "device", "workers", "at_once", "draw_only", "seeds", "objectives"}
    own = {name: value for name, value in vars(options).items() if name not in elsewhere}
    file = folder / "options.json"
    if not file.exists():
        write_atomic(file, json.dumps(own, indent=1))
    before = json.loads(file.read_text())
    if changed := [f"--{name} {before.get(name)}" for name in sorted(own | before) if own.get(name) != before.get(name)]:
        sys.exit(f"{folder} holds a ladder of {', '.join(changed)}; give another folder, or these options")


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """What `--recipe` says."""
    return yaml.safe_load("{" + ", ".join(options.recipe).replace("=", ": ") + "}")


def _draw(job: tuple[int, int, int, Wanted]) -> list[DrawnPlace]:
    return list(draw_places(*job))


def rung(settings: Settings, folder: Path, pack: Path, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Pretrain and score one encoder, or read what was found before."""
    result = folder / "results" / f"{name}-{seed}.json"
    if result.exists():
        return json.loads(result.read_text())
    objective, _, estimate = name.partition(":")
    paired = objective in ("teco", "caco", "simclr_caco")
    per_epoch = Pack.open(pack).count * (2 if paired else 1) // options.batch
    # an epoch of pairs has twice the steps: the number of steps is what all rungs share, also of the warm-up
    epochs = max(1 if paired else 2, round(options.steps / per_epoch))
    recipe = {
        "objective": objective,
        "change_estimate": estimate or "ema_ratio",
        "backbone": options.backbone,
        "stretch": options.stretch,
        "image_size": 64,
        "batch_size": options.batch,
        "queue_size": 16 * options.batch,
        "epochs": epochs,
        "warmup_epochs": 1 if paired else 2,
        "schedule": "cosine",
        "optimizer": "adamw",
        "learning_rate": 0.001,
        "blur_sigma": tuple(options.side * share for share in BLUR),
        "device": options.device,
        "precision": options.precision,
        **(IN_BATCH if objective.startswith("simclr") else MOMENTUM_CONTRAST),
        **{name: tuple(value) if isinstance(value, list) else value for name, value in changes(options).items()},
    }
    trained = folder / "encoders" / f"{name.replace(':', '-')}-{seed}"
    start = time.monotonic()
    if not (trained / "encoder.safetensors").exists():
        options_of = settings.pretraining.model_copy(update=recipe)
        data = {"ladder": options.places}
        facts = make_encoder(RunConfig(pack=pack, target=trained, pretraining=options_of, seed=seed, data=data))
        write_atomic(trained / "facts.json", json.dumps({**facts, "minutes": (time.monotonic() - start) / 60}))
    facts = json.loads((trained / "facts.json").read_text())
    found: dict[str, Any] = {"name": name, "seed": seed, "steps": facts["steps"], "minutes": facts["minutes"]}
    found |= {"images_per_s": facts["images_per_s"], "embedding_std": facts["embedding_std"]}
    found |= scored(settings, trained, name) | change(trained, folder / "truth.parquet")
    found["minutes_with_judging"] = (time.monotonic() - start) / 60
    write_atomic(result, json.dumps(found, indent=1))
    return found


def scored(settings: Settings, trained: Any, name: str) -> dict[str, Any]:
    """`<row>.<method>` → accuracy and its interval."""
    from caco_assets.downstream.stage import score_encoder

    rows = score_encoder(settings, trained, name=name)
    return _figures(rows)


def _figures(rows: list[Any]) -> dict[str, Any]:
    return {f"{row.row}.{row.method}": [row.value, row.ci_low, row.ci_high] for row in rows if row.status == "measured"}


def change(trained: Path, truth: Path) -> dict[str, float]:
    """Area under the ROC curve of the estimates against true change."""
    from sklearn.metrics import roc_auc_score

    if not (file := trained / "change_estimates.parquet").exists():
        return {}
    found = pq.read_table(file).to_pandas().groupby("location_id")[["last_long", "last_ratio", "ratio"]].mean()
    known = pq.read_table(truth).to_pandas().set_index("location_id").loc[found.index, "changed"]
    return {f"auroc.{column}": float(roc_auc_score(known, found[column])) for column in found.columns}


def baselines(settings: Settings, folder: Path, pack: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A random encoder of each seed, with the pack's preprocessing; first, plain statistics of the bands."""
    from caco_assets.downstream.features.baselines import baselines
    from caco_assets.downstream.scoring.score_task import resolve_tasks, score_task
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.encoder.preprocessing import Preprocessing

    opened, found = Pack.open(pack), []
    result = folder / "results" / "raw_statistics.json"
    if not result.exists():
        like = Encoder.random(options.backbone, Preprocessing.of_pack(opened.bands, opened.stretch, 64), 0)
        who = baselines(("raw_statistics",), like, (0,))
        rows = [row for work in resolve_tasks(settings) for row in score_task(settings, work, who, settings.paths.cache)]
        write_atomic(result, json.dumps({"name": "raw statistics", "seed": 0, **_figures(rows)}))
    found.append(json.loads(result.read_text()))
    for seed in options.seeds:
        result = folder / "results" / f"random-{seed}.json"
        if not result.exists():
            encoder = Encoder.random(options.backbone, Preprocessing.of_pack(opened.bands, opened.stretch, 64), seed).eval()
            write_atomic(result, json.dumps({"name": "random", "seed": seed, **scored(settings, encoder, "random")}))
        found.append(json.loads(result.read_text()))
    return found


def table(results: list[dict[str, Any]]) -> None:
    """Means over seeds with the smallest and the largest."""
    columns = {
        "twin, probe": "eurosat_twin.linear_probe",
        "twin, kNN-5": "eurosat_twin.knn5",
        "real, probe": "eurosat_real.linear_probe",
        "real, kNN-5": "eurosat_real.knn5",
        "AUROC ema_ratio": "auroc.ratio",
        "AUROC ratio": "auroc.last_ratio",
        "AUROC distance": "auroc.last_long",
    }
    print("| objective | seeds | steps | " + " | ".join(columns) + " | minutes |\n|---|---|---|" + "---|" * (len(columns) + 1))
    for name in dict.fromkeys(result["name"] for result in results):
        own = [result for result in results if result["name"] == name]
        cells = []
        for key in columns.values():
            values = [value[0] if isinstance(value, list) else value for result in own if (value := result.get(key)) is not None]
            scale = 1 if key.startswith("auroc") else 100
            cells.append(_spread([scale * value for value in values], 2 if scale == 1 else 1))
        minutes = [result["minutes"] for result in own if "minutes" in result]
        steps = ", ".join(str(count) for count in sorted({result["steps"] for result in own if "steps" in result}))
        print(f"| `{name}` | {len(own)} | {steps} | " + " | ".join(cells) + f" | {_spread(minutes, 1)} |")


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _log(line: str) -> None:
    if "WARNING" in line or "%" not in line:
        print(f"  {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Run with the package's log lines on standard error."""
    with log_to(lambda _level, line: _log(line)):
        return _main()


def _main() -> int:
    """Draw, pretrain, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one objective, one seed, a few minutes")
    parser.add_argument("--folder", type=Path, help="keeps pack, encoders and results; default a temporary one")
    parser.add_argument("--places", type=int, default=6000)
    parser.add_argument("--side", type=int, default=96, help="pixels of a chip, a multiple of 6")
    parser.add_argument("--seasons", type=int, default=3, help="dates in each period")
    parser.add_argument("--pure", type=float, default=0.8, help="share of places with much of one class (see synthetic.chips)")
    parser.add_argument("--level", default="1C", choices=("2A", "1C"), help="EuroSAT's pictures are level 1C")
    parser.add_argument("--stretch", default="eurosat")
    parser.add_argument("--steps", type=int, default=600, help="of each rung, to the nearest whole epoch of its own")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="bf16 is faster on CPUs that have it (precision.py)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that draw")
    parser.add_argument("--draw-only", action="store_true", help="twin and pack alone")
    parser.add_argument("--at-once", type=int, default=1, help="rungs that are trained side by side")
    parser.add_argument("--recipe", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of `pretraining`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objectives", nargs="+", default=[*LADDER, *(f"caco:{name}" for name in ESTIMATES)])
    options = parser.parse_args()
    if options.quick:
        options.places, options.steps, options.batch, options.seeds, options.objectives = 192, 12, 32, [0], ["caco"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        same_options(folder, options)
        settings = settings_in(folder, options)
        from caco_assets.synthetic.stage import build_benchmarks

        # a machine without rasterio, which writes them, is given a twin that another has made of the same options
        if not (settings.paths.benchmarks / "eurosat").exists():
            build_benchmarks(settings)
        pack = make_pack(folder, options)
        if options.draw_only:
            return 0
        results = baselines(settings, folder, pack, options)
        rungs = [(settings, folder, pack, name, seed, options) for seed in options.seeds for name in options.objectives]
        for found in in_turn(rungs, options.at_once):
            results.append(found)
            print(f"{found['name']} seed {found['seed']}: {found}", file=sys.stderr, flush=True)
        dates = 2 * options.seasons
        shape = f"{options.places} places of {options.side} px, {dates} dates, about {options.steps} steps of {options.batch}"
        print(f"{shape}, {options.backbone}; mean (lowest–highest seed)")
        table(results)
    return report(results, quick=options.quick)


def in_turn(rungs: list[tuple[Any, ...]], at_once: int) -> Iterator[dict[str, Any]]:
    """The results of rungs, in their order; several processes work on them where asked."""
    if at_once == 1:
        yield from (rung(*each) for each in rungs)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // at_once)
    with ProcessPoolExecutor(at_once, get_context("spawn"), initializer=_few_threads, initargs=(threads,)) as pool:
        yield from (future.result() for future in [pool.submit(rung, *each) for each in rungs])


def _few_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def report(results: list[dict[str, Any]], *, quick: bool) -> int:
    """The last line, and the exit status."""
    found: dict[str, list[float]] = {}
    for result in results:
        if "steps" in result and "eurosat_real.linear_probe" in result:
            found.setdefault(result["name"], []).append(result["eurosat_real.linear_probe"][0] / MARK)
    line: dict[str, Any] = {"benchmark": "ladder", "best": None, "ratio": None, "low": None, "high": None}
    if found:
        best = max(found, key=lambda name: statistics.mean(found[name]))
        own = found[best]
        line |= {"best": best, "accuracy": round(MARK * statistics.mean(own), 4), "ratio": round(statistics.mean(own), 3)}
        line |= {"low": round(min(own), 3), "high": round(max(own), 3)}
    reached = bool(found) and line["ratio"] >= 1
    print(json.dumps({**line, "bar": 1.0, "goal": GOAL, "pass": reached}))
    # a short rung shows that everything runs; it cannot reach the mark
    return 0 if quick or reached else 1


if __name__ == "__main__":
    sys.exit(main())
