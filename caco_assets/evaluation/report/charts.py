"""Renders small charts as inline SVG in the page's colours (light and dark), without files or scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from markupsafe import escape

from caco_assets.evaluation.scorecard import Line

_WIDTH = 360
# Room for half a label at both ends of the scale.
_PAD = 14
# More points are not visible at the width of the page.
_MOST_POINTS = 600


def interval(line: Line, low: float = 0.0, high: float = 1.0) -> str:
    """One figure as a dot with its 95 % interval, on a scale from `low` to `high`; the table shows the numbers."""
    if line.value is None:
        return ""
    span = high - low

    def x(share: float) -> str:
        return f"{_PAD + (_WIDTH - 2 * _PAD) * (min(max(share, low), high) - low) / span:.1f}"

    grid = "".join(f'<line class="grid" x1="{x(low + q * span)}" x2="{x(low + q * span)}" y1="0" y2="28"/>' for q in _quarters())
    bar = ""
    if line.low is not None and line.high is not None:
        bar = f'<line class="bar" x1="{x(line.low)}" x2="{x(line.high)}" y1="14" y2="14"/>'
    dot = f'<circle cx="{x(line.value)}" cy="14" r="5.5"/>'
    return f'<svg class="dot {escape(line.role)}" viewBox="0 0 {_WIDTH} 28" aria-hidden="true">{grid}{bar}{dot}</svg>'


def scale(low: float = 0.0, high: float = 1.0) -> str:
    """The axis above a column of `interval`s, in percent."""
    ticks = "".join(
        f'<text x="{_PAD + (_WIDTH - 2 * _PAD) * q:.1f}" y="13" text-anchor="middle">{100 * (low + q * (high - low)):.0f}</text>'
        for q in _quarters()
    )
    return f'<svg class="dot axis" viewBox="0 0 {_WIDTH} 18" aria-hidden="true">{ticks}</svg>'


def bounds(lines: Sequence[Line]) -> tuple[float, float]:
    """Ends of a scale that contains every figure and interval and has quarters at round percents."""
    ends = [end for line in lines for end in (line.value, line.low, line.high) if end is not None]
    if not ends:
        return 0.0, 1.0
    tick = next(tick for tick in (5, 10, 20, 25) if _start(ends, tick) + 4 * tick >= 100 * max(ends))
    start = _start(ends, tick)
    return start / 100, (start + 4 * tick) / 100


def _start(ends: Sequence[float], tick: int) -> int:
    """The highest tick below all ends from which four ticks do not pass 100 percent."""
    return max(0, min(int(100 * min(ends) // tick) * tick, 100 - 4 * tick))


def curve(x: Sequence[float], y: Sequence[float], smooth: Sequence[float], what: str) -> str:
    """A noisy line with a smooth one on top.

    Args:
        x: positions.
        y: the noisy values.
        smooth: the smooth ones, as many.
        what: the chart in one sentence, for screen readers.
    """
    width, height, left, bottom = 760, 260, 48, 34
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    xs, ys, ms = (np.asarray(values, float)[keep] for values in (x, y, smooth))
    top, floor = float(max(ys.max(), ms.max())), float(min(ys.min(), ms.min()))
    px = left + (width - left - 10) * (xs - xs[0]) / max(xs[-1] - xs[0], 1e-9)

    def points(values: np.ndarray) -> str:
        py = 10 + (height - bottom - 10) * (top - values) / max(top - floor, 1e-9)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))

    labels = "".join(
        f'<text x="{left - 8}" y="{10 + (height - bottom - 10) * q + 4:.0f}" text-anchor="end">{top - q * (top - floor):.2f}</text>'
        f'<line class="grid" x1="{left}" x2="{width - 10}" y1="{10 + (height - bottom - 10) * q:.0f}" '
        f'y2="{10 + (height - bottom - 10) * q:.0f}"/>'
        for q in (0, 0.5, 1)
    )
    labels += f'<text x="{left}" y="{height - 10}">step {xs[0]:.0f}</text>'
    labels += f'<text x="{width - 10}" y="{height - 10}" text-anchor="end">step {xs[-1]:.0f}</text>'
    lines = f'<polyline class="noisy" points="{points(ys)}"/><polyline class="smooth" points="{points(ms)}"/>'
    head = f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(what)}">'
    return f"{head}{labels}{lines}</svg>"


def histogram(values: np.ndarray, bins: int, low: float, high: float, what: str) -> str:
    """A histogram as bars; `what` describes the chart in one sentence."""
    width, height, bottom = 440, 170, 26
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    step, most = width / bins, max(int(counts.max()), 1)
    bars = "".join(
        f'<rect x="{i * step + 1:.1f}" y="{(height - bottom) * (1 - count / most):.1f}" width="{step - 2:.1f}" '
        f'height="{(height - bottom) * count / most:.1f}"/>'
        for i, count in enumerate(counts)
    )
    ends = f'<text x="0" y="{height - 6}">{low:g}</text><text x="{width}" y="{height - 6}" text-anchor="end">{high:g}</text>'
    head = f'<svg class="chart bars" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(what)}">'
    return f"{head}{bars}{ends}</svg>"


def data_uri(png: bytes) -> str:
    """An image embedded in the page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _quarters() -> tuple[float, ...]:
    return (0.0, 0.25, 0.5, 0.75, 1.0)
