"""The learning rate of each step."""

from __future__ import annotations

import math

from caco_assets.settings import Pretraining


def learning_rate(step: int, steps_per_epoch: int, options: Pretraining) -> float:
    """Rate of optimizer step `step` (from 0): linear warm-up, then ×0.1 at epoch milestones, or half a cosine."""
    warmup, total = options.warmup_epochs * steps_per_epoch, options.epochs * steps_per_epoch
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    if options.schedule == "cosine":
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
    epoch = step // steps_per_epoch
    return options.learning_rate * 0.1 ** sum(epoch >= int(fraction * options.epochs) for fraction in options.milestones)
