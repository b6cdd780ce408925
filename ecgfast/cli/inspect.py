"""Say what a file is: leads, rate, units, length, problems."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ecgfast.cli.convert import reading, reading_options, report
from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser


def options(parser: Parser) -> None:
    """What to look at, and how to read it."""
    parser.add_argument("path", help="a record (.hea, .mat, .txt, .csv), a folder, or a store")
    parser.add_argument("--limit", type=int, default=1000, help="records of a folder to read")
    reading_options(parser)


def run(words: Namespace) -> None:
    """Prints one record in full, or a summary of a folder or store."""
    from ecgfast.data.records import DataError
    from ecgfast.data.sources import find, read

    path = Path(words.path)
    if path.suffix == "" and not path.exists() and path.with_suffix(".hea").exists():
        path = path.with_suffix(".hea")  # a record is often named without its suffix
    if not path.exists():
        raise Fail(3, f"error[no_source] there is no {path}")
    if (path / "store.json").is_file():
        report(str(path), _records(path))
        return
    how = reading(words)
    items = find([path], how)
    if path.is_file() and len(items) == 1:
        _, ecg = next(iter(read(items, how)))
        if isinstance(ecg, Exception):
            raise DataError(str(ecg))
        _one(path, ecg)
        return
    _many(path, items, islice(read(items, how), words.limit), words.limit)


def _records(path: Path) -> int:
    import json

    return int(json.loads((path / "store.json").read_text())["made_by"].get("records", 0))


def _one(path: Path, ecg: Any) -> None:
    import numpy as np

    from ecgfast.data.checks import check

    samples = ecg.signal.shape[1]
    print(f"record   {path}")
    print(
        f"signal   {len(ecg.leads)} leads x {samples} samples at {ecg.fs:g} Hz = "
        f"{ecg.seconds:g} s, in mV"
    )
    if path.suffix == ".hea":
        _header(path)
    for name, value in ecg.labels.items():
        print(f"label    {name}: {value[:100]}")
    print(f"\n  {'lead':<12}{'lowest':>10}{'median':>10}{'highest':>10}{'missing':>10}")
    for name, lead in zip(ecg.leads, ecg.signal, strict=True):
        known = lead[np.isfinite(lead)]
        low, mid, high = np.quantile(known, [0, 0.5, 1]) if len(known) else [np.nan] * 3
        missing = samples - len(known)
        print(f"  {name[:12]:<12}{low:>10.3f}{mid:>10.3f}{high:>10.3f}{missing:>10}")
    issues = [*ecg.issues, *check(ecg, _expected(ecg))]
    print(f"\nissues   {len(issues) or 'none'}")
    for issue in issues:
        print(f"  {issue.line()}")


def _expected(ecg: Any) -> tuple[str, ...]:
    from ecgfast.config import LEADS

    return LEADS if set(ecg.leads) & set(LEADS) else tuple(ecg.leads)


def _header(path: Path) -> None:
    from ecgfast.data.wfdb_header import read_header

    header = read_header(path)
    if header.segments:
        print(f"header   {len(header.segments)} segments")
    files = Counter((s.file, s.fmt) for s in header.signals)
    for (name, fmt), count in files.items():
        scales = sorted({f"{s.gain:g}/{s.units}" for s in header.signals if s.file == name})
        print(f"header   {name}: {count} signals, format {fmt}, gain {', '.join(scales)}")


def _many(path: Path, items: list[Any], results: Any, limit: int) -> None:
    from ecgfast.data.checks import MEANING, check
    from ecgfast.data.records import BadRecord

    counts: dict[str, Counter[str]] = {name: Counter() for name in ("leads", "rate", "length")}
    issues: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    first: dict[str, str] = {}
    unread = 0
    for item, ecg in results:
        if isinstance(ecg, BadRecord):
            unread += 1
            found = [ecg.issue]
        else:
            counts["leads"][" ".join(ecg.leads)] += 1
            counts["rate"][f"{ecg.fs:g} Hz"] += 1
            counts["length"][f"{ecg.seconds:.4g} s"] += 1
            labels.update(ecg.labels.keys())
            found = [*ecg.issues, *check(ecg, _expected(ecg))]
        for name in {issue.name for issue in found}:
            issues[name] += 1
            first.setdefault(name, item.record_id)
    read = min(limit, len(items))
    print(f"folder   {path}: {len(items)} records")
    print(f"read     {read - unread} of {read}" + (" (--limit N)" if read < len(items) else ""))
    for name, values in counts.items():
        for value, count in values.most_common(6):
            print(f"{name:<8} {count:>7}  {value}")
        if len(values) > 6:
            print(f"{'':<8} {values.total():>7}  in all, of {len(values)} kinds")
    if labels:
        listed = ", ".join(f"{name} ({count})" for name, count in labels.most_common(12))
        print(f"labels   {listed}")
    print(f"issues   {'of these records:' if issues else 'none'}")
    for name, count in issues.most_common():
        print(f"  {count:>7}  {name:<18} {MEANING.get(name, '')} (first: {first[name]})")
    print(f"next     ecgfast convert {path} STORE")
