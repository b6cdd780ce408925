"""Make a folder or an ONNX file of a run, to be used elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser


def options(parser: Parser) -> None:
    """What to make, and where."""
    parser.add_argument("run", type=str, help="folder of a run, with a head or without")
    parser.add_argument(
        "--to",
        type=Literal["safetensors", "onnx"],
        default="safetensors",
        help="a folder for `ecgfast` and ecgfast.load, or model.onnx for other runtimes",
    )
    parser.add_argument("--out", type=str, required=True, help="folder to be made")
    parser.add_argument(
        "--store",
        type=str,
        nargs="*",
        default=[],
        help="records that the ONNX file is compared with torch on; none takes SYNTHETIC ones",
    )


def run(words: Namespace) -> None:
    """Writes it; an ONNX file that does not say what torch says leaves with 1."""
    out = Path(words.out)
    if out.exists() and not out.is_dir():
        raise Fail(2, f"error: --out {out} is a file")
    if out.exists() and out.resolve() == Path(words.run).resolve():
        raise Fail(2, f"error: --out {out} is the run itself")
    from ecgfast.systems import export
    from ecgfast.systems.model import load
    from ecgfast.systems.parts import describe

    if words.to == "onnx":
        import onnxruntime  # noqa: F401  before any work: it may not be there
        import onnxscript  # noqa: F401
    model = load(words.run)
    if words.to == "onnx":
        export.refuse_pictures(model)
    names = export.export_folder(model, out)
    print(f"wrote    {out}/{{{','.join(names)}}}")
    print(f'next     model = ecgfast.load("{out}"); model(ecg)["embedding"]')
    if words.to == "onnx":
        ecg, synthetic = export.examples(model, list(words.store))
        path = export.export_onnx(model, out)
        found = export.parity(model, export.runtime(path), ecg)
        found |= {"opset": export.OPSET, "synthetic": synthetic, "stores": list(words.store)}
        (out / export.PARITY).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"wrote    {path} (opset {export.OPSET}; any number of records at a time)")
        print(
            f"input    prepared signals, 0 where nothing was recorded: {describe(model.contract)}"
        )
        for row in found["outputs"]:
            print(
                f"parity   {row['output']}: at most {row['from_torch']:.2e} from torch, "
                f"{row['from_float64']:.2e} from float64, where torch itself is "
                f"{row['torch_from_float64']:.2e} off; allowed {row['bound']:.2e} "
                f"({found['records']} {'SYNTHETIC ' if synthetic else ''}records)"
            )
        if model.task.get("dropout_at_test"):
            print("note     this run's dropout stays on at test (B7); the ONNX file has none")
        if not found["ok"]:
            raise Fail(1, f"error[parity] {path} does not say what torch says; see {export.PARITY}")
    print("use      for research only; card.md says on what it was trained")
