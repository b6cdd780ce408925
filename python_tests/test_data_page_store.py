"""From pictures to a store of pages, and what is trained on from there."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ecgfast.config import Signal
from ecgfast.data import split
from ecgfast.data.checks import parse_policy
from ecgfast.data.dataset import PageRecords
from ecgfast.data.images import ImageReading, find_images, read_image
from ecgfast.data.page_convert import PagePlan, convert_pages
from ecgfast.data.page_fit import PageFit, fit_page
from ecgfast.data.page_store import PageStore, PageWriter
from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.data.store import ECGStore, StoreWriter
from ecgfast.data.stores import open_store
from python_tests.conftest import shared_data
from python_tests.page_files import drawn, encoded

FIT = PageFit(height=40, width=48)
KEEP = parse_policy(["duplicate_image=keep"])


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: a page is a big tensor."""


@pytest.fixture
def scans(tmp_path):
    """Ten pictures of five patients, a copy of two of them under other names, and two bad ones."""
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    for number, page in enumerate(drawn(10)):
        (folder / f"s{number}.png").write_bytes(encoded(page))
    copy = (folder / "s3.png").read_bytes()
    (folder / "more" / "copy.png").write_bytes(copy)
    (folder / "more" / "other.tif").write_bytes(encoded(drawn(10)[7], "TIFF"))
    (folder / "broken.jpg").write_bytes(encoded(drawn(1)[0], "JPEG")[:900])
    (folder / "empty.png").write_bytes(b"")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["record_id", "patient_id", "mi", "width_source"])
        for number in range(10):
            writer.writerow([f"s{number}", f"p{number // 2}", number % 2, "mine"])
        writer.writerow(["copy", "p9", 1, ""])
    return folder


def converted(scans, **words):
    policy = words.pop("policy", {})
    words = {"labels": scans.parent / "labels.csv", "workers": 0, **words}
    store = scans.parent / "store"
    return convert_pages([scans], store, PagePlan(fit=FIT, policy=policy), **words), store


def test_every_picture_is_stored_or_rejected_with_its_reason(scans):
    outcome, path = converted(scans)
    store = PageStore.open(path)
    assert outcome.total == 14
    assert store.manifest["record_id"].tolist() == [f"s{number}" for number in range(10)]
    rejected = pd.read_csv(path / "rejected.csv").set_index("record_id")
    assert rejected["issue"].to_dict() == {
        "broken": "unreadable",
        "empty": "empty_file",
        "copy": "duplicate_image",
        "other": "duplicate_image",
    }
    assert "pixel for pixel the same as s3" in rejected["message"]["copy"]
    for index, row in store.manifest.iterrows():
        page = read_image(scans.parent, row["source"], ImageReading())
        expected, _ = fit_page(page, FIT)
        np.testing.assert_array_equal(store.pixels(index), expected)
        assert row["source_sha256"] == page.source_sha256
        assert (row["height_source"], row["width_source"]) == (170, 220)
    assert not (path / ".unfinished").exists()


def test_labels_come_from_a_table(scans):
    _, path = converted(scans, policy=KEEP)
    table = PageStore.open(path).manifest.set_index("record_id")
    assert table["mi"].drop("other").to_dict() == {
        **{f"s{number}": number % 2 for number in range(10)},
        "copy": 1,
    }
    assert np.isnan(table["mi"]["other"])
    assert table["patient_id"]["s4"] == "p2"
    assert table["label_width_source"]["s4"] == "mine"  # the manifest's own name stays its own


def test_copies_that_are_kept_are_in_one_part(scans):
    """p1 has s3, whose copy is said to be of p9; s7 is of p3, and nobody knows of its copy."""
    _, path = converted(scans, policy=KEEP)
    manifest = PageStore.open(path).manifest
    assert len(manifest) == 12
    flagged = manifest.set_index("record_id")["flags"]
    assert {name for name, flags in flagged.items() if flags} == {"copy", "other"}
    parts = set()
    for seed in range(8):
        chosen = split.by_random(manifest, fractions=(0.4, 0.3, 0.3), seed=seed)
        split.check_leaks(manifest.assign(split=chosen))  # refuses patients and copies
        at = dict(zip(manifest["record_id"], chosen, strict=True))
        assert at["s3"] == at["s2"] == at["copy"]
        assert at["s7"] == at["s6"] == at["other"]
        parts.add((at["s3"], at["s7"]))
    assert len(parts) > 3  # and they are drawn like the others


def test_a_split_without_copies_is_what_it_was(scans):
    _, path = converted(scans)
    manifest = PageStore.open(path).manifest
    alone = manifest.assign(sha256=[str(n) for n in range(len(manifest))])
    assert split.by_random(manifest).tolist() == split.by_random(alone).tolist()


def test_it_goes_on_where_it_was(scans, monkeypatch):
    whole, path = converted(scans, shard_records=3)
    kept = {file.name: file.read_bytes() for file in path.glob("pages-*.npy")}
    assert len(kept) == 4
    for file in path.iterdir():
        file.unlink()

    def stopped(results, begun, total):
        for number, ready in enumerate(results):
            if number == 8:
                raise KeyboardInterrupt
            yield ready

    with pytest.raises(KeyboardInterrupt):
        converted(scans, shard_records=3, progress=stopped)
    with pytest.raises(DataError, match="unfinished_store"):
        open_store(path)
    again, _ = converted(scans, shard_records=3)
    assert again.resumed_at > 0
    assert {file.name: file.read_bytes() for file in path.glob("pages-*.npy")} == kept
    pd.testing.assert_frame_equal(again.manifest, whole.manifest)
    assert converted(scans, shard_records=3)[0].was_finished
    with pytest.raises(DataError, match="store_exists"):
        convert_pages([scans], path, PagePlan(fit=PageFit(height=40, width=40)))


def test_other_processes_read_the_same(scans, monkeypatch):
    for number, page in enumerate(drawn(18, seed=2, size=(60, 64))):  # fewer are read here
        (scans / f"e{number}.png").write_bytes(encoded(page))
    here, _ = converted(scans)
    monkeypatch.setattr(PagePlan, "_one", None)  # whoever reads here now fails
    there, _ = converted(scans, workers=2, overwrite=True)
    assert len(there.manifest) == 28
    pd.testing.assert_frame_equal(here.manifest, there.manifest)


def test_a_source_of_pages(scans):
    _, path = converted(scans)
    source = open_source([str(path)], ("all",), signal=Signal(), patients=1, label="mi")
    assert source.pages == {f"store {path}": FIT}
    assert not source.signals
    assert len(source) == 10
    batch = source.dataset.batch([0, 5])
    assert batch["ecg"].dtype == torch.uint8
    assert batch["ecg"].shape == (2, 3, 40, 48)
    assert "gain" not in batch
    assert batch["label"].tolist() == source.labels()[[0, 5]].tolist()
    store = PageStore.open(path)
    row = store.manifest.index[store.manifest["record_id"] == source.names([5])[0]][0]
    np.testing.assert_array_equal(batch["ecg"][1].numpy(), store.pixels(row))
    one = source.dataset[5]
    assert torch.equal(one["ecg"], batch["ecg"][1])
    assert one["patient"] == batch["patient"][1]


def test_signals_and_pages_are_not_mixed(scans, tmp_path):
    _, path = converted(scans)
    other = tmp_path / "signals"
    writer = StoreWriter(other, Signal(seconds=1.0))
    writer.add(np.random.default_rng(0).normal(size=(12, 250)), record_id="a")
    writer.close()
    assert isinstance(open_store(other), ECGStore)
    with pytest.raises(DataError, match="mixed_stores"):
        open_source([str(path), str(other)], ("all",), signal=Signal(), patients=1)
    with pytest.raises(DataError, match="holds pages, not signals"):
        ECGStore.open(path)
    with pytest.raises(DataError, match="holds signals, not pages"):
        PageStore.open(other)


def test_stores_of_pages_that_differ_are_not_joined(scans, tmp_path):
    _, path = converted(scans)
    writer = PageWriter(tmp_path / "b", PageFit(height=40, width=48, aspect="stretch"))
    writer.add(np.zeros(FIT.shape, np.uint8), record_id="z")
    writer.close()
    with pytest.raises(DataError, match="aspect"):
        open_source([str(path), str(tmp_path / "b")], ("all",), signal=Signal(), patients=1)


@pytest.mark.parametrize(
    "change",
    [
        *({"height": "40"}, {"grey": 1}, {"crop": [0, 0, 1]}, {"crop": ["a"] * 4}),
        *({"width": True}, {"width": 10**9}, {"aspect": "cut"}, {"more": 1}),
    ],
    ids=str,
)
def test_a_store_json_is_not_believed(scans, change):
    _, path = converted(scans)
    about = json.loads((path / "store.json").read_text())
    about["contract"] |= change
    (path / "store.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="corrupt_store"):
        PageStore.open(path)


def test_damaged_shards_are_named(scans):
    _, path = converted(scans)
    shard = path / "pages-00000.npy"
    np.save(shard, np.zeros((10, 3, 40, 40), np.uint8))
    with pytest.raises(DataError, match=r"corrupt_store.*not \(N, 3, 40, 48\) uint8"):
        PageStore.open(path).pixels(0)
    with pytest.raises(ValueError, match="a page of this store"):
        PageWriter(path.parent / "w", FIT).add(np.zeros((3, 4, 4), np.uint8), record_id="a")


def test_a_shard_may_be_read_by_several(scans):
    _, path = converted(scans)
    store = PageStore.open(path)
    records = PageRecords(store, np.arange(len(store)))
    loader = torch.utils.data.DataLoader(records, batch_size=4, num_workers=2)
    loaded = torch.cat([batch["ecg"] for batch in loader])
    assert torch.equal(loaded, records.batch(range(len(store)))["ecg"])


def saved_again(pixels, *, size, quality):
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_a_picture_that_was_saved_again_is_known(scans):
    """Half as large, as a poor JPEG: other bytes and other pixels, the same ECG."""
    pages = drawn(10, size=(340, 440))
    for number, page in enumerate(pages):
        (scans / f"s{number}.png").write_bytes(encoded(page))
    (scans / "more" / "copy.png").unlink()
    (scans / "more" / "other.tif").unlink()
    (scans / "t4.jpg").write_bytes(saved_again(pages[4], size=(220, 170), quality=50))
    plan = PagePlan(fit=PageFit(height=150, width=150))
    path = scans.parent / "store"
    convert_pages([scans], path, plan, labels=scans.parent / "labels.csv", workers=0)
    manifest = PageStore.open(path).manifest.set_index("record_id", drop=False)
    assert manifest["copy_of"][manifest["copy_of"] != ""].to_dict() == {"t4": "s4"}
    assert manifest["flags"]["t4"] == "similar_image"
    assert (manifest["flags"].drop("t4") == "").all()
    noticed = pd.read_csv(path / "issues.csv")
    assert noticed[["record_id", "issue"]].to_numpy().tolist() == [["t4", "similar_image"]]
    table = manifest.reset_index(drop=True)
    for seed in range(6):
        chosen = split.by_random(table, fractions=(0.4, 0.3, 0.3), seed=seed)
        split.check_leaks(table.assign(split=chosen))
        at = dict(zip(table["record_id"], chosen, strict=True))
        assert at["t4"] == at["s4"]
    apart = np.where(table["record_id"] == "t4", "test", "train")
    with pytest.raises(DataError, match=r"split_leak.* 1 pictures are in both test and train"):
        split.check_leaks(table.assign(split=apart))


def test_what_is_known_at_the_end_alone_cannot_reject(scans):
    policy = parse_policy(["similar_image=reject"])
    with pytest.raises(DataError, match="similar_image cannot reject"):
        converted(scans, policy=policy)
    assert not (scans.parent / "store").exists()


def test_real_scans_are_sixteen_pictures_and_their_copies_are_known(tmp_path):
    folder = shared_data("ecg-images")
    plan = PagePlan(fit=PageFit(height=300, width=300, crop="auto"))
    sources = [folder]
    for number, item in enumerate(find_images([folder])[::5]):
        page = read_image(folder, item.path, ImageReading()).pixels
        (tmp_path / "again").mkdir(exist_ok=True)
        raw = saved_again(page, size=(1100, 781), quality=60)
        (tmp_path / "again" / f"z{number}.jpg").write_bytes(raw)
    sources.append(tmp_path / "again")
    convert_pages(sources, tmp_path / "store", plan, workers=0)
    manifest = PageStore.open(tmp_path / "store").manifest
    assert len(manifest) == 20
    found = manifest["copy_of"][manifest["copy_of"] != ""]
    names = [item.record_id for item in find_images([folder])[::5]]
    assert found.tolist() == names
    assert manifest["record_id"][found.index].tolist() == ["z0", "z1", "z2", "z3"]
