"""Fine-tuning for image labels: the whole network and a linear layer on it, trained together.

Seeded: the layer's initial weights, the order of images, the flips, and any randomness in the backbone. `fine_tune` keeps the rules
of `clean`: the validation part chooses the rate and the epoch, the test part is read once. `fine_tune_paper` trains a fixed number
of epochs at a fixed rate on all training images and takes the last epoch, as published fine-tuning on AID does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import numpy as np

from caco_assets.downstream.features.device import default_device
from caco_assets.downstream.features.preprocessed_images import Inputs, joined, preprocessed
from caco_assets.downstream.finetuning.network_loop import Best, Course, Labels, Network, predict, train_network
from caco_assets.downstream.protocols.evaluation import Evaluation, Measurement
from caco_assets.downstream.protocols.validation_split import INNER_SEED, INNER_SHARE, split_for_validation
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.settings import FineTune


def fine_tune(evaluation: Evaluation) -> Iterator[Measurement]:
    """Validation chooses among the configured rates and the epochs; the test part is read once."""
    encoder, parts, options = _encoder(evaluation), evaluation.data.parts, evaluation.fine_tune
    split = split_for_validation(parts, partial(_inputs, evaluation, encoder), Inputs.take, _share)
    how = "tested on test"
    if not split.has_test_list:
        how = f"no test list: a seeded {INNER_SHARE:.0%} of train validates, tested on val"
    labels = Labels.of(parts["train"], evaluation.data.classes)

    def validate(network: Network) -> float:
        return labels.figure(split.validation_labels, predict(network, split.validation, options))

    course = Course(evaluation.checkpoint)
    for rate in options.learning_rates:
        if course.over(rate, options.learning_rates):
            continue
        for epoch, figure, network in train_network(
            encoder, split.train, split.labels, labels, _at(options, rate), evaluation.seed, validate, course
        ):
            if course.best is None or figure > course.best.figure:
                course.best = Best(figure, rate, epoch, copy.deepcopy(network.state_dict()))
    if course.best is None:
        raise ValueError("no epoch was trained")
    best = course.best
    network = Network.of(encoder, len(labels.classes), best.weights).to(default_device())
    chosen = f"rate {best.rate:g} and epoch {best.epoch} of {options.epochs} chosen on validation ({best.figure:.1%})"
    note = f"{_said(options)}, {chosen}; {how}"
    logits = predict(network, _inputs(evaluation, encoder, split.test), options)
    yield Measurement("fine_tune", labels.outcome(parts[split.test], logits), note)


def fine_tune_paper(evaluation: Evaluation) -> Iterator[Measurement]:
    """A fixed rate and number of epochs on training and validation images together; the last epoch is tested."""
    encoder, parts, options = _encoder(evaluation), evaluation.data.parts, evaluation.fine_tune
    train = joined(_inputs(evaluation, encoder, "train"), _inputs(evaluation, encoder, "val"))
    truth = np.concatenate([parts["train"].labels, parts["val"].labels])
    labels = Labels.of(parts["train"], evaluation.data.classes)
    rate = options.learning_rates[0]
    *_, last = train_network(
        encoder, train, truth, labels, _at(options, rate), evaluation.seed, course=Course(evaluation.checkpoint)
    )
    logits = predict(last[2], _inputs(evaluation, encoder, "test"), options)
    note = f"{_said(options)}, rate {rate:g}, last of {options.epochs} epochs; tested on test"
    yield Measurement("fine_tune", labels.outcome(parts["test"], logits), note)


def _encoder(evaluation: Evaluation) -> Encoder:
    if not isinstance(evaluation.source, Encoder):
        raise ValueError(f"{evaluation.candidate.name}: has no weights to train")  # `score_task` skips such candidates
    return evaluation.source


def _inputs(evaluation: Evaluation, encoder: Encoder, part: str) -> Inputs:
    return preprocessed(encoder, evaluation.data, part, evaluation.size, evaluation.cache)


def _share(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a seeded share of the images, and of the rest, in the order drawn."""
    order = np.random.default_rng(INNER_SEED).permutation(len(labels))
    inner, rest = np.split(order, [max(1, round(INNER_SHARE * len(order)))])
    return inner, rest


def _at(options: FineTune, rate: float) -> FineTune:
    return options.model_copy(update={"learning_rates": (rate,)})


def _said(options: FineTune) -> str:
    return (
        f"whole network and a linear layer, {options.optimizer}, batch {options.batch_size}, weight decay "
        f"{options.weight_decay:g}, warm-up {options.warmup:.0%} and cosine, flips"
    )
