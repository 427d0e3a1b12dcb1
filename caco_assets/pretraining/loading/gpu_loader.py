"""Loads batches of views on a GPU: the pack is in its memory or streamed to it ahead of use, so steps do not wait for images.

A host thread draws the random choices one step ahead; images are copied and views rendered on a separate stream while the
previous step trains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from caco_assets.pretraining.loading.gpu_images import Images, open_images
from caco_assets.pretraining.loading.sampler import Batch, Drawn, Sampler
from caco_assets.pretraining.views.gpu_renderer import DeviceRenderer, upload

_AHEAD = 2
"""Steps whose choices are drawn and whose images are read in advance."""


@dataclass(frozen=True)
class _Waiting:
    """A batch whose views are being rendered."""

    batch: Batch
    made: torch.Event | None


class DeviceLoader:
    """Reads the samples of a sampler and renders the views on the device; each step has the same content as `Loader`'s."""

    def __init__(
        self,
        sampler: Sampler,
        *,
        device: str | torch.device = "cuda",
        memory: float = 0.5,
        threads: int = 0,
        compiled: bool = False,
    ) -> None:
        """Load the samples of `sampler`; the device is first used by `epoch`.

        Args:
            sampler: decides the content of each step.
            device: where the views are rendered; without an index the current one.
            memory: largest share of its free memory that the pack may take; a larger pack is streamed.
            threads: readers of the pack; 0: all cores available to this process.
            compiled: fuse the colour operations with `torch.compile`.
        """
        self.sampler = sampler
        self._wanted, self._memory, self._threads, self._compiled = torch.device(device), memory, threads, compiled
        self._opened: tuple[torch.device, Images, DeviceRenderer, torch.cuda.Stream | None] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.sampler.steps_per_epoch

    @property
    def resident(self) -> bool:
        """Whether the whole pack is in the device's memory; loads it on first use."""
        return self._open()[1].resident

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on, on the device; the next is rendered while the caller trains on the last.

        Threads end when the iterator is exhausted, closed or dropped; their exceptions are raised here.
        """
        device, images, renderer, stream = self._open()
        order = self.sampler.order(epoch)
        with ThreadPoolExecutor(1, "batches") as ahead, images.readers():
            steps = iter(range(start_step, self.steps_per_epoch))
            coming: deque[Future[tuple[Drawn, Any]]] = deque()
            taken: deque[torch.Event] = deque()
            following: _Waiting | None = None

            def draw_ahead(count: int) -> None:
                for step in islice(steps, count):
                    coming.append(ahead.submit(self._prepare, images, order, epoch, step))

            try:
                draw_ahead(_AHEAD)
                while coming or following:
                    present, following = following, None
                    if coming:
                        drawn, prepared = coming.popleft().result()
                        draw_ahead(1)
                        following = self._make(device, images, renderer, stream, drawn, prepared)
                    if present is None:
                        continue
                    yield _handed_over(present)
                    if stream is not None:
                        _hold_back(taken)
            finally:
                ahead.shutdown(cancel_futures=True)

    def _open(self) -> tuple[torch.device, Images, DeviceRenderer, torch.cuda.Stream | None]:
        if self._opened is None:
            device = self._wanted
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", torch.cuda.current_device())
            sampler, target = self.sampler, self.sampler.preprocessing
            images = open_images(sampler.pack, sampler.channels, device, self._memory, self._threads)
            renderer = DeviceRenderer(
                sampler.plan,
                sampler.bands,
                sampler.pack.chip_size,
                sampler.image_size,
                target.mean,
                target.std,
                device,
                compiled=self._compiled,
            )
            stream = torch.cuda.Stream(device) if device.type == "cuda" else None
            self._opened = device, images, renderer, stream
        return self._opened

    def _prepare(self, images: Images, order: np.ndarray, epoch: int, step: int) -> tuple[Drawn, Any]:
        drawn = self.sampler.draw(order, epoch, step)
        return drawn, images.prepare(drawn)

    def _make(
        self,
        device: torch.device,
        images: Images,
        renderer: DeviceRenderer,
        stream: torch.cuda.Stream | None,
        drawn: Drawn,
        prepared: Any,
    ) -> _Waiting:
        with torch.no_grad(), torch.cuda.stream(stream) if stream is not None else nullcontext():
            pixels, index = images.on_device(prepared)
            which = np.stack([index[:, view.date] for view in self.sampler.plan.views])  # (V, B)
            batch = Batch(renderer.render(pixels, which, drawn.parameters), upload(drawn.slots, device))
            return _Waiting(batch, stream.record_event() if stream is not None else None)


def _handed_over(waiting: _Waiting) -> Batch:
    """The batch, after making the caller's stream (not the host) wait for it."""
    if waiting.made is not None:
        current = torch.cuda.current_stream(waiting.batch.views.device)
        current.wait_event(waiting.made)
        for tensor in (waiting.batch.views, waiting.batch.slots):
            tensor.record_stream(current)
    return waiting.batch


def _hold_back(taken: deque[torch.Event]) -> None:
    """Let the host run at most two steps ahead of the device: more batches would fill its memory."""
    taken.append(torch.cuda.current_stream().record_event())
    if len(taken) > _AHEAD:
        taken.popleft().synchronize()
