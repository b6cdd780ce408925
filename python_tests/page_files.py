"""Pictures of ECGs as files, good and bad, made for tests."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from ecgfast.data.synthetic import make_cohort
from ecgfast.models.heads import Head
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.ops import rasterize_ecg
from ecgfast.train.checkpoint import save_encoder
from ecgfast.train.contract import Contract, Records
from python_tests.small_run import HEAD, SIGNAL


def drawn(count=1, *, seed=1, size=(170, 220), channels=3):
    """Pages ``(N, H, W, C)`` uint8 of SYNTHETIC records."""
    ecg, _ = make_cohort(count, signal=SIGNAL, seed=seed)
    pages = rasterize_ecg(torch.from_numpy(ecg[:count]), fs=SIGNAL.fs, size=size, channels=channels)
    return pages.images.permute(0, 2, 3, 1).numpy()


def encoded(pixels, form="PNG", **how) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.squeeze(pixels))
    image.save(file, format=form, **how)
    return file.getvalue()


def pdf(objects, trailer="") -> bytes:
    """A PDF of these objects, the first of them the catalogue."""
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\n"
    return out + f"{end}startxref\n{len(out)}\n%%EOF\n".encode()


def pdf_pages(count=1, box=(0, 0, 220, 170)) -> bytes:
    """Each page has one black square, the farther to the right the later its page."""
    first = 3
    kids = " ".join(f"{first + 2 * n} 0 R" for n in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
    ]
    media = " ".join(map(str, box))
    for n in range(count):
        ink = f"0 0 0 rg {20 + 40 * n} 60 30 30 re f".encode()
        content = first + 2 * n + 1
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [{media}] /Contents {content} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(ink), ink))
    return pdf(objects)


def make_page_run(path, task="classification", *, seed=0, pages=None, size=64, grey=False, **told):
    """Writes a run whose encoder sees pages; without a task it has no head."""
    torch.manual_seed(seed)
    words = {"num_leads": 12, "leads": ",".join(SIGNAL.leads), "fs": SIGNAL.fs}
    words |= {"net": "efficientnet-b0", "size": size, "grey": grey, "embedding_dim": 16}
    words |= {"layout": "3x4+1", "momentum": 0.5}  # batch norms that follow in a few steps
    encoder, head = PageEncoder(**words), Head(**HEAD)
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:  # as if it had seen data: without, all pages would be alike to it
        norm.momentum = 1.0
    with torch.no_grad():
        encoder(torch.from_numpy(drawn(8, size=(size, size))).permute(0, 3, 1, 2).contiguous())
    about = {"kind": task, "label": "mi", "threshold": None, "mean": 0.5, "sd": 0.5}
    about |= {"dropout_at_test": False, **told}
    contract = Contract(
        signal=SIGNAL,
        model={"class": "PageEncoder", "arguments": words},
        head={"class": "Head", "arguments": HEAD} if task else None,
        task=about if task else None,
        synthetic=True,
        trained_on=Records.of(["a"]),
        pages=pages,
    )
    path.mkdir(parents=True)
    save_encoder(path, encoder.state_dict(), contract, head.state_dict() if task else None)
    return path
