"""Renders the views of a batch on a GPU or any torch device: batched torch operations apply the drawn parameters.

The same parameters give the same views as the compiled kernel, except for the blur (`gpu_resize.py`), which is not rounded
between its passes. Samples with the same step are processed together; the host knows the groups, so that nothing waits for
the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caco_assets.pretraining.encoder.preprocessing import RGB
from caco_assets.pretraining.views import gpu_colour, gpu_resize
from caco_assets.pretraining.views.augmentation import Parameters
from caco_assets.pretraining.views.view_plans import ViewPlan

BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAY, BLUR = range(6)
"""Steps: those of the jitter, numbered as in `Parameters.order`, and those after it."""
CHUNK_BYTES = 256 << 20

Groups = list[tuple[int, slice]]
"""Step of the jitter → slice of the uploaded rows that it applies to."""


class DeviceRenderer:
    """Turns images on the device into views; holds the constants of all batches."""

    def __init__(
        self,
        plan: ViewPlan,
        bands: tuple[str, ...],
        side: int,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        *,
        dtype: torch.dtype | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        compiled: bool = False,
        backend: str = "inductor",
    ) -> None:
        """See `Renderer`.

        Args:
            plan: which views there are.
            bands: of the images.
            side: of the packed images, pixels.
            image_size: side of the views, pixels.
            mean: per band, of values in 0 … 1.
            std: likewise.
            device: where the work is done.
            dtype: of the crops' products; None: half precision on a GPU (levels are exact in it, filters accurate to a third of a
                level, and products many times faster), else float32.
            chunk_bytes: of float32 planes processed at once; the working set is about six times that.
            compiled: fuse the colour operations with `torch.compile`.
            backend: of `torch.compile`.
        """
        self._plan, self._side, self._size, self._device = plan, side, image_size, device
        self._colours = bands == RGB
        self._chunk = max(1, chunk_bytes // (4 * len(bands) * side**2))
        self._scale = [1 / (255 * value) for value in std]
        self._shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
        self._basis = gpu_resize.box_basis(image_size if plan.crop_first else side, device)
        fused: Callable[[Any], Any] = (lambda f: torch.compile(f, dynamic=True, backend=backend)) if compiled else (lambda f: f)
        self._brightness, self._contrast = fused(gpu_colour.brightness), fused(gpu_colour.contrast)
        self._saturation, self._hue = fused(gpu_colour.saturation), fused(gpu_colour.hue)

    def render(self, images: Tensor, which: np.ndarray, parameters: Parameters) -> Tensor:
        """Make the views of a batch.

        Args:
            images: uint8 (N, H, W, C) on the device.
            which: int64 (V, B) on the host: the image index of each view of each sample.
            parameters: of the batch, on the host.

        Returns:
            float32 (V, B, C, S, S) on the device, normalised.
        """
        views, batch = which.shape
        out = torch.empty((views, batch, images.shape[3], self._size, self._size), device=self._device)
        chunks = [
            (v, slice(start, min(start + self._chunk, batch))) for v in range(views) for start in range(0, batch, self._chunk)
        ]
        plans = [self._groups(parameters, v, rows) for v, rows in chunks]
        numbers = upload(_numbers(parameters), self._device)
        rows_of = upload(np.concatenate([which.ravel(), *(rows for _, rows in plans)]), self._device)
        start = which.size
        for (v, rows), (groups, indices) in zip(chunks, plans, strict=True):
            shown = rows_of[v * batch + rows.start : v * batch + rows.stop]
            planes = images.index_select(0, shown).permute(0, 3, 1, 2)  # (n, C, H, W), still in the pack's order in memory
            self._view(planes, numbers[v, rows], groups, rows_of[start : start + len(indices)], v, out[v, rows])
            start += len(indices)
        return out

    def _view(self, planes: Tensor, numbers: Tensor, groups: Groups, rows: Tensor, view: int, out: Tensor) -> None:
        """One view of some samples, into `out` (n, C, S, S)."""
        augment = self._plan.views[view].augment
        if self._plan.crop_first and augment:
            # results are whole levels: in half precision one in thirty would be off by one
            cropped = torch.stack(self._cropped(planes.float(), numbers, blurred=None, flip=False), dim=1)
            levels = self._coloured(cropped.add_(0.5).floor_(), numbers, groups, rows)
            whole = torch.zeros_like(numbers[:, :4])
            whole[:, 2:] = self._size
            numbers = torch.cat([whole, numbers[:, 4:]], dim=1)
            planes = levels
        elif augment:
            levels = planes.to(torch.float32, memory_format=torch.contiguous_format)
            planes = self._coloured(levels, numbers, groups, rows)
        planes = planes.to(self._dtype, memory_format=torch.contiguous_format)
        blurred = next((rows[part] for step, part in groups if step == BLUR), None)
        for band, image in enumerate(self._cropped(planes, numbers, blurred, flip=augment)):
            torch.add(torch.mul(image.float(), self._scale[band]), self._shift[band], out=out[:, band])

    def _cropped(self, planes: Tensor, numbers: Tensor, blurred: Tensor | None, flip: bool) -> list[Tensor]:
        """Bands (n, S, S): optional blur and flip, then crop and resize."""
        side, dtype = planes.shape[2], planes.dtype
        top, left, height, width, mirrored = numbers[:, :5].unbind(dim=1)
        across = (mirrored > 0) & flip
        rows = gpu_resize.resize_matrix(top, height, torch.zeros_like(across), side, self._size, dtype)
        columns = gpu_resize.resize_matrix(left, width, across, side, self._size, dtype)
        if blurred is not None:
            blur = gpu_resize.blur_matrix(numbers[:, 5:8].index_select(0, blurred), self._basis).to(dtype)
            for matrix in (rows, columns):
                matrix.index_copy_(0, blurred, torch.bmm(matrix.index_select(0, blurred), blur))
        return gpu_resize.apply(rows, columns, planes)

    def _coloured(self, planes: Tensor, numbers: Tensor, groups: Groups, rows: Tensor) -> Tensor:
        """Apply jitter and grayscale in place to the selected samples."""
        for step, part in groups:
            if step == BLUR:
                continue
            chosen = rows[part]
            pictures = planes.index_select(0, chosen)
            factor = numbers.index_select(0, chosen)[:, 8:, None, None, None]  # (n, 4, 1, 1, 1)
            planes.index_copy_(0, chosen, self._step(step, pictures, factor))
        return planes

    def _step(self, step: int, pictures: Tensor, factor: Tensor) -> Tensor:
        if step == BRIGHTNESS:
            return self._brightness(pictures, factor[:, BRIGHTNESS])
        if step == CONTRAST:
            return self._contrast(pictures, factor[:, CONTRAST], self._colours)
        if step == SATURATION:
            return self._saturation(pictures, factor[:, SATURATION])
        if step == HUE:
            return self._hue(pictures, factor[:, HUE])
        return gpu_colour.grayscale(pictures)

    def _groups(self, parameters: Parameters, view: int, rows: slice) -> tuple[Groups, np.ndarray]:
        """Steps in order of application, each with its slice of the row numbers, and the row numbers."""
        if not self._plan.views[view].augment:
            return [], np.empty(0, np.int64)
        jitter, order = parameters.jitter[view, rows], parameters.order[view, rows]
        steps = (BRIGHTNESS, CONTRAST, SATURATION, HUE) if self._colours else (BRIGHTNESS, CONTRAST)
        who = [(step, jitter & (order[:, turn] == step)) for turn in range(4) for step in steps]
        who += [(GRAY, parameters.grayscale[view, rows] & self._colours), (BLUR, parameters.sigma[view, rows] > 0)]
        groups: Groups = []
        indices: list[np.ndarray] = []
        start = 0
        for step, chosen in who:
            found = np.flatnonzero(chosen)
            if len(found):
                groups.append((step, slice(start, start + len(found))))
                indices.append(found)
                start += len(found)
        return groups, np.concatenate(indices) if indices else np.empty(0, np.int64)


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device, made without blocking the host."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _numbers(parameters: Parameters) -> np.ndarray:
    """float32 (V, B, 12): crop (4), flip, weights of the blur (3), factors of the jitter (4)."""
    factors = parameters.factors.copy()
    factors[..., HUE] = np.trunc(factors[..., HUE] * 255)
    blur = gpu_resize.blur_weights(parameters.sigma)
    return np.concatenate([parameters.box, parameters.flip[..., None], blur, factors], axis=-1).astype(np.float32)
