"""Views of clips: repeatable by the generator, as the op makes them."""

from __future__ import annotations

import doctest

import pytest
import torch

from ecgfast.config.clips import ClipViews
from ecgfast.ops import ClipSpec, clip_transform
from ecgfast.transforms import clip
from ecgfast.transforms.clip import ClipTransform

CLIPS = torch.randint(0, 256, (5, 1, 4, 24, 32), dtype=torch.uint8)
VIEWS = dict(pad=3, flip=0.5, rotate=0.5, rotation_degrees=(-30.0, 30.0))


def test_the_generator_decides_all_that_is_drawn():
    views = ClipTransform(**VIEWS)
    torch.manual_seed(3)
    first, second = views(CLIPS), views(CLIPS)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(ClipTransform(**VIEWS)(CLIPS), first)  # also of another object
    torch.manual_seed(3)
    assert torch.equal(clip_transform(CLIPS, spec=ClipSpec(**VIEWS)), first)


def test_what_draws_nothing_leaves_the_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    views = ClipTransform(scale="unit")
    assert torch.equal(views(CLIPS), CLIPS / 255)
    assert torch.equal(torch.get_rng_state(), before)


def test_frames_come_in_the_order_asked_for():
    order = torch.stack([torch.randperm(4) for _ in CLIPS])
    shown = ClipTransform(scale="none")(CLIPS, order)
    assert torch.equal(torch.stack([c[:, o] for c, o in zip(CLIPS, order, strict=True)]), shown)


def test_dtype_and_layout_are_those_asked_for():
    colour = CLIPS.expand(-1, 3, -1, -1, -1)
    views = ClipTransform(dtype=torch.bfloat16, channels_last=True)(colour)
    assert views.dtype == torch.bfloat16
    assert views.is_contiguous(memory_format=torch.channels_last_3d)


def test_what_a_configuration_names_is_taken():
    """Fields of ClipViews are words of the module, one to one."""
    from dataclasses import asdict

    spec = ClipTransform(**asdict(ClipViews()), scale="standard").spec
    assert (spec.pad, spec.rotate, spec.scale) == (8, 0.5, "standard")


def test_a_wrong_word_is_refused():
    with pytest.raises(ValueError, match=r"flip must lie in \[0, 1\], got 2"):
        ClipTransform(flip=2)


def test_examples_run():
    outcome = doctest.testmod(clip)
    assert outcome.failed == 0
    assert outcome.attempted > 0
