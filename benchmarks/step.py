"""How long a training step of CACo takes on a CPU: ours against a plain loop that follows the published step, in fp32.

The plain loop is what the published implementation does: contiguous images, the key encoder moved parameter by parameter, five key
passes (two of them for the change estimate alone), masks by large negative numbers, a copy of the queue, a plain optimizer, and the
change estimate written sample by sample, each with a value fetched. Both sides train a ResNet-18 with three heads from the same
weights on the same batches, by turns, on one thread; the figure is the ratio of CPU times, so that other load on the machine does
not enter. Their first losses must agree.

The floor is what the passes that cannot be left out (query forward and backward, four key passes) would take at the best rate this
machine reached in the same run, in a matrix product or in a convolution.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from caco_assets.pretraining.encoder.encoder import backbone
from caco_assets.pretraining.objectives import Objective, ObjectiveConfig, build

BARS = {64: 1.15, 224: 1.3}
TEMPERATURE, MOMENTUM, BETA, QUEUE, DIM, PLACES = 0.07, 0.999, 0.8, 4096, 128, 256
HIDE = -1e8
Step = Callable[[Tensor, Tensor], float]


def our_step(objective: Objective) -> Step:
    trained = [p for p in objective.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-4, fused=True)
    losses: list[Tensor] = []

    def step(views: Tensor, slots: Tensor) -> float:
        objective.before_step()
        output = objective(views, slots)
        sgd.zero_grad(set_to_none=True)
        output.loss.backward()
        sgd.step()
        objective.after_step(output)
        losses.append(output.loss.detach())
        return float(losses[-1])

    return step


class PublishedStep:
    """The published step, slow and obvious."""

    def __init__(self, objective: Objective) -> None:
        self.encoder_q = copy.deepcopy(objective.encoder_q).to(memory_format=torch.contiguous_format)
        self.encoder_k = copy.deepcopy(self.encoder_q)
        self.heads_q = copy.deepcopy(objective.heads_q)
        self.heads_k = copy.deepcopy(self.heads_q)
        self.queue = objective.get_buffer("queue.columns").clone()  # (E, C, K)
        self.position = 0
        self.ratio = torch.zeros(2 * PLACES)
        self.seen = torch.zeros(2 * PLACES)
        self.label = torch.zeros(2 * PLACES)
        trained = [*self.encoder_q.parameters(), *self.heads_q.parameters()]
        self.sgd = torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-4, foreach=False, fused=False)

    @torch.no_grad()
    def follow(self) -> None:
        """The key encoder, parameter by parameter."""
        for ours, theirs in ((self.encoder_q, self.encoder_k), (self.heads_q, self.heads_k)):
            for source, target in zip(ours.parameters(), theirs.parameters(), strict=True):
                target.data = target.data * MOMENTUM + source.data * (1 - MOMENTUM)

    def embed(self, encoder: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
        """Unit vectors of images."""
        return F.normalize(head(encoder(images)), dim=1)

    def __call__(self, views: Tensor, slots: Tensor) -> float:
        """One step; its loss."""
        images = [view.contiguous() for view in views]
        features = self.encoder_q(images[0])
        queries = [F.normalize(head(features), dim=1) for head in self.heads_q]
        with torch.no_grad():
            self.follow()
            seen = [self.encoder_k(image) for image in images[1:]]
            keys = [[F.normalize(head(key), dim=1) for key in seen] for head in self.heads_k]
        loss = torch.zeros(())
        for i, query in enumerate(queries):
            loss = loss + self.space(i, query, keys[i], slots)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        with torch.no_grad():
            self.watch(images, slots)
            for i in range(3):
                self.queue[i, :, self.position : self.position + len(slots)] = keys[i][i].T
            self.position = (self.position + len(slots)) % QUEUE
        return loss.item()

    def space(self, i: int, query: Tensor, keys: list[Tensor], slots: Tensor) -> Tensor:
        """InfoNCE of one embedding space, columns in the published order."""
        queue, key = self.queue[i].clone().detach(), keys[i]
        even, odd = query[0::2], query[1::2]
        positive = (query * key).sum(dim=1, keepdim=True)
        positive = torch.cat([positive[0::2], positive[1::2]])
        past = torch.cat([even @ queue[:, 0::2], odd @ queue[:, 1::2]])
        cross = torch.cat([even @ key[1::2].T, odd @ key[0::2].T])
        rows = torch.cat([slots[0::2], slots[1::2]])
        for row in range(len(rows)):
            if self.label[rows[row]].item() == 0:
                cross[row, row % len(even)] += HIDE
        others = [torch.cat([even, odd]) @ keys[j].T for j in range(3) if j != i] if i > 0 else []
        logits = torch.cat([positive, past, *others, cross], dim=1) / TEMPERATURE
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))

    def watch(self, images: list[Tensor], slots: Tensor) -> None:
        """The change estimate: two more key passes, then sample by sample."""
        query = self.embed(self.encoder_k, self.heads_k[1], images[0])
        late = self.embed(self.encoder_k, self.heads_k[1], images[2])
        short = (query - late).norm(dim=1)
        long = (query[0::2] - query[1::2]).norm(dim=1)
        for row in range(len(slots)):
            slot = slots[row].item()
            ratio = (long[row // 2] / (short[row] + 1e-4)).item()
            first = self.seen[slot].item() == 0
            self.ratio[slot] = ratio if first else BETA * self.ratio[slot].item() + (1 - BETA) * ratio
            self.seen[slot] += 1


def necessary_flops(objective: Objective, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        objective.encoder_q(images).sum().backward()
        with torch.no_grad():
            for _ in range(4):
                objective.get_submodule("encoder_k")(images)
    objective.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def best_rate() -> float:
    """FLOP/s of the better of a large matrix product and a convolution in the middle of a ResNet."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    images = torch.randn(8, 128, 28, 28).to(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last)
    rates = []
    for flops, run in (
        (2 * 1024**3, partial(torch.matmul, a, b)),
        (2 * 8 * 28 * 28 * 128 * 128 * 9, partial(F.conv2d, images, weight, padding=1)),
    ):
        run()
        for _ in range(8):
            start = time.process_time()
            run()
            rates.append(flops / (time.process_time() - start))
    return max(rates)


def measure(side: int, batch: int, repeats: int) -> list[float]:
    """Ratios of CPU time, plain over ours, one for each pair of steps."""
    torch.manual_seed(0)
    network = backbone("resnet18", 3)
    config = ObjectiveConfig(slots=2 * PLACES, queue_size=QUEUE, embedding_dim=DIM, temperature=TEMPERATURE, momentum=MOMENTUM)
    objective = build("caco", config, network, features=512, seed=0).train()
    steps: dict[str, Step] = {"published": PublishedStep(objective), "ours": our_step(objective)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    first: dict[str, float] = {}
    rate = best_rate()
    for repeat in range(repeats + 1):
        views, slots = torch.randn(4, batch, 3, side, side), torch.arange(batch) + repeat * batch % (2 * PLACES - batch)
        for name, step in steps.items():
            start = time.process_time()
            loss = step(views, slots)
            seconds[name].append(time.process_time() - start)
            first.setdefault(name, loss)
        rate = max(rate, best_rate())
    if abs(first["ours"] - first["published"]) > 1e-3 * first["published"]:
        raise SystemExit(f"the two steps differ: first losses {first}")
    ratios = [theirs / ours for theirs, ours in zip(seconds["published"][1:], seconds["ours"][1:], strict=True)]
    ours, theirs = (statistics.median(seconds[name][1:]) for name in ("ours", "published"))
    floor = necessary_flops(objective, torch.randn(batch, 3, side, side)) / rate
    print(
        f"{side:3d} px, batch {batch}: published {theirs:.2f} s, ours {ours:.2f} s, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}), bar {BARS[side]}; floor {floor:.2f} s at {rate / 1e9:.0f} GFLOP/s: "
        f"ours is {ours / floor:.2f} times that, published {theirs / floor:.2f}"
    )
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller batches, fewer repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread"
    )
    sizes = {64: (16, 4), 224: (4, 2)} if quick else {64: (32, 15), 224: (16, 7)}
    found = {side: measure(side, *size) for side, size in sizes.items()}
    medians = {side: statistics.median(ratios) for side, ratios in found.items()}
    passed = all(medians[side] >= bar for side, bar in BARS.items())
    # one line for both sizes: the larger images are what the published set is trained on
    line = {"benchmark": "step", "ratio": medians[224], "low": min(found[224]), "high": max(found[224]), "bar": BARS[224]}
    line |= {"ratio_64px": medians[64], "low_64px": min(found[64]), "high_64px": max(found[64]), "bar_64px": BARS[64]}
    print(
        json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()} | {"pass": passed})
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
