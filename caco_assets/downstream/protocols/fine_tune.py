"""Fine-tuning for image labels: the whole network and a linear layer on it, trained together.

Seeded: the layer's start, the order of images, the flips, and whatever chance the backbone itself uses. `fine_tune` keeps the rules
of `clean`: the validation part chooses the rate and the epoch, the test part is read once. `fine_tune_paper` trains for a fixed
time at a fixed rate on all training images and takes the last epoch, as published fine-tuning on AID does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from caco_assets.downstream.features.device import default_device
from caco_assets.downstream.features.preprocessed_images import Inputs, joined, preprocessed
from caco_assets.downstream.finetuning.network_loop import Best, Course, Labels, Network, predict, train_network
from caco_assets.downstream.protocols.trial import Measurement, Trial
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.settings import FineTune

# Share of the training images that validate where the lists have no test part, and its seed. Fixed: part of the protocol.
_INNER_SHARE, _INNER_SEED = 0.1, 0


def fine_tune(trial: Trial) -> Iterator[Measurement]:
    """Validation chooses among the rates of the settings and among the epochs; tested once."""
    encoder, parts, options = _encoder(trial), trial.data.parts, trial.fine_tune
    train, part_of_training = preprocessed(encoder, trial.data, "train", trial.size, trial.cache), parts["train"]
    if "test" in parts:
        test_name, validation, part_of_validation = "test", _inputs(trial, encoder, "val"), parts["val"]
        split = "tested on test"
    else:
        test_name = "val"
        order = np.random.default_rng(_INNER_SEED).permutation(len(train))
        inner, rest = np.split(order, [max(1, round(_INNER_SHARE * len(order)))])
        validation, part_of_validation = train.take(inner), part_of_training.take(inner)
        train, part_of_training = train.take(rest), part_of_training.take(rest)
        split = f"no test list: a seeded {_INNER_SHARE:.0%} of train validates, tested on val"
    labels = Labels.of(part_of_training, trial.data.classes)

    def judged(network: Network) -> float:
        return labels.figure(part_of_validation.labels, predict(network, validation, options))

    course = Course(trial.kept)
    for rate in options.learning_rates:
        if course.over(rate, options.learning_rates):
            continue
        for epoch, figure, network in train_network(
            encoder, train, part_of_training.labels, labels, _at(options, rate), trial.seed, judged, course
        ):
            if course.best is None or figure > course.best.figure:
                course.best = Best(figure, rate, epoch, copy.deepcopy(network.state_dict()))
    if course.best is None:
        raise ValueError("no epoch was trained")
    best = course.best
    network = Network.of(encoder, len(labels.classes), best.weights).to(default_device())
    chosen = f"rate {best.rate:g} and epoch {best.epoch} of {options.epochs} chosen on validation ({best.figure:.1%})"
    note = f"{_said(options)}, {chosen}; {split}"
    logits = predict(network, _inputs(trial, encoder, test_name), options)
    yield Measurement("fine_tune", labels.outcome(parts[test_name], logits), note)


def fine_tune_paper(trial: Trial) -> Iterator[Measurement]:
    """A fixed rate and time on training and validation images together, the last epoch, tested on the test part."""
    encoder, parts, options = _encoder(trial), trial.data.parts, trial.fine_tune
    train = joined(_inputs(trial, encoder, "train"), _inputs(trial, encoder, "val"))
    truth = np.concatenate([parts["train"].labels, parts["val"].labels])
    labels = Labels.of(parts["train"], trial.data.classes)
    rate = options.learning_rates[0]
    *_, last = train_network(encoder, train, truth, labels, _at(options, rate), trial.seed, course=Course(trial.kept))
    logits = predict(last[2], _inputs(trial, encoder, "test"), options)
    note = f"{_said(options)}, rate {rate:g}, last of {options.epochs} epochs; tested on test"
    yield Measurement("fine_tune", labels.outcome(parts["test"], logits), note)


def _encoder(trial: Trial) -> Encoder:
    if not isinstance(trial.source, Encoder):
        raise ValueError(f"{trial.contestant.name}: has no weights to train")  # the judge sees to it
    return trial.source


def _inputs(trial: Trial, encoder: Encoder, part: str) -> Inputs:
    return preprocessed(encoder, trial.data, part, trial.size, trial.cache)


def _at(options: FineTune, rate: float) -> FineTune:
    return options.model_copy(update={"learning_rates": (rate,)})


def _said(options: FineTune) -> str:
    return (
        f"whole network and a linear layer, {options.optimizer}, batch {options.batch_size}, weight decay "
        f"{options.weight_decay:g}, warm-up {options.warmup:.0%} and cosine, flips"
    )
