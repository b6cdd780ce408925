"""Say what a file is: leads, rate, units, length, problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ecgfast.cli.convert import reading, reading_options
from ecgfast.cli.errors import Fail
from ecgfast.cli.parser import Parser

# a record's name, what is counted of it or None where it could not be read, and its issues
Found = tuple[str, dict[str, str] | None, Iterable[Any]]


def options(parser: Parser) -> None:
    """What to look at, and how to read it."""
    parser.add_argument(
        "path", help="a record (.hea, .mat, .txt, .csv), a video, a folder, or a store"
    )
    parser.add_argument("--limit", type=int, default=1000, help="records of a folder to read")
    reading_options(parser)


def run(words: Namespace) -> None:
    """Prints one record in full, or a summary of a folder or store."""
    from ecgfast.data.records import DataError
    from ecgfast.data.sources import find, read
    from ecgfast.data.videos import is_video

    path = Path(words.path)
    if path.suffix == "" and not path.exists() and path.with_suffix(".hea").exists():
        path = path.with_suffix(".hea")  # a record is often named without its suffix
    if not path.exists():
        raise Fail(3, f"error[no_source] there is no {path}")
    if (path / "store.json").is_file():
        report(str(path), _records(path))
        return
    if path.is_file() and is_video(path):
        _video(path)
        return
    how = reading(words)
    try:
        items = find([path], how)
    except DataError:
        if not path.is_dir() or not _films(path, words.limit):
            raise
        return
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


def _films(path: Path, limit: int) -> bool:
    """Prints a summary of a folder of videos; whether it is one."""
    from ecgfast.data.film import VideoReading
    from ecgfast.data.records import BadRecord, DataError
    from ecgfast.data.videos import find_videos, read_video

    try:
        items = find_videos([path])
    except DataError:
        return False

    def found() -> Iterator[Found]:
        for item in items[:limit]:
            try:
                video = read_video(Path(item.root), item.path, VideoReading())
            except BadRecord as error:
                yield item.record_id, None, [error.issue]
                continue
            frames, height, width, channels = video.pixels.shape
            facts = {
                "form": video.form,
                "size": f"{width} x {height} in {'grey' if channels == 1 else 'colour'}",
                "rate": f"{video.fps:.4g} frames/s" if video.fps else "unknown",
                "length": f"{frames} frames",
                "view": video.view or "unknown",
            }
            yield item.record_id, facts, video.issues

    _summary(path, "videos", len(items), limit, found())
    print(f"next     ecgfast convert --modality echo {path} STORE")
    return True


def _video(path: Path) -> None:
    from ecgfast.data.film import VideoReading
    from ecgfast.data.videos import read_video

    video = read_video(path.parent, path.name, VideoReading())
    frames, height, width, channels = video.pixels.shape
    colour = "grey" if channels == 1 else "colour"
    rate = f"{video.fps:.4g} frames/s" if video.fps else "rate unknown"
    print(f"video    {path}")
    print(
        f"frames   {video.form}, {frames} frames of {width} x {height} pixels in {colour}, {rate}"
    )
    if video.spacing_mm:
        down, across = video.spacing_mm
        print(f"pixel    {down:.4g} x {across:.4g} mm (down, across)")
    print(f"view     {video.view or 'unknown'}")
    known = [n for n, v in (("patient", video.patient_id), ("study", video.study_id)) if v]
    print(f"names    {' and '.join(known) or 'neither patient nor study'}")
    print(f"\nissues   {len(video.issues) or 'none'}")
    for issue in video.issues:
        print(f"  {issue.line()}")
    print(f"next     ecgfast convert --modality echo {path.parent} STORE")


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
    from ecgfast.data.checks import check
    from ecgfast.data.records import BadRecord

    labels: Counter[str] = Counter()

    def found() -> Iterator[Found]:
        for item, ecg in results:
            if isinstance(ecg, BadRecord):
                yield item.record_id, None, [ecg.issue]
                continue
            labels.update(ecg.labels.keys())
            facts = {
                "leads": " ".join(ecg.leads),
                "rate": f"{ecg.fs:g} Hz",
                "length": f"{ecg.seconds:.4g} s",
            }
            yield item.record_id, facts, [*ecg.issues, *check(ecg, _expected(ecg))]

    _summary(path, "records", len(items), limit, found(), labels)
    print(f"next     ecgfast convert {path} STORE")


def _summary(
    path: Path,
    what: str,
    total: int,
    limit: int,
    found: Iterable[Found],
    labels: Counter[str] | None = None,
) -> None:
    """Prints what the files of a folder have in common, and their issues."""
    from ecgfast.data.checks import MEANING

    counts: dict[str, Counter[str]] = {}
    issues: Counter[str] = Counter()
    first: dict[str, str] = {}
    unread = 0
    for record, facts, noticed in found:
        unread += facts is None
        for name, value in (facts or {}).items():
            counts.setdefault(name, Counter())[value] += 1
        for name in {issue.name for issue in noticed}:
            issues[name] += 1
            first.setdefault(name, record)
    read = min(limit, total)
    print(f"folder   {path}: {total} {what}")
    print(f"read     {read - unread} of {read}" + (" (--limit N)" if read < total else ""))
    for name, values in counts.items():
        for value, count in values.most_common(6):
            print(f"{name:<8} {count:>7}  {value}")
        if len(values) > 6:
            print(f"{'':<8} {values.total():>7}  in all, of {len(values)} kinds")
    if labels:
        listed = ", ".join(f"{name} ({count})" for name, count in labels.most_common(12))
        print(f"labels   {listed}")
    print(f"issues   {f'of these {what}:' if issues else 'none'}")
    for name, count in issues.most_common():
        print(f"  {count:>7}  {name:<18} {MEANING.get(name, '')} (first: {first[name]})")


def report(path: str, total: int) -> None:
    """Prints what is in a store, what is not, and why."""
    from ecgfast.data.clip_store import ClipStore
    from ecgfast.data.page_store import PageStore
    from ecgfast.data.stores import open_store

    store = open_store(path)
    what, more = "records", {"signals": _rates, "clips": _videos}.get(store.name)
    if isinstance(store, PageStore):
        what, shape = "pictures", store.fit.line()
    elif isinstance(store, ClipStore):
        what, shape = "videos", store.fit.line()
    else:
        signal = store.signal
        shape = f"{len(signal.leads)} leads x {signal.seconds:g} s at {signal.fs:g} Hz"
        if signal.stored_recipe:
            shape += f" after recipe {signal.stored_recipe}"
    size = sum(file.stat().st_size for file in store.path.glob(f"{store.name}-*.npy"))
    of = f" of {total}" if total else ""
    made = " SYNTHETIC" if store.synthetic else ""
    print(f"stored   {len(store)}{of}{made} {what}, {shape}: {path} ({size / 1e6:.0f} MB)")
    _issues(store)
    if more is not None and len(store):
        more(store)


def _rates(store: Any) -> None:
    fs, rates = store.signal.fs, store.manifest["fs_source"].value_counts()
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g} Hz ({count})" for rate, count in rates.items())
        print(f"rates    {listed}: all brought to {fs:g} Hz; --fs-source HZ allows one only")
    slow = int((store.manifest["fs_source"] < fs).sum())
    if slow:
        print(f"note     {slow} records came at less than {fs:g} Hz: nothing above their half")


def _videos(store: Any) -> None:
    from ecgfast.data.split import patients

    table, frames = store.manifest, store.lengths
    unknown = int((table["patient_id"] == "").sum())
    note = f" ({unknown} videos without a patient id)" if unknown else ""
    alone = int((table["study_id"] == "").sum())
    studies = table["study_id"][table["study_id"] != ""].nunique()
    others = f" (and {alone} videos without a study id)" if alone else ""
    print(f"patients {patients(table).nunique()}{note}")
    print(f"studies  {studies}{others}")
    low, mid, high = frames.min(), sorted(frames)[len(frames) // 2], frames.max()
    print(f"frames   {frames.sum()}; a video has {low} to {high}, {mid} in the middle")
    for title, column in (("rates", "fps"), ("views", "view"), ("forms", "form_source")):
        counts = Counter(
            (f"{v:.4g} frames/s" if v else "") if column == "fps" else str(v) for v in table[column]
        )
        listed = [f"{name or 'unknown'} ({count})" for name, count in counts.most_common(6)]
        more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
        print(f"{title:<8} {', '.join(listed)}{more}")


def _issues(store: Any) -> None:
    """Prints what is not in a store and why, and what was noticed about what is."""
    from ecgfast.data.checks import MEANING
    from ecgfast.data.validate import read_rejected

    path, manifest = store.path, store.manifest
    rejected = read_rejected(store)
    if len(rejected):
        records = rejected["record_id"].nunique()
        print(f"rejected {records} records; each with its numbers in {path}/rejected.csv")
        _table(rejected.drop_duplicates(["record_id", "issue"])["issue"], MEANING)
    flags = manifest["flags"][manifest["flags"] != ""].str.split(",").explode()
    if len(flags):
        flagged = int((manifest["flags"] != "").sum())
        print(f"flagged  {flagged} of the stored records; numbers in {path}/issues.csv")
        _table(flags, MEANING)


def _table(names: Any, meaning: dict[str, str]) -> None:
    for name, count in names.value_counts().items():
        print(f"  {count:>7}  {name:<18} {meaning.get(name, '')}")
