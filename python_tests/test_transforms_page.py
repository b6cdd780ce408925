"""Pages drawn anew: repeatable by the generator, independent of each other, and of all layouts."""

from __future__ import annotations

import pytest
import torch

from ecgfast.config import LEADS
from ecgfast.ops import LAYOUTS, ImageAugmentSpec, PageStyle, rasterize_ecg
from ecgfast.testing import make_ecg
from ecgfast.transforms.page import EVERY, PageViews

SPEC = ImageAugmentSpec(rotation_degrees=(-10, 10), contrast=(0.8, 1.2), noise=(0, 6))


def views(**words):
    return PageViews(**{"fs": 250, "leads": LEADS, "size": 64, **words})


def test_the_generator_decides_all_that_is_drawn():
    ecg = make_ecg(5, 12, 500)
    draw = views(spec=SPEC)
    torch.manual_seed(3)
    first, second = draw(ecg), draw(ecg)
    assert first.shape == (5, 3, 64, 64)
    assert first.dtype == torch.uint8
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.manual_seed(3)
    assert torch.equal(views(spec=SPEC)(ecg), first)  # also of another object: a resumed run


def test_faults_come_on_top_of_the_page_that_was_drawn():
    ecg = make_ecg(4, 12, 500)
    torch.manual_seed(5)
    layouts, looks = views().drawn(4, int(torch.randint(2**63 - 1, (2,))[0]))
    torch.manual_seed(5)
    pages = views()(ecg)
    drawn = rasterize_ecg(ecg, fs=250, layout=layouts, style=looks, size=(64, 64))
    assert torch.equal(pages, drawn.images)
    torch.manual_seed(5)
    assert not torch.equal(views(spec=SPEC)(ecg), pages)


def test_all_layouts_come_about_as_often():
    draw = views(shuffles=4, layouts=EVERY)
    layouts, looks = draw.drawn(6000, 0)
    plain = [LAYOUTS[name] for name in EVERY[:-1]]
    counts = [sum(layout == one for layout in layouts) for one in plain]
    counts.append(6000 - sum(counts))
    # a share of 1/6 of 6000 has an SD of 29
    assert all(abs(count - 1000) < 150 for count in counts)
    shuffled = {layout for layout in layouts if layout not in plain}
    assert len(shuffled) == 4
    assert all(sorted(layout.leads) == sorted(LEADS) for layout in shuffled)
    assert len(set(looks)) == 64
    assert {style.mm_per_mv for style in looks} == {5.0, 10.0, 20.0}
    assert draw.looks[0] == PageStyle() in looks  # as networks draw in use
    assert views(looks=1).looks == (PageStyle(),)


def test_grey_pages_have_one_channel_and_a_batch_may_be_empty():
    assert views(grey=True, spec=SPEC)(make_ecg(2, 12, 500)).shape == (2, 1, 64, 64)
    assert views()(torch.zeros(0, 12, 500)).shape == (0, 3, 64, 64)


def test_a_record_with_gaps_is_a_page():
    ecg = make_ecg(2, 12, 500)
    ecg[0] = torch.nan
    torch.manual_seed(0)
    blank = views(looks=1, layouts=("3x4",))(ecg)
    assert blank.dtype == torch.uint8
    assert not torch.equal(blank[0], blank[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layouts": ()}, "there must be a layout"),
        ({"layouts": ("5x5",)}, "layout must be one of"),
        ({"looks": 0}, "must be positive"),
    ],
    ids=str,
)
def test_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        views(**words)
