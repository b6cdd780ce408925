"""The encoder of pages: what it draws, what it takes as it is, and what it refuses."""

from __future__ import annotations

import sys

import pytest
import torch

from ecgfast.models.page_encoder import B0_BLOCKS, PageEncoder
from ecgfast.ops import LAYOUTS, rasterize_ecg
from ecgfast.testing import make_ecg

SMALL = {"net": "efficientnet-b0", "size": 64}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return PageEncoder(**SMALL).eval()


def test_signals_are_drawn_and_pages_taken_as_they_are(encoder):
    ecg = make_ecg(3, 12, 700)
    pages = rasterize_ecg(ecg, fs=250, layout="3x4+1", size=(64, 64)).images
    assert torch.equal(encoder.draw(ecg), pages)
    drawn = encoder(ecg)
    assert drawn.shape == (3, 1280)
    assert torch.equal(drawn, encoder(pages))
    torch.testing.assert_close(encoder(pages.float() / 255), drawn)
    assert encoder(torch.zeros(2, 3, 96, 40)).shape == (2, 1280)  # a page of another size


def test_layout_and_rate_change_the_page(encoder):
    ecg = make_ecg(2, 12, 500)
    for words in ({"layout": "12x1"}, {"fs": 500.0}, {"size": 80}, {"grey": True}):
        other = PageEncoder(**{**SMALL, **words})
        pages = other.draw(ecg)
        assert pages.shape != encoder.draw(ecg).shape or not torch.equal(pages, encoder.draw(ecg))


def test_a_page_in_grey_is_the_same_as_its_three_equal_colours(encoder):
    pages = torch.randint(256, (2, 1, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(encoder(pages), encoder(pages.expand(-1, 3, -1, -1)))


def test_an_encoder_in_grey_sees_no_colour():
    grey = PageEncoder(**SMALL, grey=True).eval()
    red, green = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    red[:, 0], green[:, 1] = 0.587, 0.299  # of one brightness
    torch.testing.assert_close(grey(red), grey(green))
    assert grey.draw(make_ecg(1, 12, 300)).shape == (1, 1, 64, 64)


def test_records_do_not_mix_in_use(encoder):
    pages = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    alone = torch.cat([encoder(page) for page in pages.split(1)])
    torch.testing.assert_close(encoder(pages), alone)


def test_stages_hold_every_parameter_once_from_the_page_on():
    encoder = PageEncoder(**SMALL, embedding_dim=16)
    stages = encoder.stages()
    assert len(stages) == 9
    held = [id(p) for stage in stages for p in stage.parameters()]
    assert sorted(held) == sorted(id(p) for p in encoder.parameters())
    first = next(stages[0].parameters())
    assert first is encoder.net._conv_stem.weight
    assert encoder(make_ecg(2, 12, 300)).shape == (2, 16)


def test_b3_is_the_published_width_and_size():
    with torch.device("meta"):
        encoder = PageEncoder()
    assert encoder.embedding_dim == 1536
    assert sum(p.numel() for p in encoder.parameters()) == 10_696_232


def test_half_of_b0_is_b0_with_fewer_channels_and_blocks():
    from monai.networks.nets.efficientnet import EfficientNet, EfficientNetBN

    whole = EfficientNet(list(B0_BLOCKS), num_classes=1).state_dict()
    theirs = EfficientNetBN("efficientnet-b0", pretrained=False, num_classes=1).state_dict()
    assert {k: v.shape for k, v in whole.items()} == {k: v.shape for k, v in theirs.items()}
    half = PageEncoder(net="efficientnet-b0-half", size=64).eval()
    assert half(torch.zeros(2, 3, 64, 64)).shape == (2, 640) == (2, half.embedding_dim)
    assert 600_000 < sum(weight.numel() for weight in half.parameters()) < 700_000
    assert len(half.net._blocks) == 7
    assert sum(len(stage) for stage in half.net._blocks) == 10


def test_gradients_reach_the_first_layer():
    encoder = PageEncoder(**SMALL)
    encoder(make_ecg(2, 12, 300)).sum().backward()
    assert encoder.net._conv_stem.weight.grad.abs().sum() > 0


def test_a_lead_that_a_record_has_not_leaves_its_place_free():
    two = PageEncoder(2, leads="II,V1", **SMALL).eval()
    assert two(make_ecg(1, 2, 300)).isfinite().all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"net": "resnet"}, "net must be one of efficientnet-b0"),
        ({"size": 16}, "size must be 32 to 4096"),
        ({"size": 60000}, "size must be 32 to 4096"),
        ({"layout": "4x4"}, "layout must be one of"),
        ({"layout": "3x4-shuffled:x"}, "layout must be one of"),
        ({"leads": "I,II"}, "leads must name 12 leads"),
        ({"fs": 0.0}, "fs must be positive"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
    ],
    ids=str,
)
def test_refuses_settings(words, message):
    with pytest.raises(ValueError, match=message):
        PageEncoder(**{**SMALL, **words})


def test_refuses_what_is_neither_signal_nor_page(encoder):
    with pytest.raises(ValueError, match=r"ecg must be \(N, 12, T\), or pages"):
        encoder(torch.zeros(1, 8, 300))
    with pytest.raises(ValueError, match="C 1 or 3"):
        encoder(torch.zeros(1, 2, 64, 64))
    with pytest.raises(ValueError, match="32 pixels a side"):
        encoder(torch.zeros(1, 3, 64, 20))
    with pytest.raises(TypeError, match="uint8 or of a float"):
        encoder(torch.zeros(1, 3, 64, 64, dtype=torch.int32))


def test_without_monai_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets.efficientnet", None)
    with pytest.raises(ModuleNotFoundError, match=r"ecgfast\[nets\]"):
        PageEncoder(**SMALL)


def test_shuffled_layouts_are_named_by_their_seed():
    ecg = make_ecg(1, 12, 300)
    named = rasterize_ecg(ecg, fs=250, layout="3x4-shuffled:7", size=(64, 64))
    made = rasterize_ecg(ecg, fs=250, layout=LAYOUTS["3x4"].shuffled(7), size=(64, 64))
    assert torch.equal(named.images, made.images)
    assert named.boxes != rasterize_ecg(ecg, fs=250, layout="3x4-shuffled", size=(64, 64)).boxes
