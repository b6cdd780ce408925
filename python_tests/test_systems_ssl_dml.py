"""SSL-DML's pools as whole runs: they go on bit for bit, read a graph, and stop on a collapse."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch

from ecgfast.cli import main
from ecgfast.config import Augment, Encoder, Fit, Optim, Signal, Store
from ecgfast.config.neighbours import Config as GraphConfig
from ecgfast.config.ssl_dml import Config
from ecgfast.data.neighbours import read_neighbours, write_neighbours
from ecgfast.data.records import DataError
from ecgfast.data.source import open_source
from ecgfast.data.synthetic import write_cohort
from ecgfast.systems import ssl_dml
from ecgfast.systems.neighbours import make
from ecgfast.train.contract import ContractError
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit
from ecgfast.train.watch import effective_rank, spread_of

SIGNAL = Signal(fs=100, seconds=2, band=(0.5, 40.0))
DATA = Store(patients=30, splits=("all",))
HOW = Fit(
    steps=6, batch_size=8, accelerator="cpu", devices=1, progress=False, log_every=1, out="unused"
)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    out = tmp_path_factory.mktemp("graph")
    make(GraphConfig(signal=SIGNAL, patients=30, k=6, k_far=2, block=16), (), out, show=False)
    return str(out)


def config(out="unused", *, steps=6, **fields):
    small = {
        "signal": SIGNAL,
        "data": DATA,
        "encoder": Encoder(embedding_dim=8, width=4),
        "optim": Optim(lr=1e-3, warmup_steps=0, schedule="constant"),
        "mine_fs": 50.0,
        "fit": dataclasses.replace(HOW, out=str(out), steps=steps),
    }
    return Config(**{**small, **fields})


def rows(out):
    clocked = {"records_per_s", "waiting", "mining", "encoder"}
    with (out / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in clocked} for row in found]


POOLS = {
    "ring": {"pool": "ring", "ring_size": 14, "positive": "knn", "loss": "nt_xent"},
    "graph": {"pool": "graph", "positive": "both", "loss": "margin", "normalise": True},
    "patient": {"positive": "patient", "negative": "distance_weighted", "projection_dim": 4},
    "landmarks": {"loss": "landmarks", "landmarks": 20, "landmark_dims": 4},
    "batch": {
        "negative": "farthest",
        "hub_correction": "csls",
        "hub_nearest": True,
        "loss": "multi_similarity",
        "augment": Augment(lead_dropout_p=0.2),
        "mine_over": "all",
    },
}


@pytest.mark.parametrize("name", POOLS)
def test_a_run_that_goes_on_is_the_uninterrupted_one(tmp_path, name, graph):
    words = {**POOLS[name], **({"graph": graph} if name == "graph" else {})}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(ssl_dml.build, config(whole, **words))
    fit(ssl_dml.build, config(cut, steps=4, **words))
    fit(ssl_dml.build, config(cut, **words))
    assert (cut / "encoder.safetensors").read_bytes() == (
        whole / "encoder.safetensors"
    ).read_bytes()
    assert rows(cut)[:3] == rows(whole)[:3]
    assert rows(cut)[4:] == rows(whole)[4:]
    assert all(float(row["valid"]) > 0.5 for row in rows(whole))
    if name == "patient":
        assert {row["same_patient"] for row in rows(whole)} == {"1.0"}
    steps = 6 * (4 if name == "ring" else 8)  # a ring reads half of what it encodes
    assert float(rows(whole)[-1]["epoch"]) == pytest.approx(
        steps / len(open_source((), ("all",), signal=SIGNAL, patients=30)), abs=1e-4
    )


def test_partners_are_the_graphs_neighbours_and_no_test_record_comes_in(tmp_path):
    everybody = tmp_path / "graph"
    store = tmp_path / "store"
    write_cohort(store, 30, signal=SIGNAL, seed=0)
    make(
        GraphConfig(signal=SIGNAL, splits=("all", "test"), k=4, block=64),
        (str(store),),
        everybody,
        show=False,
    )
    data = Store(paths=(str(store),), splits=("train",))
    words = {"pool": "graph", "graph": str(everybody), "positive": "knn", "k_positives": 2}
    run = ssl_dml.build(config(data=data, **words))
    source = open_source([str(store)], ("train",), signal=SIGNAL, patients=0)
    graph = read_neighbours(everybody)
    assert len(source) < len(graph.record_id)
    names = source.column("record_id").astype(str)
    sampler = run.data.sampler(rank=0, world_size=1, start_step=0)
    place = {name: row for row, name in enumerate(graph.record_id)}
    for step in range(20):
        anchors, partners = np.array(sampler.batch(step)).reshape(2, 4)
        for anchor, partner in zip(anchors, partners, strict=True):
            near = [graph.record_id[j] for j in graph.nearest[place[names[anchor]]]]
            assert names[partner] in [name for name in near if name in set(names)][:2]


def test_a_graph_of_other_records_ends_the_run_before_it_begins(tmp_path, graph):
    found = read_neighbours(graph)
    renamed = np.array([f"x{i}" for i in range(len(found.record_id))])
    write_neighbours(tmp_path, dataclasses.replace(found, record_id=renamed))
    with pytest.raises(DataError, match=r"none of the .* records is among the"):
        ssl_dml.build(config(pool="graph", graph=str(tmp_path)))
    with pytest.raises(DataError, match="holds no neighbour graph"):
        ssl_dml.build(config(pool="graph", graph=str(tmp_path / "nowhere")))


def test_records_that_the_graph_lacks_are_counted(tmp_path, graph, capsys):
    found = read_neighbours(graph)
    renamed = found.record_id.copy()
    renamed[:5] = [f"x{i}" for i in range(5)]
    write_neighbours(tmp_path, dataclasses.replace(found, record_id=renamed))
    ssl_dml.build(config(pool="graph", graph=str(tmp_path)))
    assert "(5 of them are not in the graph)" in capsys.readouterr().out


def test_no_visits_no_positives_of_the_patient():
    data = dataclasses.replace(DATA, limit=1)
    with pytest.raises(RunError, match="none of the 1 records has another one of its patient"):
        ssl_dml.build(config(data=data, positive="patient"))


def test_embeddings_of_an_earlier_run_choose_neighbours(tmp_path):
    stage = tmp_path / "stage"
    fit(ssl_dml.build, config(stage, steps=1))
    words = {"distance": "embedding", "stage": str(stage), "mine_fs": None}
    fit(ssl_dml.build, config(tmp_path / "next", steps=2, **words))
    state = torch.load(tmp_path / "next" / "last.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in state if "pool" in name]  # the stage is not kept twice
    other = dataclasses.replace(SIGNAL, band=(1.0, 30.0))
    with pytest.raises(ContractError, match="differ in band"):
        ssl_dml.build(config(signal=other, **words))
    weights = stage / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.raises(ContractError, match="changed or damaged"):
        ssl_dml.build(config(**words))


def test_beats_that_are_kept_change_nothing(tmp_path):
    """Distances of all pairs, by beats that are found once or every time: the same run."""
    words = ["--data.patients", "20", "--signal.fs", "100", "--fit.steps", "6", "--fit.batch_size"]
    words += ["16", "--encoder.width", "4", "--encoder.embedding_dim", "8", "--fit.log_every", "1"]
    for memory in ("0", "64"):
        out = ["--fit.out", str(tmp_path / memory), "--fit.progress", "false"]
        main(
            ["pretrain", "ssl-dml", "--config", "log_ratio", *words, "--beat_memory", memory, *out]
        )
    assert rows(tmp_path / "0") == rows(tmp_path / "64")
    files = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("0", "64")]
    assert files[0] == files[1]
    assert float(rows(tmp_path / "0")[-1]["valid"]) == 1


def test_coordinates_by_landmarks_teach(tmp_path):
    """The loss falls; the landmarks are state of the run."""
    words = ["--data.patients", "40", "--signal.fs", "100", "--fit.batch_size", "16"]
    words += ["--landmarks", "24", "--landmark_dims", "4", "--encoder.width", "4"]
    words += ["--encoder.embedding_dim", "8", "--encoder.dropout", "0", "--fit.log_every", "1"]
    words += ["--fit.progress", "false"]
    words = ["pretrain", "ssl-dml", "--config", "landmarks", *words]
    main([*words, "--fit.steps", "12", "--fit.out", str(tmp_path / "whole")])
    loss = [float(row["loss"]) for row in rows(tmp_path / "whole")]
    assert sum(loss[-3:]) < sum(loss[:3])
    assert float(rows(tmp_path / "whole")[-1]["valid"]) == 1
    state = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["pool.marks"].shape[0] == 24


def test_landmarks_that_are_too_few_are_named(tmp_path, capsys):
    words = ["--data.patients", "4", "--signal.fs", "100", "--fit.out", str(tmp_path / "run")]
    words += ["--fit.steps", "1", "--fit.batch_size", "4"]
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", "ssl-dml", "--config", "landmarks", *words])
    assert "error[landmarks] 32 coordinates need 68 reference" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["ring", "graph", "patient"])
def test_a_recipe_of_a_pool_runs(tmp_path, recipe, graph):
    words = ["--graph", graph] if recipe == "graph" else []
    words += ["--fit.steps", "1", "--fit.out", str(tmp_path), "--data.patients", "30"]
    words += ["--signal.fs", "100", "--optim.warmup_steps", "0"]
    main(["pretrain", "ssl-dml", "--config", recipe, "--config", "debug", *words])
    assert float(rows(tmp_path)[0]["valid"]) > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"pool": "graph"}, "pool graph and graph DIR go together"),
        ({"graph": "g"}, "pool graph and graph DIR go together"),
        ({"distance": "embedding"}, "distance embedding and stage RUN go together"),
        ({"stage": "s"}, "distance embedding and stage RUN go together"),
        ({"positive": "both"}, "positive both needs pool graph"),
        ({"positive": "patient", "pool": "ring"}, "positive patient looks in no pool"),
        ({"positive": "two_farthest", "pool": "ring"}, "needs pool batch"),
        ({"pool": "ring", "ring_size": 3}, "ring_size must hold the 4 records"),
        ({"pool": "ring", "fit": dataclasses.replace(HOW, batch_size=7)}, "must be even"),
        ({"positive": "patient", "order": "fixed"}, "order fixed"),
        ({"hub_nearest": True}, "hub_nearest needs hub_correction"),
        ({"positive": "patient", "hub_nearest": True, "hub_correction": "csls"}, "batch or ring"),
        ({"patient_share": 1.5}, r"patient_share must lie in \[0, 1\]"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"collapse_below": -1.0}, "collapse_below must not be negative"),
        ({"loss": "landmarks", "landmark_dims": 599}, "landmarks at least 2 more"),
        ({"loss": "landmarks", "positive": "knn"}, "looks for no positives"),
        ({"loss": "landmarks", "projection_dim": 8}, "its own linear layer"),
        ({"k_positives": 0}, "k_positives must be at least 1"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        config(**words)


def collapsed(config):
    """As built, with an encoder that gives all records the same embedding."""
    run = ssl_dml.build(config)
    last = list(run.method.encoder.modules())[-1]
    torch.nn.init.zeros_(last.weight)
    last.weight.requires_grad_(False)
    torch.nn.init.ones_(last.bias)
    return run


def test_a_run_that_has_collapsed_stops_and_says_why(tmp_path):
    how = dataclasses.replace(HOW, out=str(tmp_path), steps=9, checkpoint_every=1)
    words = {"collapse_patience": 3, "fit": how}
    with pytest.raises(RunError, match=r"since step 1 .* at step 4 .*--collapse_below 0"):
        fit(collapsed, config(**words))
    assert not (tmp_path / "contract.json").exists()
    with pytest.raises(RunError, match="since step 1 "):  # told again: it is the same run
        fit(collapsed, config(**words))
    fit(collapsed, config(collapse_below=0.0, **words))
    last = rows(tmp_path)[-1]
    assert float(last["embedding_spread"]) < 1e-6
    assert last["step"] == "9"
    assert (tmp_path / "contract.json").exists()


def test_embeddings_on_a_line_are_a_collapse(tmp_path):
    def on_a_line(config):
        run = ssl_dml.build(config)
        last = list(run.method.encoder.modules())[-1]
        with torch.no_grad():
            last.weight[1:] = last.weight[:1]
        last.weight.requires_grad_(False)
        return run

    with pytest.raises(RunError, match="one line"):
        fit(on_a_line, config(tmp_path, collapse_patience=2))


def shrinking(config):
    """As built; the embeddings shrink a hundred times, as no hinge would do it faster."""
    run = ssl_dml.build(config)
    step, last = run.method.training_step, list(run.method.encoder.modules())[-1]

    def smaller(batch, batch_idx):
        with torch.no_grad():
            for values in last.parameters():
                values *= 0.1
        return step(batch, batch_idx)

    run.method.training_step = smaller
    return run


def test_embeddings_that_only_shrink_are_no_collapse(tmp_path):
    words = {"collapse_patience": 1, "collapse_below": 1e-2}
    fit(shrinking, config(tmp_path, steps=4, **words))
    first, last = rows(tmp_path)[0], rows(tmp_path)[-1]
    assert float(last["embedding_std"]) < 0.02 * float(first["embedding_std"])
    assert float(last["embedding_spread"]) > 0.3 * float(first["embedding_spread"])


def test_spread_and_rank_by_hand():
    z = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 2.0], [1.0, -2.0]])
    assert spread_of(z).item() == pytest.approx(16 / 20)  # mean (1, 0), mean square 5
    assert spread_of(1e-6 * z).item() == pytest.approx(16 / 20)
    assert spread_of(torch.ones(4, 3)) == spread_of(torch.zeros(4, 3)) == 0
    # centred: singular values sqrt(8) twice
    assert effective_rank(z).item() == pytest.approx(2)
    line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    assert effective_rank(line).item() == pytest.approx(1)
    assert effective_rank(torch.ones(4, 3)) == 0
    values = torch.tensor([3.0, 1.0], dtype=torch.float64)
    share = values / values.sum()
    basis = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64))[0]
    basis = torch.linalg.qr(basis - basis.mean(dim=0))[0]  # still of mean 0
    expected = torch.exp(-(share * share.log()).sum()).item()
    assert effective_rank(basis * values).item() == pytest.approx(expected)
