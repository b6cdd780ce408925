"""SYNTHETIC videos for tests, small and quick: stores of noise, and files of moving fans."""

from __future__ import annotations

import numpy as np

from ecgfast.config.clips import ClipFit
from ecgfast.data.clip_store import ClipStore, ClipWriter

FIT = ClipFit(size=16)


def video(number, frames=9, shape=FIT.shape):
    """Noise, of which frame f of video v begins with the numbers v and f."""
    made = np.random.default_rng([7, number]).integers(0, 256, (frames, *shape), dtype=np.uint8)
    made[:, :, 0, 0], made[:, :, 0, 1] = number, np.arange(frames)[:, None]
    return made


def clip_store(path, lengths, fit=FIT, *, first=0, **words):
    """A store of such videos: two a study, two studies a patient, a label by patient."""
    writer = ClipWriter(path, fit, **words)
    for n, frames in enumerate(lengths, first):
        writer.add(
            video(n, frames, fit.shape),
            record_id=f"v{n}",
            patient_id=f"p{n // 4}",
            study_id=f"s{n // 2}",
            labels={"lvh": n // 4 % 2},
            fps=50.0,
        )
    writer.close()
    return ClipStore.open(path)


def loop(number, frames=12, shape=(96, 128)):
    """SYNTHETIC ``(F, H, W)`` uint8: speckle that moves in a fan; a name above it stands still."""
    draws = np.random.default_rng([11, number])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    across, down = x - shape[1] / 2, y - 12
    radius, angle = np.hypot(across, down), np.arctan2(across, down)
    fan = (radius > 4) & (radius < 0.8 * shape[0]) & (np.abs(angle) < 0.7)
    made = draws.integers(30, 250, (frames, *shape)) * fan
    made[:, :6, :40] = 255 * (draws.random((6, 40)) < 0.5)
    return made.astype(np.uint8)


def write_avi(path, pixels, fps=50):
    """Motion JPEG, as EchoNet's films are."""
    import av

    with av.open(str(path), "w", format="avi") as film:
        stream = film.add_stream("mjpeg", rate=fps)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        for frame in pixels:
            picture = av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, 2), format="rgb24")
            film.mux(stream.encode(picture))
        film.mux(stream.encode())


def write_dicom(path, pixels, *, patient="", study="", fps=40.0):
    """An uncompressed multi-frame ultrasound file."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    head = pydicom.Dataset()
    head.file_meta = FileMetaDataset()
    head.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head.file_meta.MediaStorageSOPClassUID = head.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    head.file_meta.MediaStorageSOPInstanceUID = head.SOPInstanceUID = generate_uid()
    head.Modality, head.PatientName, head.PatientID = "US", "DOE^JANE", patient
    head.StudyInstanceUID = study
    head.NumberOfFrames, head.Rows, head.Columns = pixels.shape
    head.FrameTime = str(1000 / fps)
    head.SamplesPerPixel, head.PhotometricInterpretation = 1, "MONOCHROME2"
    head.BitsAllocated, head.BitsStored, head.HighBit, head.PixelRepresentation = 8, 8, 7, 0
    head.PixelData = pixels.tobytes()
    head.save_as(path, enforce_file_format=True)
