"""Early checks for problems that would fail a long run later."""

from __future__ import annotations

from caco_assets.core.errors import UserError
from caco_assets.settings import FolderSource, Settings


def preflight(settings: Settings) -> None:
    """Check names, folders and the policy that later stages will need.

    Raises:
        UserError: the first problem found; nothing has been done yet.
    """
    from caco_assets.downstream.tasks import find_task
    from caco_assets.pretraining.objectives import objective_class
    from caco_assets.registry.promotion.policy import read_policy

    source = settings.imagery.source
    if isinstance(source, FolderSource) and not source.path.is_dir():
        raise UserError(f"imagery.source.path={source.path}: no such folder")
    objective_class(settings.pretraining.objective)
    for name, task in settings.downstream.tasks.items():
        find_task(task.task)
        if task.data is not None and not task.optional and not task.data.exists():
            raise UserError(f"downstream.tasks.{name}.data={task.data}: no such file or folder; correct it, or set optional: true")
    read_policy(settings)
