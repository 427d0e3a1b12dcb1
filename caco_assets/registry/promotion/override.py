"""Manual override of promotion rules: who may, which rules, and how it is recorded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from caco_assets.core.errors import UserError
from caco_assets.registry.aliases.champion import checked_reason
from caco_assets.registry.aliases.user import current_user
from caco_assets.registry.promotion.decision import Decision
from caco_assets.registry.promotion.policy import Policy

TAG = "override"
"""Tag of a version: JSON with `by`, `reason` and the `rules` that were overridden."""


@dataclass(frozen=True)
class Override:
    """An allowed user, and the reason."""

    by: str
    reason: str

    def tag(self, decision: Decision) -> str:
        """The value of the tag."""
        return json.dumps({**asdict(self), "rules": [finding.rule for finding in decision.failed]}, ensure_ascii=False)


def request_override(policy: Policy, reason: str) -> Override:
    """Check the right to override before anything is computed.

    Raises:
        UserError: the user is not allowed, or gives no reason.
    """
    name, allowed = current_user(), policy.override.allowed
    if name not in allowed:
        raise UserError(
            f"--override: {name} is not in override.allowed of the promotion policy ({', '.join(allowed) or 'empty'}); the "
            "champion stays"
        )
    return Override(name, checked_reason(reason))


def check_override(policy: Policy, decision: Decision) -> None:
    """Check that every failed rule may be overridden.

    Raises:
        UserError: one may not; the message holds its finding.
    """
    for finding in decision.failed:
        if finding.key not in policy.override.rules:
            raise UserError(
                f"--override: the rule '{finding.rule}' cannot be overridden ({finding.sentence}); override.rules allows "
                f"{', '.join(policy.override.rules)}"
            )
