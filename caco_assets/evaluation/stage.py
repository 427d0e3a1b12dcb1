"""The stage `report`: writes the report page, the model card and the scorecard."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from caco_assets.core import products
from caco_assets.core.stage_versions import stage_version
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)


def report(settings: Settings) -> products.Product:
    """Write `report.html` (one self-contained page), `model_card.md` and `scorecard.json`.

    Args:
        settings: the profile.

    Returns:
        The product `report`.

    Raises:
        UserError: nothing has been scored yet, or the scores are not what was recorded.
    """
    from caco_assets.evaluation.report.contents import made, validations
    from caco_assets.evaluation.report.render import render, twin_rows
    from caco_assets.evaluation.scorecard import scorecard, scorecard_text

    paths = settings.paths
    products.verify(paths.records, products.recorded(paths.records, "scores"))
    known = made(settings)

    def make(folder: Path) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        card = scorecard(paths.scores, twins=twin_rows(settings))
        page, model_card = render(settings, card, known)
        (folder / "report.html").write_text(page)
        (folder / "model_card.md").write_text(model_card)
        (folder / "scorecard.json").write_text(json.dumps(card.to_json(), indent=1) + "\n")
        for line in scorecard_text(card).splitlines():
            logger.info(line)
        return {"sections": len(card.sections), "bytes": len(page.encode())}

    checked = [{key: value for key, value in result.items() if key != "validated_at"} for result in validations(settings)]
    return products.produce(
        "report",
        paths.report,
        records=paths.records,
        recipe=stage_version("report"),
        inputs={
            "products": {name: product.content_hash for name, product in known.items()},
            "validations": hashlib.sha256(json.dumps(checked, sort_keys=True).encode()).hexdigest(),
            "settings": settings.model_dump(mode="json", exclude={"home": True, "downstream": {"tasks": {"__all__": {"data"}}}}),
        },
        make=make,
    )
