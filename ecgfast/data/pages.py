"""Pages as files: pictures that were drawn, for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecgfast.data.records import DataError

WRITES = {".png": "PNG", ".pdf": "PDF", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}


def write_page(path: str | Path, pixels: NDArray[np.uint8], *, dpi: float) -> None:
    """Writes a picture ``(C, H, W)``, 1 or 3 channels, in the form that its name ends in.

    The file is whole or not there at all.

    Raises:
        DataError: The name ends in no known form, or the folder cannot be written to.
    """
    path = Path(path)
    form = WRITES.get(path.suffix.lower())
    if form is None:
        known = ", ".join(WRITES)
        raise DataError(f"error[page_format] {path} must end in one of {known}")
    rows = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    image = Image.fromarray(np.ascontiguousarray(rows))
    unfinished = path.with_name(f".{path.name}.unfinished")
    words = {"resolution": dpi} if form == "PDF" else {"dpi": (dpi, dpi)}
    try:
        image.save(unfinished, format=form, **({"quality": 92} if form == "JPEG" else {}), **words)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise DataError(f"error[page_write] {path} cannot be written: {error}") from error
