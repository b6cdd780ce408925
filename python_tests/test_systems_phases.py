"""Fine-tuning in two phases, and of networks for pages: what stands still, and how it goes on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecgfast.config import Augment, Encoder, Fit, Optim, Signal, Store, labeleff
from ecgfast.config import bcl as pretraining
from ecgfast.config import finetune as tuning
from ecgfast.config.labeleff import Tune
from ecgfast.config.pages import PageNet, PageViews
from ecgfast.methods.finetune import Finetune
from ecgfast.models.page_encoder import PageEncoder
from ecgfast.systems import bcl, finetune
from ecgfast.systems.labeleff import sweep
from ecgfast.systems.predict import predict
from ecgfast.train.checkpoint import load_contract
from ecgfast.train.errors import RunError
from ecgfast.train.fit import fit

SIGNAL = Signal(seconds=2.0, band=(1.0, 30.0))
NET = PageNet(net="efficientnet-b0", size=48)
DATA = Store(patients=24)
HOW = Fit(steps=4, batch_size=8, checkpoint_every=1, accelerator="cpu", devices=1, progress=False)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def config(out="runs/none", *, steps=4, **words):
    base = {
        "signal": SIGNAL,
        "data": DATA,
        "encoder": Encoder(embedding_dim=8, width=4),
        "hidden": 4,
        "optim": Optim(lr=1e-2, warmup_steps=0, schedule="constant"),
        "keep": "last",
        "label": "age",
        "fit": dataclasses.replace(HOW, steps=steps, out=str(out)),
    }
    return tuning.Config(**{**base, **words})


def weights(folder, name="encoder"):
    return load_file(folder / f"{name}.safetensors")


def moved(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    out = tmp_path_factory.mktemp("pages")
    config = pretraining.Config(
        signal=SIGNAL,
        data=dataclasses.replace(DATA, splits=("all",)),
        encoder=NET,
        min_gap=0.0,
        fit=dataclasses.replace(HOW, steps=2, out=str(out)),
    )
    fit(bcl.build, config)
    return out


class Cut(Exception):
    """The machine went down."""


def cut_at(monkeypatch, step):
    whole = Finetune.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            raise Cut
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(Finetune, "training_step", training_step)


def test_the_encoder_stands_still_for_the_first_steps_and_then_moves(tmp_path, monkeypatch):
    seen = []
    whole = Finetune.training_step

    def training_step(self, batch, batch_idx):
        state = {name: value.clone() for name, value in self.encoder.state_dict().items()}
        head = self.head.layers[0].weight.detach().clone() if hasattr(self.head, "layers") else 0
        seen.append((state, head, self.frozen, self.optim.lr))
        return whole(self, batch, batch_idx)

    monkeypatch.setattr(Finetune, "training_step", training_step)
    fit(finetune.build, config(tmp_path / "run", freeze_steps=2))
    states = [state for state, *_ in seen]
    assert [frozen for _, _, frozen, _ in seen] == [True, True, False, False]
    assert not moved(states[0], states[1])  # running means of batch norms, too
    assert not moved(states[0], states[2])
    assert moved(states[2], states[3]) == moved(states[0], weights(tmp_path / "run"))
    assert moved(states[2], states[3]) >= {"embed.weight", "stem.0.weight", "stem.1.running_mean"}


def test_the_head_of_the_first_phase_is_that_of_a_frozen_encoder(tmp_path, monkeypatch):
    fit(finetune.build, config(tmp_path / "frozen", steps=2, freeze=True))
    cut_at(monkeypatch, 2)
    with pytest.raises(Cut):
        fit(finetune.build, config(tmp_path / "phases", freeze_steps=2))
    kept = torch.load(tmp_path / "phases" / "last.ckpt", weights_only=True)["state_dict"]
    head = weights(tmp_path / "frozen", "head")
    assert all(torch.equal(kept[f"head.{name}"], value) for name, value in head.items())


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_run_of_two_phases_resumes_bit_for_bit(tmp_path, monkeypatch, cut):
    words = {"freeze_steps": 2, "encoder_lr": 1e-3, "augment": Augment(noise_mv=(0.0, 0.1))}
    fit(finetune.build, config(tmp_path / "whole", **words))
    with monkeypatch.context() as patch:
        cut_at(patch, cut)
        with pytest.raises(Cut):
            fit(finetune.build, config(tmp_path / "cut", **words))
    fit(finetune.build, config(tmp_path / "cut", **words))
    for name in ("encoder", "head"):
        whole = weights(tmp_path / "whole", name)
        assert whole
        assert not moved(whole, weights(tmp_path / "cut", name))


def test_batch_norms_may_stay_as_they_are(tmp_path):
    words = {"freeze_norms": True, "freeze_steps": 1}
    before = finetune.build(config()).method.encoder.state_dict()
    fit(finetune.build, config(tmp_path / "run", **words))
    after = weights(tmp_path / "run")
    method = finetune.build(config(**words)).method
    norms = {
        f"{name}.{part}"
        for name, module in method.encoder.named_modules()
        if isinstance(module, torch.nn.BatchNorm1d)
        for part in module.state_dict()
    }
    assert len(norms) > 50
    fresh = {name: value for name, value in before.items() if name in norms}
    assert not moved(fresh, after)  # 1, 0 and no batch: the same for every seed
    assert not [m for m in method.train().still if m.training]
    assert method.encoder.training is False  # the first phase
    method.freeze_steps = 0
    assert method.train().encoder.training


def test_the_encoder_has_a_rate_of_its_own():
    groups = finetune.build(config(encoder_lr=1e-5)).method._optimizer().param_groups
    counts = [sum(p.numel() for p in group["params"]) for group in groups if group["lr"] == 1e-5]
    encoder = finetune.build(config()).method.encoder
    assert sum(counts) == sum(p.numel() for p in encoder.parameters())
    assert {group["lr"] for group in groups} == {1e-2, 1e-5}
    both = finetune.build(config(encoder_lr=1e-3, layer_decay=0.5, head_lr=1e-1)).method
    rates = [rate * 1e-2 for rate, _ in both.rates()]
    np.testing.assert_allclose(rates, [1e-1, *(1e-3 * 0.5**i for i in range(6))])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"freeze_steps": 4}, r"freeze_steps must lie in \[0, fit.steps = 4\), got 4"),
        ({"freeze": True, "freeze_steps": 1}, "for an encoder that moves later"),
        ({"freeze": True, "encoder_lr": 1e-5}, "for an encoder that moves later"),
        ({"encoder_lr": 0.0}, "encoder_lr must be positive"),
        ({"init": "run", "page": NET}, "init brings its own"),
    ],
    ids=str,
)
def test_phases_that_make_no_sense_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        config(**words)
    with pytest.raises(ValueError, match=r"words of full \(--full\.freeze_steps\)"):
        labeleff.Config(probe=Tune(freeze_steps=1))


def test_a_network_for_pages_is_fine_tuned_from_nothing_and_predicts(tmp_path):
    page = dataclasses.replace(NET, layout="12x1", embedding_dim=8)
    out = tmp_path / "run"
    fit(finetune.build, config(out, page=page, draw="anew", augment=Augment(crop_s=1.0), steps=2))
    assert load_contract(out).model["arguments"]["layout"] == "12x1"
    assert load_contract(out).embedding_dim == 8
    found = predict(out, patients=24)
    assert found["embedding"].shape[1] == 8
    assert np.isfinite(found["score"]).all()


def test_pages_drawn_anew_are_for_training_alone(pages, tmp_path):
    views = PageViews(looks=2, shuffles=2)
    words = {"encoder": Encoder(dropout=0.0), "signal": Signal(band=(0.5, 40.0))}
    run = finetune.build(config(tmp_path, init=str(pages), draw="anew", views=views, **words))
    method = run.method
    assert isinstance(method.encoder, PageEncoder)
    items = [run.data.dataset[row] for row in range(3)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    ecg = run.data.prepare(batch)["ecg"]
    drawn = method.augment(ecg)
    assert drawn.shape == (3, 3, 48, 48)
    assert not torch.equal(drawn, method.encoder.draw(ecg))
    method.eval()
    assert torch.equal(method(ecg)[1], method.encoder(method.encoder.draw(ecg)))
    with pytest.raises(RunError, match=r"error\[draw\] draw anew is for a network that sees pages"):
        finetune.build(config(draw="anew"))


def test_labels_are_counted_from_pages_too(pages, tmp_path):
    how = labeleff.Config(
        init=(f"bcl={pages}", "random", f"all={pages}@full", "none=random@full"),
        data=DATA,
        label="age",
        fractions=(1.0,),
        seeds=1,
        bootstrap=20,
        full=Tune(freeze_steps=1, encoder_lr=1e-5, draw="anew"),
        fit=dataclasses.replace(HOW, steps=2),
        keep_runs=True,
        out=str(tmp_path / "sweep"),
    )
    found = sweep(how, say=lambda line: None)
    assert found is not None
    for name in ("all", "none"):
        every = [path.parent for path in (tmp_path / "sweep" / "runs").rglob("contract.json")]
        run = next(path for path in every if f"/{name}" in str(path.relative_to(tmp_path)))
        model = load_contract(run).model
        assert model["class"] == "PageEncoder"
        assert model["arguments"]["net"] == "efficientnet-b0"
        assert "encoder_lr: 1.0e-05" in (run / "config.yaml").read_text()
