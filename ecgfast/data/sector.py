"""Of a video the sector that was scanned, and nothing of what is written around it."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ecgfast.config.clips import MOST_FRAMES, ClipFit
from ecgfast.data.fan import Fan, fit_fan
from ecgfast.data.records import Issue, Video, bad

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
LOOKED_AT = 32  # frames
LOOK = 240  # pixels of the longer side on which the sector is looked for
LEAST_SD = 0.7  # levels: less is what a codec does to still text
SHARE_SD = 0.03  # of the liveliest pixels: less does not move
MOST_SD = 0.25  # of the liveliest pixels: more moves, though corners may tremble as much
LEAST_AREA = 0.04  # of the frame
DENSE = 0.5  # of the neighbours must move too: lines do not hold
BESIDE = 0.05  # of the frame: a part that lies so near to a fan is taken into it
FILLED = 0.35  # of a fan must move
SURE = 0.8  # a fan of which so much moves needs no other
HULL_BETTER = 0.12  # by which a convex hull may be filled better than a fan
SOLID = 0.75  # of the convex hull must move, where no fan fits
COLOURED = 40  # levels by which a colour is not that of its brightness
LEAST_COLOUR = 0.005  # of the sector's pixels
RATE_WITHIN = 0.02
REPEATED = 16  # times that a frame may be shown at most, to fill a longer time
MOST_BYTES = 2**31  # of the frames of a video that come out: small ones may be many
Box = tuple[int, int, int, int]


class Sector(NamedTuple):
    """Where the scan is.

    Attributes:
        mask: ``(H, W)`` true inside.
        fan: Whether a fan fits; else the mask is a convex hull.
    """

    mask: NDArray[np.bool_]
    fan: bool


def sector_mask(pixels: NDArray[np.uint8], region: Box | None = None) -> NDArray[np.bool_]:
    """Which pixels belong to the sector that was scanned; see :func:`find_sector`.

    Args:
        pixels: ``(F, H, W, C)`` uint8.
        region: Top, left, bottom, right within which it lies, if known.

    Returns:
        ``(H, W)`` bool.

    Raises:
        BadRecord: no_sector.
    """
    return find_sector(pixels, region).mask


def find_sector(pixels: NDArray[np.uint8], region: Box | None = None) -> Sector:
    """The fan in which pixels move.

    Names, scales and bars stand still; a heart does not. Where the grey level of a pixel has more
    than 3 % of the standard deviation over time of the liveliest pixels, it moves. Single lines
    that do, an ECG's trace, are taken away; of the rest the largest part that hangs together is
    kept, and around it the smallest fan is drawn. Where no fan fits, the convex hull is taken.

    Args:
        pixels: ``(F, H, W, C)`` uint8.
        region: Top, left, bottom, right within which it lies, if known.

    Raises:
        BadRecord: no_sector.
    """
    height, width = pixels.shape[1:3]
    step = max(1, -(-max(height, width) // LOOK))
    active = _moving(pixels, step)
    if region is not None:
        inside = np.zeros((height, width), dtype=bool)
        inside[region[0] : region[2], region[1] : region[3]] = True
        active &= inside[::step, ::step]
    dense, labels, active = _largest(active)
    if active.sum() < LEAST_AREA * active.size:
        text = (
            f"{100 * active.mean():.2g} % of the frame move and hang together, "
            f"{100 * LEAST_AREA:g} % are the least sector; --mask none keeps whole frames, "
            "burnt-in names too"
        )
        raise bad("no_sector", text)
    hull = _hull(active)
    solid = _overlap(active, _within(hull, active.shape, 1))
    best, mask = _fan_around(active, dense, labels, step, (height, width))
    if best < SURE:  # some show the apex below
        turned = (active[::-1], dense[::-1], labels[::-1])
        other, below = _fan_around(*turned, step, (height, width))
        if other > best:
            best, mask = other, below[::-1]
    if best >= max(FILLED, solid - HULL_BETTER):
        return Sector(mask, True)
    if solid < SOLID:
        text = (
            f"what moves fills {100 * solid:.0f} % of its convex hull, and no fan fits it; --mask "
            "none keeps whole frames, burnt-in names too"
        )
        raise bad("no_sector", text)
    return Sector(_within(hull, (height, width), step), False)


def _moving(pixels: NDArray[np.uint8], step: int) -> NDArray[np.bool_]:
    frames = np.unique(np.linspace(0, len(pixels) - 1, LOOKED_AT).astype(int))
    part = pixels[frames, ::step, ::step].astype(np.float32)
    grey = part @ LUMA if part.shape[3] == 3 else part[..., 0]
    sd = grey.std(axis=0)
    lively = float(np.quantile(sd, 0.99))
    down, across = (max(1, side // 8) for side in sd.shape)
    corners = (sd[:down, :across], sd[:down, -across:], sd[-down:, :across], sd[-down:, -across:])
    # no sector lies there but much that is written, whose tremble shows what the codec does
    tremble = float(np.quantile(np.concatenate([part.ravel() for part in corners]), 0.9))
    return sd > max(LEAST_SD, SHARE_SD * lively, min(tremble, MOST_SD * lively))


def _largest(
    active: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.bool_]]:
    """What is dense, its parts by number, and the largest of them."""
    side = max(3, round(max(active.shape) / 50) | 1)
    dense = ndimage.uniform_filter(active.astype(np.float32), side) > DENSE
    labels, _ = ndimage.label(ndimage.binary_dilation(dense, iterations=side // 2))
    sizes = np.bincount(labels.ravel(), weights=dense.ravel())
    sizes[0] = -1
    return dense, labels, dense & (labels == int(sizes.argmax()))


def _joined(dense: NDArray[np.bool_], labels: NDArray[np.int32], fan: Fan) -> NDArray[np.bool_]:
    """All parts that lie in the fan, or between it and its apex, but for a few pixels."""
    y, x = np.mgrid[: dense.shape[0], : dense.shape[1]].astype(np.float64)
    margin = BESIDE * max(dense.shape)
    inside = fan._replace(near=0.0).depth(y, x) >= -margin
    inside |= np.hypot(y - fan.y, x - fan.x) < margin
    sizes = np.bincount(labels.ravel(), weights=dense.ravel())
    within = np.bincount(labels.ravel(), weights=(dense & inside).ravel())
    kept = within > 0.5 * np.maximum(sizes, 1)
    return dense & kept[labels]


def _fan_around(
    active: NDArray[np.bool_],
    dense: NDArray[np.bool_],
    labels: NDArray[np.int32],
    step: int,
    shape: tuple[int, int],
) -> tuple[float, NDArray[np.bool_]]:
    """The fan around the largest part and those that lie in it, and how well it fits."""
    fan = fit_fan(active)
    whole = _joined(dense, labels, fan) | active
    if whole.sum() > active.sum():  # the skin beyond a dark ring, say
        active, fan = whole, fit_fan(whole)
    fits = _overlap(active, fan.inside(active.shape))
    wide = fan._replace(x=fan.x * step, y=fan.y * step, near=fan.near * step, far=fan.far * step)
    return fits, wide.inside(shape)


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _hull(active: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The lines around what is active, as (down, across, offset): inside all are negative."""
    try:
        return ConvexHull(np.argwhere(active)).equations
    except QhullError:
        raise bad("no_sector", "what moves lies on one line") from None


def _within(lines: NDArray[np.float64], shape: tuple[int, int], step: int) -> NDArray[np.bool_]:
    y, x = (np.arange(size, dtype=np.float32) / step for size in shape)
    inside = np.ones(shape, dtype=bool)
    for down, across, offset in lines.astype(np.float32):
        inside &= down * y[:, None] + (across * x + offset) <= 0.5
    return inside


def fit_video(video: Video, fit: ClipFit) -> tuple[NDArray[np.uint8], dict[str, Any], list[Issue]]:
    """Masks, cuts, scales and colours the frames of a video, and brings them to a rate.

    All but the sector becomes black. The sector's box is kept square, in mm where the pixels are
    not, with black beside it; every pixel that comes out is the mean of the area that it covers, or
    lies on straight lines between pixels where they are too few.

    Args:
        video: As read.
        fit: What is wanted.

    Returns:
        ``(F, C, S, S)`` uint8; facts for the manifest; what was noticed.

    Raises:
        BadRecord: no_sector, mixed_rates, size_limit.
    """
    issues: list[Issue] = []
    height, width = video.pixels.shape[1:3]
    if fit.mask == "sector":
        sector = find_sector(video.pixels, video.region)
        mask = sector.mask
        if not sector.fan:
            text = "no fan fits what moves; its convex hull was kept: look at it"
            issues.append(Issue("sector_unsure", "warning", message=text))
    else:
        mask = np.ones((height, width), dtype=bool)
    issues += _colours(video.pixels, mask, fit.grey)
    shown, noticed = _shown_at(video, fit.fps)
    issues += noticed
    _expect_fitting(max(len(video.pixels), 0 if shown is None else len(shown)), fit)
    down, across = video.spacing_mm or (1.0, 1.0)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max((bottom - top) * down, (right - left) * across)  # mm, or pixels
    tall, wide = side / down, side / across
    vertical = _weights((top + bottom - tall) / 2 - top, tall, fit.size, bottom - top)
    horizontal = _weights((left + right - wide) / 2 - left, wide, fit.size, right - left)
    kept = mask[top:bottom, left:right, None]
    # colours stand beside each other in a row: what joins columns joins them too
    of_a_pixel = np.eye(video.pixels.shape[3], dtype=np.float32)
    if fit.grey and len(of_a_pixel) == 3:
        of_a_pixel = LUMA[None]
    joined = [np.kron(horizontal, colour).T for colour in of_a_pixel]
    frames = np.empty((len(video.pixels), *fit.shape), dtype=np.uint8)
    for frame, out in zip(video.pixels[:, top:bottom, left:right], frames, strict=True):
        part = (frame * kept).reshape(len(frame), -1).astype(np.float32)
        rows_done = vertical @ part
        for channel, columns_of in enumerate(joined):
            out[channel] = np.clip(np.floor(rows_done @ columns_of + 0.5), 0, 255)
        out[len(joined) :] = out[0]  # grey where colours are asked for
    facts = {
        "patient_id": video.patient_id,
        "study_id": video.study_id,
        "view": video.view,
        "fps": fit.fps if fit.fps and video.fps else video.fps,
        "spacing_mm": side / fit.size if video.spacing_mm else float("nan"),
        "height_source": height,
        "width_source": width,
        "frames_source": len(video.pixels),
        "form_source": video.form,
        "source_sha256": video.source_sha256,
    }
    return frames[shown] if shown is not None else frames, facts, issues


def _expect_fitting(count: int, fit: ClipFit) -> None:
    """Frames may grow, and a store takes only so many."""
    size = count * prod(fit.shape)
    if size > MOST_BYTES or count >= MOST_FRAMES:
        side = fit.size
        text = (
            f"{count} frames of {side} x {side} pixels would be {size} bytes, {MOST_BYTES} of "
            f"fewer than {MOST_FRAMES} frames are stored: cut it into shorter videos"
        )
        raise bad("size_limit", text, count=size, total=MOST_BYTES)


def _weights(begin: float, length: float, count: int, size: int) -> NDArray[np.float32]:
    """``(count, size)``: how much of each pixel goes into each of those that come out.

    They cover ``[begin, begin + length)`` of ``[0, size)``; beyond it is black.
    """
    edges = begin + np.arange(count + 1) * (length / count)
    pixels = np.arange(size)
    if length >= count:  # the share of the area
        upper = np.minimum(edges[1:, None], pixels + 1)
        lower = np.maximum(edges[:-1, None], pixels)
        return (np.maximum(upper - lower, 0) * (count / length)).astype(np.float32)
    centres = (edges[:-1] + edges[1:]) / 2 - 0.5
    return np.maximum(1 - np.abs(centres[:, None] - pixels), 0).astype(np.float32)


def _shown_at(video: Video, fps: float) -> tuple[NDArray[np.int64] | None, list[Issue]]:
    """The frame that is nearest in time, for each moment of another rate."""
    if not fps:
        return None, []
    if not video.fps:
        text = f"its rate is unknown, {fps:g} frames/s are asked for; --policy fps_unknown=keep"
        return None, [Issue("fps_unknown", "error", message=text)]
    count = len(video.pixels)
    seconds = np.arange(count) / video.fps if video.seconds is None else video.seconds
    wanted = int(seconds[-1] * fps + 1e-6) + 1
    if wanted > min(MOST_FRAMES, REPEATED * (count + fps)):
        text = f"{count} frames last {seconds[-1]:.4g} s: {wanted} frames at {fps:g}/s"
        raise bad("mixed_rates", text, count=wanted, total=count)
    moments = np.arange(wanted) / fps
    after = np.clip(np.searchsorted(seconds, moments), 1, count - 1)
    nearer = moments - seconds[after - 1] <= seconds[after] - moments
    issues = []
    if video.fps < fps * (1 - RATE_WITHIN):
        text = f"{video.fps:.4g} frames/s, {fps:g} are asked for: some are shown more than once"
        issues.append(Issue("low_frame_rate", "warning", "", count, wanted, text))
    return np.where(nearer, after - 1, after), issues


def _colours(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], grey: bool) -> list[Issue]:
    """Blood flow has colours that its brightness does not explain; a tint has not."""
    if pixels.shape[3] == 1:
        return []
    step = max(1, -(-max(mask.shape) // LOOK))
    frames = np.unique(np.linspace(0, len(pixels) - 1, 12).astype(int))
    inside = pixels[frames, ::step, ::step].astype(np.int16)[:, mask[::step, ::step]]
    level = (inside @ LUMA).astype(np.int64) // 8
    chroma = np.stack([inside[..., 0] - inside[..., 1], inside[..., 2] - inside[..., 1]])
    away = np.zeros(level.shape, dtype=bool)
    for one in np.unique(level):
        here = level == one
        usual = np.median(chroma[:, here], axis=1)
        away[here] = (np.abs(chroma[:, here] - usual[:, None]) > COLOURED).any(axis=0)
    away &= chroma.std(axis=1).max(axis=0) > COLOURED / 4  # a mark stands still
    share = float(away.mean())
    if share < LEAST_COLOUR:
        return []
    text = f"{100 * share:.2g} % of the sector's pixels show flow in colours"
    text += "; grey is asked for: --policy colour_doppler=keep" if grey else ""
    severity = "error" if grey else "warning"
    return [Issue("colour_doppler", severity, "", int(away.sum()), away.size, text)]  # type: ignore[arg-type]
