"""A process that takes decisions as it is told on its standard input, and may be killed at any write: a helper of the tests.

Each line is a JSON object: `home`, `tracking_uri`, `right` (identity → images the encoder gets right), and `version` to decide on
or `rollback` with a reason. With `die_at` a child of this process does it and is killed before that write to MLflow. The answer is
a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from conftest import scored

from caco_assets.core.errors import UserError
from caco_assets.observability.logs import log_to
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.aliases import champion
from caco_assets.registry.promotion import evidence
from caco_assets.registry.promotion.decide import decide_promotion
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.settings import load_settings
from mlflow import MlflowClient

# what a decision would import: a child that is killed shall not pay for it each time
for _name in (
    "mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store", "mlflow.artifacts", "pandas",
    "pyarrow.parquet", "scipy.stats", "caco_assets.registry.package.mlflow_model",
    "caco_assets.downstream.metrics.paired", "requests",
):  # fmt: skip
    importlib.import_module(_name)

WRITES = [name for name in dir(MlflowClient) if name.startswith(("set_", "delete_", "create_", "log_", "update_"))]


def act(order: dict[str, Any]) -> dict[str, Any]:
    settings = load_settings("tiny", home=Path(order["home"]))
    settings = settings.model_copy(
        update={"registry": settings.registry.model_copy(update={"tracking_uri": order["tracking_uri"]})}
    )
    right = order["right"]

    def score_encoder(_: Any, encoder: Encoder, role: str = "candidate", **__: object) -> list:
        count = 100 if role == "baseline" else right[encoder.identity]
        return scored(settings.paths.root, f"{encoder.identity[:16]}-{role}", count, role=role)

    evidence.score_encoder = score_encoder
    evidence._features = lambda *_: np.random.default_rng(0).normal(1, 1, (64, 32))
    said: list[str] = []
    try:
        with log_to(lambda _level, line: said.append(line)):
            tracking = open_tracking(settings)
            if "rollback" in order:
                move = champion.rollback(settings, tracking, reason=order["rollback"])
                return {"champion": move.after.champion, "said": said}
            decision = decide_promotion(settings, tracking, order["version"])
    except UserError as error:
        return {"error": str(error), "said": said}
    return {"passed": decision.passed, "compared_with": decision.champion, "said": said}


def killed_at(step: int) -> None:
    """This process ends, as by kill -9, before write number `step` to MLflow."""
    done = 0

    def counted(name: str):
        real = getattr(MlflowClient, name)

        def write(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                answer({"killed_before": name})
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *args, **kwargs)

        return write

    for name in WRITES:
        setattr(MlflowClient, name, counted(name))


def answer(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "die_at" not in order:
            answer(act(order))
        elif (child := os.fork()) == 0:
            # nothing of MLflow or torch has been used in the parent: the child begins with clean connections and threads
            killed_at(order["die_at"])
            answer(act(order))
            os._exit(0)
        else:
            os.waitpid(child, 0)


if __name__ == "__main__":
    answer({"ready": True})
    main()
