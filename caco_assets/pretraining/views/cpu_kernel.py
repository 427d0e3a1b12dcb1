"""One view of one packed image on a CPU: colour operations, blur, crop, resize and normalisation as compiled loops over bytes.

Every operation is Pillow's on 8-bit pictures, rounding included (checked against Pillow and against golden pictures), because the
published views were made with Pillow; only resizing differs, by up to one level, because Pillow rounds between its two directions.
All work stays inside the crop, except for the mean in the contrast step. Functions release the GIL. `source` is a packed image
(H, W, C); the operations run on planes (C, H, W), which compilers can vectorise.

Sources: Pillow's documented operations; the blur is the extended box blur of Gwosdek et al. 2011, "Theoretical foundations of
Gaussian convolution by extended box filtering", in three passes; luma is ITU-R 601-2.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - numba infers the types of compiled functions
# One long file: numba's cache detects only changes of a function's own file.

from __future__ import annotations

import math

import numpy as np
from numba import njit

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
BLUR_MARGIN = 6
"""Pixels around a crop that affect its blur: three passes of a box of radius < 2, enough for sigma up to 2.4."""
_jit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz"})
_fused = njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz", "contract"})
"""Fused multiply-add: only where the sum is not truncated to a byte."""


@_jit
def _level(value):
    """Clip and truncate to a byte, as in Pillow's blend."""
    value = value if value > np.float32(0) else np.float32(0)
    value = value if value < np.float32(255) else np.float32(255)
    return np.uint8(np.int32(value))


@_jit
def _luma(r, g, b):
    return (np.int32(19_595) * r + np.int32(38_470) * g + np.int32(7_471) * b + np.int32(32_768)) >> np.int32(16)


@_jit
def blend(row, towards, factor):
    """`towards` + factor · (value − `towards`): brightness (towards 0) and contrast (towards the mean)."""
    base, weight = np.float32(towards), np.float32(factor)
    for x in range(row.size):
        row[x] = _level(base + weight * (np.float32(row[x]) - base))


@_jit
def saturate(r, g, b, factor):
    """Blend each pixel with its own luma; factor 0 is grayscale."""
    weight = np.float32(factor)
    for x in range(r.size):
        luma = np.float32(_luma(np.int32(r[x]), np.int32(g[x]), np.int32(b[x])))
        r[x] = _level(luma + weight * (np.float32(r[x]) - luma))
        g[x] = _level(luma + weight * (np.float32(g[x]) - luma))
        b[x] = _level(luma + weight * (np.float32(b[x]) - luma))


@_jit
def _from_hsv(value, chroma, k):
    """One colour of an HSV pixel: value − chroma · clamp(min(k, 4 − k), 0, 1), k the hue in sixths of a turn from that colour."""
    k = k - np.float32(6) if k >= np.float32(6) else k
    back = np.float32(4) - k
    share = k if k < back else back
    share = share if share > np.float32(0) else np.float32(0)
    share = share if share < np.float32(1) else np.float32(1)
    return np.uint8(np.int32(value - chroma * share + np.float32(0.5)))


@_jit
def shift_hue(r, g, b, shift):
    """Rotate the hue by `shift` 255ths of a circle through HSV of 8 bits each, as in Pillow's mode HSV."""
    shift = np.int32(shift)
    for x in range(r.size):
        red, green, blue = np.int32(r[x]), np.int32(g[x]), np.int32(b[x])
        top, bottom = max(red, green, blue), min(red, green, blue)
        spread = top - bottom
        # Pillow's precisions, float32 and float64: where the hue is close to a whole level, the last bit decides the result
        part = np.float32(2 * top + bottom - red - green - blue) / np.float32(max(spread, np.int32(1)))
        of_red = np.float32(1) - part if green >= blue else part - np.float32(1)
        of_green = np.float32(3) - part if red < blue else np.float32(1) + part
        of_blue = np.float32(3) + part if red < green else np.float32(5) - part
        sixths = of_red if red == top else (of_green if green == top else of_blue)
        turns = np.float64(sixths) / 6.0 + 1.0
        turns = turns - 1.0 if turns >= 1.0 else turns
        hue = np.int32(np.float64(np.float32(turns)) * 255.0)
        saturation = np.int32(np.float64(np.float32(spread) / np.float32(max(top, np.int32(1)))) * 255.0)
        k = np.float32((hue + shift) & np.int32(255)) * np.float32(6 / 255)
        value = np.float32(top)
        chroma = value * np.float32(saturation) * np.float32(1 / 255)
        r[x] = _from_hsv(value, chroma, k + np.float32(5))
        g[x] = _from_hsv(value, chroma, k + np.float32(3))
        b[x] = _from_hsv(value, chroma, k + np.float32(1))


@_jit
def mean_level(planes, colours):
    """Mean over the whole image, to the nearest level: of the luma if the bands are colours, else of all bands."""
    bands, height, width = planes.shape
    total = np.int64(0)
    for y in range(height):
        part = np.int32(0)
        if colours:
            r, g, b = planes[0, y], planes[1, y], planes[2, y]
            for x in range(width):
                part += _luma(np.int32(r[x]), np.int32(g[x]), np.int32(b[x]))
        else:
            for c in range(bands):
                row = planes[c, y]
                for x in range(width):
                    part += np.int32(row[x])
        total += part
    count = height * width * (1 if colours else bands)
    return math.floor(total / count + 0.5)


@_jit
def _point_operations(planes, colours, order, first, last, factors, mean, top, bottom, left, right):
    """Steps `first` … `last` of the jitter on the region, row by row while the row is in cache."""
    for y in range(top, bottom):
        for step in range(first, last):
            op = order[step]
            if op in (BRIGHTNESS, CONTRAST):
                for c in range(planes.shape[0]):
                    blend(planes[c, y, left:right], mean if op == CONTRAST else 0, factors[op])
            elif colours and op == SATURATION:
                saturate(planes[0, y, left:right], planes[1, y, left:right], planes[2, y, left:right], factors[op])
            elif colours and op == HUE:
                shift_hue(planes[0, y, left:right], planes[1, y, left:right], planes[2, y, left:right], int(factors[op] * 255))


@_jit
def _colour(planes, colours, jitter, order, factors, grayscale, top, bottom, left, right):
    """Jitter and optionally convert to gray the region of `planes`, in place.

    The contrast step needs the mean of the whole current image, so the steps before it are applied everywhere.
    """
    if jitter:
        turn = 0
        while order[turn] != CONTRAST:
            turn += 1
        _point_operations(planes, colours, order, 0, turn, factors, 0, 0, planes.shape[1], 0, planes.shape[2])
        mean = mean_level(planes, colours)
        _point_operations(planes, colours, order, turn, 4, factors, mean, top, bottom, left, right)
    if grayscale and colours:
        for y in range(top, bottom):
            saturate(planes[0, y, left:right], planes[1, y, left:right], planes[2, y, left:right], 0.0)


@_jit
def _box_radius(sigma):
    """Radius of the box whose three-fold use has the variance of a Gaussian (Gwosdek et al., equations 7, 11 and 14).

    In float32 where Pillow uses it: the last bit of the radius decides rounding ties.
    """
    variance = np.float32(sigma) * np.float32(sigma) / np.float32(3)
    length = np.float32(math.sqrt(12.0 * variance + 1.0))
    whole = np.float32(math.floor((length - 1.0) / 2.0))
    one, next_one = np.float32(1), whole + np.float32(1)
    part = (np.float32(2) * whole + one) * (whole * next_one - np.float32(3) * variance)
    part = part / (np.float32(6) * (variance - next_one * next_one))
    return whole + part


@_jit
def _box(out, centre, near1, near2, far1, far2, inner, outer, wide):
    """One pass over a line: a sample, its neighbours and, for a wide box, the next ones, weighted in 24-bit fixed point."""
    half, point = np.uint32(1 << 23), np.uint32(24)
    if wide:
        for x in range(out.size):
            box = np.uint32(centre[x]) + np.uint32(near1[x]) + np.uint32(near2[x])
            out[x] = np.uint8((inner * box + outer * (np.uint32(far1[x]) + np.uint32(far2[x])) + half) >> point)
    else:
        for x in range(out.size):
            out[x] = np.uint8((inner * np.uint32(centre[x]) + outer * (np.uint32(near1[x]) + np.uint32(near2[x])) + half) >> point)


@_jit
def blur(plane, spare, top, bottom, left, right, sigma):
    """Three box passes along rows, then three along columns; edges of the region repeat. The result is in `spare`."""
    radius = _box_radius(sigma)
    whole = int(radius)
    # in float32, as in Pillow: the weight's last bit decides rounding ties
    inner = np.uint32(np.float32(1 << 24) / np.float32(radius * 2 + 1))
    outer = np.uint32(((1 << 24) - (2 * whole + 1) * np.int64(inner)) // 2)
    wide, n = whole == 1, right - left
    line, other = np.empty(n + 4, np.uint8), np.empty(n + 4, np.uint8)
    for y in range(top, bottom):
        line[2 : n + 2] = plane[y, left:right]
        for _ in range(3):
            line[:2], line[n + 2 :] = line[2], line[n + 1]
            _box(other[2 : n + 2], line[2 : n + 2], line[1 : n + 1], line[3 : n + 3], line[:n], line[4:], inner, outer, wide)
            line, other = other, line
        plane[y, left:right] = line[2 : n + 2]
    for _ in range(3):
        for y in range(top, bottom):
            near1, near2, far1, far2 = max(y - 1, top), min(y + 1, bottom - 1), max(y - 2, top), min(y + 2, bottom - 1)
            _box(
                spare[y, left:right],
                plane[y, left:right],
                plane[near1, left:right],
                plane[near2, left:right],
                plane[far1, left:right],
                plane[far2, left:right],
                inner,
                outer,
                wide,
            )
        plane, spare = spare, plane


@_jit
def _weights(length, side):
    """Pillow's bilinear filter with antialiasing: first input sample, number of samples and weights for each of `side` outputs."""
    scale = length / side
    support = max(scale, 1.0)
    taps = math.ceil(support) * 2 + 1
    first, count = np.empty(side, np.int64), np.empty(side, np.int64)
    weights = np.zeros((side, taps))
    for i in range(side):
        centre = (i + 0.5) * scale
        start, stop = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)
        total = 0.0
        for k in range(stop - start):
            total += max(0.0, 1 - abs((start + k - centre + 0.5) * (1 / support)))
        for k in range(stop - start):
            weights[i, k] = max(0.0, 1 - abs((start + k - centre + 0.5) * (1 / support))) * (1 / total)
        first[i], count[i] = start, stop - start
    return first, count, weights


@_fused
def _add_row(line, row, weight):
    for e in range(line.size):
        line[e] += weight * np.float32(row[e])


@_fused
def _gather_taps(row, line, positions, weights, shift):
    """One output row of one band: sums over taps of weight · line[position], taps outermost to vectorise over samples."""
    row[:] = shift
    for k in range(weights.shape[0]):
        weight, offset = weights[k], positions[k]
        for j in range(row.size):
            row[j] += weight[j] * line[offset[j]]


@_fused
def _resize(rows, stride, top, left, height, width, flip, scale, shift, out):
    """Crop and resize to the side of `out` (C, S, S), flip left-right if asked, and write level · scale + shift per band.

    `rows` is (planes, H, W·stride): packed images are one plane of stride C, planes have stride 1. Both directions are summed in
    float32 without rounding between them.
    """
    side = out.shape[1]
    first_y, count_y, weight_y = _weights(height, side)
    first_x, count_x, weight_x = _weights(width, side)
    taps = count_x.max()
    # unsigned: numba then omits its check for negative indices, and the compiler can use gather instructions
    positions, weights = np.empty((taps, side), np.uint32), np.empty((scale.size, taps, side), np.float32)
    for k in range(taps):
        for j in range(side):
            at = side - 1 - j if flip else j
            positions[k, at] = (first_x[j] + k) * stride
            for band in range(scale.size):
                weights[band, k, at] = weight_x[j, k] * scale[band]
    line = np.zeros((width + taps) * stride, np.float32)  # taps beyond the crop have no weight
    begin, end = left * stride, (left + width) * stride
    for p in range(rows.shape[0]):
        for i in range(side):
            line[: end - begin] = 0
            for k in range(count_y[i]):
                _add_row(line[: end - begin], rows[p, top + first_y[i] + k, begin:end], np.float32(weight_y[i, k]))
            for s in range(stride):
                band = p * stride + s
                _gather_taps(out[band, i], line[s:], positions, weights[band], shift[band])


@_jit
def crop_only(source, box, scale, shift, out):
    """A view without augmentation: the crop (top, left, height, width) of `source`, resized into `out`."""
    rows = source.reshape((1, source.shape[0], source.shape[1] * source.shape[2]))
    _resize(rows, source.shape[2], box[0], box[1], box[2], box[3], False, scale, shift, out)


@_jit
def augment_then_crop(source, box, flip, jitter, order, factors, grayscale, sigma, colours, scale, shift, a, b, out):
    """The published order: colour, blur and flip on the full image, then the crop, resized. `a`, `b`: scratch (C, H, W)."""
    rows, columns, bands = source.shape
    top, height, width = box[0], box[2], box[3]
    left = columns - box[1] - width if flip else box[1]
    margin = BLUR_MARGIN if sigma > 0 else 0
    first, last = max(top - margin, 0), min(top + height + margin, rows)
    begin, end = max(left - margin, 0), min(left + width + margin, columns)
    copied = (0, rows) if jitter else (first, last)
    for y in range(copied[0], copied[1]):
        for c in range(bands):
            plane = a[c, y]
            for x in range(columns):
                plane[x] = source[y, x, c]
    _colour(a, colours, jitter, order, factors, grayscale, first, last, begin, end)
    if sigma > 0:
        for c in range(bands):
            blur(a[c], b[c], first, last, begin, end, sigma)
    _resize(b if sigma > 0 else a, 1, top, left, height, width, flip, scale, shift, out)


@_jit
def crop_then_augment(source, box, flip, jitter, order, factors, grayscale, sigma, colours, scale, shift, a, b, out):
    """The order of `moco`: the crop is resized to 8 bits first, then colour, blur and flip. `a`, `b`: scratch (C, S, S)."""
    bands, side = out.shape[0], out.shape[1]
    crop_only(source, box, np.ones(bands, np.float32), np.zeros(bands, np.float32), out)
    for c in range(bands):
        for y in range(side):
            for x in range(side):
                a[c, y, x] = np.uint8(np.int32(out[c, y, x] + np.float32(0.5)))
    _colour(a, colours, jitter, order, factors, grayscale, 0, side, 0, side)
    if sigma > 0:
        for c in range(bands):
            blur(a[c], b[c], 0, side, 0, side, sigma)
    image = b if sigma > 0 else a
    for c in range(bands):
        for y in range(side):
            for x in range(side):
                out[c, y, side - 1 - x if flip else x] = np.float32(image[c, y, x]) * scale[c] + shift[c]
