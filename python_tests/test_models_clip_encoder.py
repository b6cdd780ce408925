"""The encoder of clips: published names and shapes, what it scales, what it refuses."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from ecgfast.models.clip_encoder import ClipEncoder, with_motion
from ecgfast.models.pretrained import load_pretrained

SMALL = {"width": 4, "size": 32}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the switch slows torch's own layers down."""


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ClipEncoder(**SMALL).eval()


def grey_clips(count=3, frames=4, side=32):
    return torch.randint(256, (count, 1, frames, side, side), dtype=torch.uint8)


def published(width=64):
    """Names and shapes of torchvision's r3d_18 without classifier, written out."""

    def norm(name, channels):
        words = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{word}": (channels,) for word in words} | {
            f"{name}.num_batches_tracked": ()
        }

    names = {"stem.0.weight": (width, 3, 3, 7, 7), **norm("stem.1", width)}
    before = width
    for layer in (1, 2, 3, 4):
        channels = width * 2 ** (layer - 1)
        for block in (0, 1):
            for conv in ("conv1", "conv2"):
                name = f"layer{layer}.{block}.{conv}"
                names[f"{name}.0.weight"] = (channels, before, 3, 3, 3)
                names |= norm(f"{name}.1", channels)
                before = channels
        if layer > 1:
            name = f"layer{layer}.0.downsample"
            names[f"{name}.0.weight"] = (channels, channels // 2, 1, 1, 1)
            names |= norm(f"{name}.1", channels)
    return names


def plain(weights, clips):
    """The last maps of scaled clips with three channels, layer by layer, in evaluation mode."""

    def conv(x, name, stride, padding):
        x = functional.conv3d(x, weights[f"{name}.0.weight"], stride=stride, padding=padding)
        words = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(weights[f"{name}.1.{word}"] for word in words))

    x = conv(clips, "stem", (1, 2, 2), (1, 3, 3)).relu()
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            way = conv(x, f"{name}.downsample", 2, 0) if stride == 2 else x
            inner = conv(x, f"{name}.conv1", stride, 1).relu()
            x = (conv(inner, f"{name}.conv2", 1, 1) + way).relu()
    return x


def stirred(net):
    """Norms away from where they begin."""
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point() and value.dim() == 1:
                value.uniform_(0.5, 1.5)
    return net


def test_names_shapes_and_number_of_parameters_are_the_published_ones():
    with torch.device("meta"):
        encoder = ClipEncoder()
    found = {name: tuple(value.shape) for name, value in encoder.net.state_dict().items()}
    assert found == published()
    # torchvision's r3d_18 has 33,371,472, of which the classifier of 400 has 205,200
    assert sum(p.numel() for p in encoder.parameters()) == 33_371_472 - (512 * 400 + 400)
    assert encoder.embedding_dim == 512


def test_maps_of_a_published_clip_have_the_published_sizes():
    seen = {}
    encoder = ClipEncoder(width=2).eval()
    for place, stage in enumerate(encoder.stages()):
        stage.register_forward_hook(lambda _, __, out, place=place: seen.update({place: out.shape}))
    maps = encoder.features(grey_clips(1, 4, 112))
    assert maps.shape == (1, 16, 1, 7, 7)
    sizes = [tuple(seen[place]) for place in (1, 2, 3, 4)]
    assert sizes == [(1, 2, 4, 56, 56), (1, 4, 2, 28, 28), (1, 8, 1, 14, 14), (1, 16, 1, 7, 7)]
    assert encoder.features(grey_clips(1, 16, 112)).shape == (1, 16, 2, 7, 7)
    assert encoder.pooled(maps).shape == (1, 16)


def test_it_computes_what_the_published_layers_do():
    torch.manual_seed(1)
    encoder = ClipEncoder(width=3, size=24).double().eval()
    stirred(encoder.net)
    clips = torch.randn(2, 3, 5, 24, 28, dtype=torch.float64)
    colour = ClipEncoder(width=3, size=24, grey=False).double().eval()
    colour.load_state_dict(encoder.state_dict())
    expected = plain(encoder.net.state_dict(), clips)
    torch.testing.assert_close(colour.features(clips), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(colour(clips), expected.mean(dim=(2, 3, 4)))
    grey = clips[:, :1]
    expected = plain(encoder.net.state_dict(), grey.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(encoder.features(grey), expected, rtol=1e-10, atol=1e-10)


def test_weights_begin_as_published():
    torch.manual_seed(2)
    net = ClipEncoder(width=32).net
    for name, weight in net.state_dict().items():
        if weight.dim() == 5:
            out, _, *kernel = weight.shape
            sd = (2 / (out * torch.tensor(kernel).prod().item())) ** 0.5
            assert abs(weight.std().item() / sd - 1) < 0.06, name
            assert abs(weight.mean().item()) < 0.1 * sd, name
    assert all((p == 1).all() for n, p in net.named_parameters() if n.endswith("1.weight"))
    assert all((p == 0).all() for n, p in net.named_parameters() if n.endswith("bias"))


def test_bytes_are_scaled_clip_by_clip(encoder):
    clips = grey_clips()
    clips[1] = clips[1] // 4 + 7
    clips[2] = 9  # one level
    low, high = clips[:2].flatten(1).float().aminmax(dim=1)
    floats = (clips[:2].float() - low.view(2, 1, 1, 1, 1)) / (high - low).view(2, 1, 1, 1, 1)
    scaled = encoder.scaled(clips)
    torch.testing.assert_close(scaled[:2], floats)
    assert (scaled[2] == 0).all()
    assert torch.equal(encoder.scaled(floats), floats)
    torch.testing.assert_close(encoder(clips)[:2], encoder(floats))
    standard = ClipEncoder(**SMALL, scale="standard").scaled(clips)
    torch.testing.assert_close(standard[:2].mean((1, 2, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard[:2].std((1, 2, 3, 4), correction=0), torch.ones(2))
    assert (standard[2] == 0).all()
    kinetics = ClipEncoder(**SMALL, scale="kinetics").scaled(clips)
    torch.testing.assert_close(kinetics, (clips / 255 - 1.203276 / 3) / (0.666469 / 3))
    colour = ClipEncoder(**SMALL, scale="kinetics", grey=False).scaled(
        clips.expand(-1, 3, 4, 32, 32)
    )
    for channel, (mean, std) in enumerate(
        [(0.43216, 0.22803), (0.394666, 0.22145), (0.37645, 0.216989)]
    ):
        torch.testing.assert_close(colour[:, channel], (clips[:, 0] / 255 - mean) / std)


def test_grey_is_the_same_as_three_equal_colours(encoder):
    clips = grey_clips()
    torch.testing.assert_close(encoder(clips), encoder(clips.expand(-1, 3, -1, -1, -1)))
    colour = ClipEncoder(**SMALL, grey=False).eval()
    torch.testing.assert_close(colour(clips), colour(clips.expand(-1, 3, -1, -1, -1)))


def test_an_encoder_in_grey_sees_no_colour(encoder):
    red, green = torch.zeros(2, 1, 3, 4, 32, 32)
    red[:, 0, :, :16], green[:, 1, :, :16] = 0.587, 0.299  # of one brightness
    torch.testing.assert_close(encoder(red), encoder(green))
    colour = ClipEncoder(**SMALL, grey=False).eval()
    assert not torch.allclose(colour(red), colour(green))
    levels = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    clip = (levels * (torch.rand(1, 1, 4, 32, 32) < 0.5)).to(torch.uint8)
    grey = torch.where(clip[:, :1] > 0, 124, 0).to(torch.uint8)  # 124.2 of ITU-R BT.601
    torch.testing.assert_close(encoder(clip), encoder(grey))


def test_motion_is_what_differs_from_the_mean_over_time_as_strong_as_the_clip():
    torch.manual_seed(6)
    clips = torch.rand(3, 1, 4, 8, 8, dtype=torch.float64)
    clips[1] = clips[1, :, :1] + 0.01 * torch.randn(1, 4, 8, 8, dtype=torch.float64)
    shown = with_motion(clips)
    assert shown.shape == (3, 3, 4, 8, 8)
    assert torch.equal(shown[:, 0], clips[:, 0])
    assert torch.equal(shown[:, 1], shown[:, 2])
    for clip, moves in zip(clips[:, 0].numpy(), shown[:, 1].numpy(), strict=True):
        expected = clip - clip.mean(axis=0)
        torch.testing.assert_close(
            torch.from_numpy(moves), torch.from_numpy(expected * (clip.std() / expected.std()))
        )
    brighter = with_motion(3 * clips + 7)[:, 1]  # of the same strength as what is brighter
    torch.testing.assert_close(brighter, 3 * shown[:, 1])


@pytest.mark.parametrize("frames", [1, 3, 4, 7])
def test_what_stands_still_does_not_move(frames):
    still = torch.rand(1, 1, 1, 16, 16).expand(2, 1, frames, 16, 16).clone()
    still[1] = 0.3  # of one level
    assert with_motion(still)[:, 1:].abs().max() < 1e-3  # and not its rounding
    assert with_motion(torch.zeros(0, 1, frames, 16, 16)).shape == (0, 3, frames, 16, 16)


def test_a_network_with_motion_sees_it_in_two_of_its_three_channels():
    torch.manual_seed(7)
    encoder = ClipEncoder(**SMALL, motion=True).eval()
    colour = ClipEncoder(**SMALL, grey=False).eval()
    colour.load_state_dict(encoder.state_dict())
    clips = grey_clips()
    scaled = encoder.scaled(clips)
    torch.testing.assert_close(encoder(clips), colour(with_motion(scaled)))
    torch.testing.assert_close(encoder(clips), encoder(scaled))  # bytes or floats
    torch.testing.assert_close(encoder(clips), encoder(clips.expand(-1, 3, -1, -1, -1)))
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(clips).isfinite().all()
    with pytest.raises(ValueError, match="motion takes two channels of grey clips"):
        ClipEncoder(**SMALL, motion=True, grey=False)


def test_clips_do_not_mix_in_use(encoder):
    clips = grey_clips()
    alone = torch.cat([encoder(clip) for clip in clips.split(1)])
    torch.testing.assert_close(encoder(clips), alone, atol=1e-5, rtol=1e-5)


def test_the_order_of_frames_changes_the_embedding(encoder):
    clips = grey_clips(2)
    assert not torch.allclose(encoder(clips), encoder(clips.flip(2)))


def test_stages_hold_every_parameter_once_from_the_clip_on(encoder):
    held = [id(p) for stage in encoder.stages() for p in stage.parameters()]
    assert sorted(held) == sorted(id(p) for p in encoder.parameters())
    assert next(encoder.stages()[0].parameters()) is encoder.net.stem[0].weight


def test_gradients_reach_the_first_layer_of_half_precision_too():
    encoder = ClipEncoder(**SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = encoder(grey_clips())
    embeddings.float().square().sum().backward()
    assert encoder.net.stem[0].weight.grad.abs().sum() > 0
    with torch.no_grad():
        whole = encoder.eval()(grey_clips(1))
        with torch.autocast("cpu", torch.bfloat16):
            assert encoder(grey_clips(1)).shape == whole.shape


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_gradients_of_half_precision_are_of_the_clips_not_of_memory(frames):
    torch.manual_seed(4)
    conv = ClipEncoder(width=16).net.layer2[1].conv1[0]
    maps, slopes = torch.randn(2, 16, 32, frames, 14, 14)
    found = []
    for half in (False, True):
        junk = [torch.full((size,), torch.nan) for size in (10**4, 10**5, 10**6, 3 * 10**6)]
        del junk  # what nobody wrote is now no number
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = conv(maps)
        (out.float() * slopes).sum().backward()
        found.append(conv.weight.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.02 * float(found[0].abs().max()))


def test_two_frames_are_padded_as_others_are():
    torch.manual_seed(5)
    conv = ClipEncoder(width=4).net.layer1[0].conv1[0].double()
    maps = torch.randn(2, 4, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(conv(maps), functional.conv3d(maps, conv.weight, padding=1))


@pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped", "prefixed", "compiled"])
def test_the_usual_files_of_published_names_load_whole(tmp_path, kind):
    torch.manual_seed(3)
    source = stirred(ClipEncoder(**SMALL).net).state_dict()
    assert {n: tuple(v.shape) for n, v in source.items()} == published(4)
    weights = source | {"fc.weight": torch.zeros(400, 32), "fc.bias": torch.zeros(400)}
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "wrapped":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    elif kind == "pth":
        torch.save(weights, path)
    else:
        before = "module." if kind == "prefixed" else "module._orig_mod."
        torch.save({before + name: value for name, value in weights.items()}, path)
    net = ClipEncoder(**SMALL).net
    found = load_pretrained(path, net)
    assert all(torch.equal(value, source[name]) for name, value in net.state_dict().items())
    assert found.share == 1.0
    assert found.unused == ("fc.bias", "fc.weight")
    assert "100 of 100 weights matched (100.0% of the parameters), 0 absent" in found.line()


def test_a_file_of_another_width_is_refused_by_name(tmp_path):
    torch.save(ClipEncoder(width=8, size=32).net.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"100 of another shape .*R3D18, 100 weights"):
        load_pretrained(tmp_path / "w.pth", ClipEncoder(**SMALL).net)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"net": "r2plus1d"}, "net must be one of r3d_18"),
        ({"scale": "max"}, "scale one of min_max, standard, kinetics"),
        ({"size": 4}, "size must be 8 to 1024 pixels, got 4"),
        ({"size": 5000}, "size must be 8 to 1024"),
        ({"width": 0}, "width must be 1 to 1024"),
        ({"dropout": 1.0}, r"dropout lie in \[0, 1\)"),
        ({"frames": 0}, "frames and step must be 1 to 1024, got 0 and 1"),
        ({"step": 2000}, "frames and step must be 1 to 1024"),
        ({"embedding_dim": 100}, "embedding_dim of width 64 is 512, got 100"),
    ],
    ids=str,
)
def test_words_that_make_no_network_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ClipEncoder(**words)


@pytest.mark.parametrize(
    ("clips", "error", "message"),
    [
        (torch.zeros(2, 4, 32, 32), ValueError, r"\(N, C, F, H, W\) with C 1 or 3, got \(2, 4"),
        (torch.zeros(2, 2, 4, 32, 32), ValueError, "with C 1 or 3"),
        (torch.zeros(2, 1, 0, 32, 32), ValueError, "a frame or more"),
        (torch.zeros(2, 1, 4, 32, 4), ValueError, "8 pixels a side or more"),
        (torch.zeros(2, 1, 4, 32, 32).long(), TypeError, "uint8 or of a float dtype"),
    ],
    ids=["four", "channels", "frames", "narrow", "dtype"],
)
def test_what_is_no_clip_is_refused(encoder, clips, error, message):
    with pytest.raises(error, match=message):
        encoder(clips)
