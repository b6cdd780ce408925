"""EchoCLR: its loss is its formula, masks are exact, orders are asked for where they show."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from ecgfast.config import Optim
from ecgfast.losses.frame_order import FrameOrderLoss
from ecgfast.methods.echoclr import EchoCLR, has_order, pair_labels
from ecgfast.models.clip_encoder import ClipEncoder
from ecgfast.models.heads import OrderHead, Projector
from ecgfast.transforms.frame_order import FrameOrders, order_code
from python_tests.ranks import load, two_ranks

INDEX = torch.tensor([0, 3, 5, 0, 1, 4, 5, 2])  # anchors 0 3 5 0, partners 1 4 5 2
STUDY = torch.tensor([10, 20, 30, 10, 10, 20, 30, 10])  # pairs 0 and 3 are of one study
PATIENT = torch.tensor([7, 8, 7, 7, 7, 8, 7, 7])  # whose patient has another one
MASKS = pytest.mark.parametrize("mask", ["none", "study", "patient"])


class Views(nn.Module):
    """Draws nothing: frames in the order asked for, as floats; keeps what it was asked."""

    def forward(self, clips, order=None):
        self.order = order
        if order is not None:
            clips = clips.gather(2, order[:, None, :, None, None].expand_as(clips))
        return clips.to(torch.get_default_dtype()) / 255


class Encoder(nn.Module):
    def __init__(self, dim=6):
        super().__init__()
        self.map = nn.Conv3d(1, dim, 3)

    def forward(self, clips):
        return self.map(clips.to(self.map.weight.dtype)).tanh().mean(dim=(2, 3, 4))


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


def make(*, frames=4, ordered=True, mask="none", order=1.0, **words):
    torch.manual_seed(0)
    parts = {"encoder": Encoder(), "projector": Projector(6, 4, hidden=5, last_bias=False)}
    orders = {"orders": FrameOrders(frames), "order_head": OrderHead(6, frames)} if ordered else {}
    method = EchoCLR(
        **{**parts, **words},
        views=Views(),
        **orders,
        order=order,
        mask=mask,
        temperature=0.2,
        gather=False,
        optim=Optim(),
    )
    method.logged = {}
    method.log_dict = lambda numbers, **_: method.logged.update(numbers)
    return method


def batch(frames=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(256, (8, 1, frames, 6, 6), generator=generator, dtype=torch.uint8)
    return {"ecg": clips, "index": INDEX, "study": STUDY, "patient": PATIENT}


def contrast(projections, groups, temperature=0.2):
    """NT-Xent of N / 2 pairs in plain loops: a pair repels the clips of other pairs and groups."""
    z = nn.functional.normalize(projections.double())
    count, losses = len(z), []
    for anchor in range(count):
        partner = (anchor + count // 2) % count
        rows = [partner] + [
            other
            for other in range(count)
            if other not in (anchor, partner)
            and (groups is None or groups[other] != groups[anchor])
        ]
        logits = torch.stack([z[anchor] @ z[row] / temperature for row in rows])
        losses.append(logits.logsumexp(0) - logits[0] if len(rows) > 1 else logits[0] * 0)
    return torch.stack(losses).mean()


@MASKS
@pytest.mark.parametrize("ordered", [True, False])
def test_the_loss_is_its_formula(mask, ordered):
    method, one = make(mask=mask, ordered=ordered, order=0.5).double(), batch()
    torch.manual_seed(4)
    loss = method.training_step(one, 0)
    loss.backward()
    found = [weight.grad for weight in method.parameters()]
    method.zero_grad()
    seen = method.views(one["ecg"], method.views.order)
    assert (method.views.order is None) != ordered
    embeddings = method.encoder(seen.double())
    groups = {"none": None, "study": STUDY.tolist(), "patient": PATIENT.tolist()}[mask]
    expected = contrast(method.projector(embeddings), groups)
    torch.testing.assert_close(method.logged["contrastive"], expected.detach())
    if ordered:
        logits = method.order_head(embeddings).log_softmax(dim=1)
        code = order_code(method.views.order)
        cross = -logits[torch.arange(8), code].mean()
        torch.testing.assert_close(method.logged["order_loss"], cross.detach())
        right = (logits.argmax(dim=1) == code).double().mean()
        torch.testing.assert_close(method.logged["order_accuracy"].double(), right)
        assert method.logged["order_known"] == 1
        expected = expected + 0.5 * cross
    else:
        assert not any(name.startswith("order") for name in method.logged)
    torch.testing.assert_close(loss, expected)
    expected.backward()
    for mine, weight in zip(found, method.parameters(), strict=True):
        torch.testing.assert_close(mine, weight.grad, rtol=1e-7, atol=1e-10)


@MASKS
def test_false_negatives_are_masked_exactly(mask):
    """Turns the projection of one clip: who feels it is who has it for a positive or negative."""
    method = make(mask=mask, ordered=False).double()
    z = torch.randn(8, 4, dtype=torch.float64)
    groups = {"none": torch.arange(8), "study": STUDY, "patient": PATIENT}[mask]
    method.loss.reduction = "none"
    words = {} if mask == "none" else {"groups": groups}
    before = method.loss(z, pair_labels(INDEX), **words)
    other = z.clone()
    other[3] = -z[3]  # an anchor of study 10, which has another pair in the batch
    felt = (method.loss(other, pair_labels(INDEX), **words) != before).tolist()
    for row in range(8):
        own = row in (3, 7)  # itself and its partner
        assert felt[row] == (own or bool(groups[row] != groups[3])), row


def test_labels_are_of_pairs_alone_also_where_a_video_is_in_several():
    labels = pair_labels(INDEX)
    alike = {
        (a, b) for a, b in itertools.product(range(8), repeat=2) if a < b and labels[a] == labels[b]
    }
    assert alike == {(0, 4), (1, 5), (2, 6), (3, 7)}
    assert (pair_labels(torch.tensor([2**31 - 1, 2**31 - 1])) > 0).all()


def test_every_clip_gets_an_order_of_its_own_and_the_code_that_belongs_to_it():
    method, one = make(), batch()
    asked = []
    method.order_loss.register_forward_pre_hook(lambda _, words: asked.append(words[1]))
    method.training_step(one, 0)
    order = method.views.order
    assert torch.equal(order_code(order), asked[0])
    assert len(order.unique(dim=0)) > 4  # both halves, clip by clip
    assert not torch.equal(order[:4], order[4:])


def test_clips_that_padding_would_give_away_are_not_asked_for():
    method, one = make(), batch()
    one["ecg"][2, :, 3] = 0  # one black frame at the end of a short video
    one["ecg"][5, :, 1:] = 0  # three
    one["ecg"][6, :, 2] = one["ecg"][6, :, 0]  # a frame twice: there is no one order
    torch.manual_seed(4)
    method.training_step(one, 0)
    assert method.logged["order_known"] == 5 / 8
    kept = torch.tensor([0, 1, 3, 4, 7])
    with torch.no_grad():
        logits = method.order_head(method.encoder(method.views(one["ecg"], method.views.order)))
    code = order_code(method.views.order)
    expected = nn.functional.cross_entropy(logits[kept], code[kept])
    torch.testing.assert_close(method.logged["order_loss"], expected)
    right = (logits.argmax(dim=1) == code)[kept].float().mean()
    torch.testing.assert_close(method.logged["order_accuracy"], right)


def test_a_batch_of_nothing_but_short_videos_still_contrasts():
    method, one = make(), batch()
    one["ecg"][:, :, 3] = 0
    loss = method.training_step(one, 0)
    loss.backward()
    assert loss == method.logged["contrastive"]
    assert loss.isfinite()
    assert method.logged["order_accuracy"] == method.logged["order_known"] == 0
    assert not method.order_head.weight.grad.any()
    assert method.encoder.map.weight.grad.abs().sum() > 0


def test_an_order_can_be_told_where_all_frames_differ_and_show_something():
    clips = torch.randint(256, (6, 3, 4, 5, 5), dtype=torch.uint8)
    clips[1, :, 2] = 0
    clips[2, :, 0] = 255
    clips[3, :, 3] = clips[3, :, 1]
    clips[4, :, 3] = clips[4, :, 1]
    clips[4, 2, 3, 4, 4] ^= 1  # but for one bit
    clips[5] = 0
    clips[5, 0, :, 0, 0] = torch.tensor([1, 2, 3, 4])
    assert has_order(clips).tolist() == [True, False, False, False, True, True]
    assert has_order(clips[:, :, :1]).tolist() == [True, True, False, True, True, True]


def test_the_loss_of_orders_has_edges():
    loss = FrameOrderLoss()
    logits = torch.randn(3, 6, requires_grad=True)
    none = loss(logits, torch.full((3,), -1))
    none.backward()
    assert none == 0
    assert not logits.grad.any()
    assert loss(torch.zeros(2, 720), torch.tensor([719, 0])).item() == pytest.approx(
        math.log(720), rel=1e-6
    )
    assert loss(torch.zeros(2, 6).bfloat16(), torch.tensor([1, 0])).dtype == torch.float32
    assert loss(torch.zeros(2, 6).double(), torch.tensor([1, 0])).dtype == torch.float64


def test_the_published_projector_has_no_bias_at_its_end():
    layers = Projector(512, 128, hidden=256, last_bias=False).layers
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert layers[0].weight.shape == (256, 512)
    assert layers[0].bias is not None
    assert layers[2].weight.shape == (128, 256)
    assert layers[2].bias is None


def bars(count, frames, generator):
    """A bar that moves down by 4 rows a frame, from one of four places, in noise."""
    clips = torch.rand(count, 1, frames, 16, 16, generator=generator) * 40
    begin = torch.randint(4, (count,), generator=generator)
    for clip, first in zip(clips, begin.tolist(), strict=True):
        for frame in range(frames):
            clip[0, frame, first + 4 * frame] += 200
    return clips.to(torch.uint8)


def test_orders_of_a_moving_bar_are_learned():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    encoder = ClipEncoder(width=8, size=16, frames=3)
    method = make(
        frames=3,
        encoder=encoder,
        projector=Projector(64, 8, hidden=16),
        order=3.0,
    )
    method.order_head = OrderHead(64, 3)
    adam = torch.optim.Adam(method.parameters(), lr=2e-3)
    index = torch.arange(16).repeat(2)
    told = []
    for _ in range(40):
        clips = bars(32, 3, generator)
        loss = method.training_step({"ecg": clips, "index": index, "study": index}, 0)
        adam.zero_grad()
        loss.backward()
        adam.step()
        told.append(float(method.logged["order_accuracy"]))
    assert sum(told[:5]) / 5 < 0.5  # chance is 1 in 6
    assert sum(told[-5:]) / 5 > 0.8


def test_two_ranks_are_one_process(tmp_path):
    found = two_ranks("two_ranks_echoclr", tmp_path)[0]
    method, whole = load("two_ranks_echoclr").whole()
    loss = method.training_step(whole, 0)
    loss.backward()
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-9, atol=1e-12)
    for key, weight in method.named_parameters():
        torch.testing.assert_close(found["gradients"][key], weight.grad, rtol=1e-7, atol=1e-9)
