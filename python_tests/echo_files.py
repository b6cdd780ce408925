"""SYNTHETIC echo loops with all that machines write around them, and files of them, for tests."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

STAND_IN = "1.2.840.10008.1.2.4.201"  # for syntaxes that pydicom does not write


def fan_mask(shape, apex, half, near, far, tilt=0.0):
    """``(H, W)`` bool: between two radii and two angles from straight down."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    across, down = x - apex[1], y - apex[0]
    radius, angle = np.hypot(across, down), np.arctan2(across, down)
    return (radius >= near) & (radius <= far) & (np.abs(angle - tilt) <= half)


def made_loop(
    frames=12,
    shape=(240, 320),
    *,
    half=0.65,
    near=4.0,
    apex=None,
    depth=0.86,
    strip="sweep",
    text=True,
    dark=True,
    flow=False,
    tint=False,
    seed=0,
):
    """SYNTHETIC ``(F, H, W, 3)`` uint8 and its true sector ``(H, W)``.

    Speckle that moves, two dark chambers that do not, a far corner without signal; around it names,
    a ruler, a colour bar, buttons, and an ECG whose trace moves.
    """
    draws = np.random.default_rng(seed)
    height, width = shape
    far = depth * height if apex is None else depth * height - apex[0] + 0.04 * height
    apex = (0.04 * height, 0.5 * width) if apex is None else apex
    mask = fan_mask(shape, apex, half, near, far)
    y, x = np.mgrid[:height, :width].astype(float)
    still = draws.rayleigh(40, shape)
    scale = height / 240
    speckle = [ndimage.gaussian_filter(draws.rayleigh(60, shape), 1.2 * scale) for _ in range(3)]
    bright = 0.35 + 0.65 * np.exp(-(((x - 0.5 * width) / (0.25 * width)) ** 2))
    holes = np.ones(shape)
    for down, across, size in ((0.45, 0.46, 0.08), (0.62, 0.55, 0.07)):
        holes[np.hypot(y - down * height, x - across * width) < size * height] = 0.02
    if dark:
        holes[(x < 0.36 * width) & (y > 0.52 * height) & (y < 0.62 * height)] = 0.0
    canvas = _written(shape, text)
    out = np.empty((frames, height, width, 3), dtype=np.uint8)
    for frame in range(frames):
        beat = 2 * np.pi * frame / max(frames, 8)
        mix = speckle[0] + np.sin(beat) * (speckle[1] - 60) + np.cos(beat) * (speckle[2] - 60)
        level = np.clip((0.2 * still + mix) * bright * holes, 0, 255) * mask
        picture = np.repeat(level[..., None], 3, axis=2)
        if tint:
            picture *= np.array([1.0, 0.85, 0.6])
        if flow:
            jet = mask & (np.hypot(y - 0.5 * height, x - 0.5 * width) < 0.09 * height)
            picture[jet & (np.sin(y / 3 + beat) > 0)] = (210, 30, 20)
            picture[jet & (np.sin(y / 3 + beat) <= 0)] = (20, 40, 220)
        picture = np.where(canvas > 0, canvas, picture)
        _strip(picture, strip, frame, frames)
        out[frame] = np.clip(picture, 0, 255)
    return out, mask


def _written(shape, text):
    height, width = shape
    image = Image.new("RGB", (width, height))
    if text:
        pen = ImageDraw.Draw(image)
        size = max(8, height // 22)
        for line, words in enumerate(("DOE, JANE", "ID 123456", "01.02.1960", "MI 1.1 TIS 0.7")):
            pen.text((4, 4 + line * (size + 2)), words, fill=(230, 230, 230), font_size=size)
        pen.text((0.8 * width, 4), "HOSPITAL", fill=(220, 220, 90), font_size=size)
        pen.text((0.82 * width, 0.75 * height), "58 HR", fill=(90, 220, 90), font_size=size)
        for tick in range(12):
            down = (0.05 + 0.07 * tick) * height
            pen.line((0.93 * width, down, 0.95 * width, down), fill=(200, 200, 200))
        for step in range(40):
            colour = (6 * step, 0, 240 - 6 * step)
            down = (0.15 + 0.008 * step) * height
            pen.rectangle((0.965 * width, down, 0.99 * width, down + 2), fill=colour)
    return np.asarray(image).astype(float)


def _strip(picture, kind, frame, frames):
    """The ECG below: a trace that a gap sweeps over, or one that runs through."""
    if kind == "none":
        return
    height, width = picture.shape[:2]
    x = np.arange(round(0.03 * width), round(0.6 * width))
    shift = frame * len(x) / frames if kind == "scroll" else 0
    phase = ((x - x[0] + shift) / len(x) * 4) % 1
    wave = np.exp(-(((phase - 0.4) / 0.02) ** 2)) + 0.2 * np.exp(-(((phase - 0.65) / 0.06) ** 2))
    y = np.round((0.96 - 0.07 * wave) * height).astype(int)
    if kind == "sweep":
        gap = round(frame / frames * len(x))
        keep = (np.arange(len(x)) < gap) | (np.arange(len(x)) > gap + 12)
        x, y = x[keep], y[keep]
    thick = max(1, height // 240)
    for off in range(thick):
        picture[np.minimum(y + off, height - 1), x] = (60, 250, 90)


def film(pixels, form="avi", *, fps=25, codec="mpeg4", pix_fmt="yuv420p", **options) -> bytes:
    """Frames ``(F, H, W, 3)`` as a film."""
    import av

    file = io.BytesIO()
    with av.open(file, mode="w", format=form) as out:
        stream = out.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], pix_fmt
        for frame in pixels:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


def gif(pixels, *, duration=40) -> bytes:
    file = io.BytesIO()
    first, *rest = (Image.fromarray(np.squeeze(frame)) for frame in pixels)
    first.save(file, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    return file.getvalue()


def npy(pixels) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def dicom(pixels, syntax="1.2.840.10008.1.2.1", *, frames=None, colour=None, coded=None, **header):
    """A multi-frame DICOM file of samples ``(F, H, W)`` or ``(F, H, W, 3)`` as they shall stand.

    Args:
        pixels: What stands in the file; of coded frames only the shape counts.
        syntax: UID of the transfer syntax.
        frames: How many frames the header claims.
        colour: Photometric interpretation.
        coded: The frames as they are coded, one after the other.
        header: More elements, by keyword.
    """
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    known = pydicom.uid.UID(syntax).name != syntax
    meta.TransferSyntaxUID = syntax if known else STAND_IN
    out = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    out.SOPClassUID, out.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.4"
    out.Modality, out.PatientID, out.PatientName = "US", "204", "DOE^JANE"
    out.StudyInstanceUID = "1.2.3"
    out.NumberOfFrames = len(pixels) if frames is None else frames
    out.Rows, out.Columns = pixels.shape[1:3]
    out.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    out.PhotometricInterpretation = colour or ("RGB" if pixels.ndim == 4 else "MONOCHROME2")
    if pixels.ndim == 4:
        out.PlanarConfiguration = 0
    out.BitsAllocated = 8 * pixels.dtype.itemsize
    out.BitsStored, out.HighBit = out.BitsAllocated, out.BitsAllocated - 1
    out.PixelRepresentation = int(pixels.dtype.kind == "i")
    out.FrameTime = 40
    for name, value in header.items():
        setattr(out, name, value)
    big = syntax == pydicom.uid.ExplicitVRBigEndian
    if coded is not None:
        out.PixelData = encapsulate(coded)
        out["PixelData"].VR = "OB"
    else:
        raw = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        out.PixelData = raw + bytes(len(raw) % 2)
        out["PixelData"].VR = "OW" if out.BitsAllocated > 8 or big else "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(
        file,
        out,
        implicit_vr=syntax == pydicom.uid.ImplicitVRLittleEndian,
        little_endian=not big,
        enforce_file_format=True,
    )
    raw = file.getvalue()
    return raw if known else raw.replace(STAND_IN.encode(), syntax.encode(), 1)
