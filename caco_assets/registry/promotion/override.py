"""A person sets rules of the policy aside: who may, which rules, and how it is remembered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from caco_assets.core.errors import UserError
from caco_assets.registry.aliases.champion import checked_reason
from caco_assets.registry.aliases.user import who
from caco_assets.registry.promotion.decision import Decision
from caco_assets.registry.promotion.policy import Policy

TAG = "override"
"""Tag of a version: JSON with `by`, `reason` and the `rules` that were set aside."""


@dataclass(frozen=True)
class Override:
    """Somebody who may, and why."""

    by: str
    reason: str

    def tag(self, decision: Decision) -> str:
        """What the version remembers of it."""
        return json.dumps({**asdict(self), "rules": [finding.rule for finding in decision.failed]}, ensure_ascii=False)


def ask(policy: Policy, reason: str) -> Override:
    """The right to set rules aside, before anything is computed.

    Raises:
        UserError: the user may not, or gives no reason.
    """
    name, allowed = who(), policy.override.allowed
    if name not in allowed:
        raise UserError(
            f"--override: {name} is not among override.allowed of the promotion policy ({', '.join(allowed) or 'nobody is'}); the "
            "champion stays"
        )
    return Override(name, checked_reason(reason))


def check(policy: Policy, decision: Decision) -> None:
    """Every rule that failed may be set aside.

    Raises:
        UserError: one may not; its finding is in the message.
    """
    for finding in decision.failed:
        if finding.key not in policy.override.rules:
            raise UserError(
                f"--override: the rule '{finding.rule}' cannot be set aside ({finding.sentence}); override.rules allows "
                f"{', '.join(policy.override.rules)}"
            )
