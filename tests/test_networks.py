"""Networks: the contract every architecture keeps, and what each promises of itself."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from alphabar.errors import UsageError
from alphabar.networks import NETWORKS
from alphabar.networks.base import flops
from alphabar.networks.layers import BatchNorm2d, SelfAttention, Sinusoid, group_norm
from alphabar.networks.mp_unet import Block, MPAttention, MPConv, MPFourier, MPUNet, mp_silu, mp_sum, unit
from alphabar.networks.resample import Upsample, recompute_blocks
from alphabar.networks.tutorial_unet import TutorialUNet
from alphabar.networks.unet import ResidualBlock, UNet

SIZE = 16
# Those that make a picture of a noisy one. Two take nothing but noise (test_methods.py), one tells what is in
# a picture (test_conditioning.py).
DENOISING = [name for name in NETWORKS if name not in ("generator", "vae", "autoencoder", "classifier")]


def awake(network: nn.Module) -> nn.Module:
    """The network with noise on its parameters, so that nothing that starts at zero hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def batch(n: int = 4, channels: int = 3, size: int = SIZE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, size, size, generator=generator), torch.linspace(0.1, 1, n)


@pytest.fixture(params=DENOISING)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return awake(NETWORKS.build(request.param, channels=3))


class TestEveryNetwork:
    @pytest.mark.parametrize("name", DENOISING)
    @pytest.mark.parametrize("channels", [1, 4])
    def test_the_output_has_the_shape_of_the_picture(self, name: str, channels: int) -> None:
        x, t = batch(2, channels)
        network = NETWORKS.build(name, channels=channels).eval()
        assert network(x, t).shape == x.shape
        assert network.double()(x.double(), t.double()).dtype == torch.float64

    @pytest.mark.parametrize("name", NETWORKS)
    def test_signals_need_not_be_square(self, name: str) -> None:
        network = NETWORKS.build(name, channels=3).eval()
        spatial = network.reduction, 3 * network.reduction
        network.check_size(spatial)
        y = network(torch.randn(2, 3, *spatial), torch.tensor([0.2, 0.8]))
        assert y.shape == ((2, 1) if name == "classifier" else (2, 3, *spatial))
        assert flops(network, spatial) == flops(network, spatial[::-1])

    def test_gradients_reach_every_parameter(self, network: nn.Module) -> None:
        network(*batch()).square().mean().backward()
        dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not dead

    def test_in_eval_pictures_do_not_see_each_other(self, network: nn.Module) -> None:
        network.eval().double()
        x, t = (value.double() for value in batch())
        order = torch.tensor([2, 0, 3, 1])
        y = network(x, t)
        torch.testing.assert_close(network(x[order], t[order]), y[order], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(network(x[:1], t[:1]), y[:1], atol=1e-9, rtol=1e-9)
        assert torch.equal(network(x, t), y)

    def test_the_noise_level_matters_to_each_picture(self, network: nn.Module) -> None:
        network.eval()
        x, t = batch()
        changed = (network(x, t.flip(0)) - network(x, t)).flatten(1).abs().amax(1)
        assert (changed > 1e-3).all()

    def test_neighbouring_steps_differ_under_autocast(self, network: nn.Module) -> None:
        network.eval()
        x, _ = batch(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            a, b = (network(x, torch.tensor([t])) for t in (0.9967, 1.0))
        assert not torch.equal(a, b)

    def test_sizes(self, network: nn.Module) -> None:
        for size in (network.reduction, 3 * network.reduction):
            network.check_size((size, size))
            assert network.eval()(*batch(1, size=size)).shape[-1] == size
        for size in (0, 1, network.reduction + 1, 3 * network.reduction - 1):
            with pytest.raises(UsageError, match=f"size = {size}: .* multiples of {network.reduction}"):
                network.check_size((size, size))
        below = 50 // network.reduction * network.reduction
        with pytest.raises(UsageError, match=f"choose {below} / {below + network.reduction}"):
            network.check_size((48, 50))

    def test_an_unasked_condition_is_refused(self, network: nn.Module) -> None:
        with pytest.raises(UsageError, match="takes no condition"):
            network(*batch(), torch.zeros(4, 8))

    def test_flops_do_not_touch_the_network(self, network: nn.Module) -> None:
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert flops(network, (4 * SIZE, 4 * SIZE)) > 3.5 * flops(network, (2 * SIZE, 2 * SIZE))
        assert network.training
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_the_compiler_sees_one_graph(self, network: nn.Module) -> None:
        x, t = batch(2)
        compiled = torch.compile(network.eval(), backend="eager", fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(x, t), network(x, t), atol=1e-5, rtol=1e-5)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class TestTutorialUNet:
    def test_figures(self) -> None:
        network = TutorialUNet(channels=3)
        assert parameters(network) == pytest.approx(15.5e6, rel=0.01)
        assert flops(network, (64, 64)) == pytest.approx(8.6e9, rel=0.01)

    @pytest.mark.parametrize("training", [True, False])
    def test_against_the_tutorial_written_out(self, training: bool) -> None:
        network = awake(TutorialUNet(channels=3, widths=(8, 16, 32))).double().train(training)
        p = dict(network.named_parameters()) | dict(network.named_buffers())
        index = torch.tensor([0, 7, 150, 299])
        x = batch()[0].double()

        def normed(name: str, h: Tensor) -> Tensor:
            mean, var = p[f"{name}.running_mean"].clone(), p[f"{name}.running_var"].clone()
            return F.batch_norm(h, mean, var, p[f"{name}.weight"], p[f"{name}.bias"], training)

        def block(name: str, h: Tensor, emb: Tensor, up: bool) -> Tensor:
            h = F.conv2d(h, p[f"{name}.conv1.weight"], p[f"{name}.conv1.bias"], padding=1)
            h = normed(f"{name}.bnorm1", F.relu(h))
            time = F.relu(F.linear(emb, p[f"{name}.time_mlp.weight"], p[f"{name}.time_mlp.bias"]))
            h = F.conv2d(
                h + time[:, :, None, None], p[f"{name}.conv2.weight"], p[f"{name}.conv2.bias"], padding=1
            )
            h = normed(f"{name}.bnorm2", F.relu(h))
            transform = F.conv_transpose2d if up else F.conv2d
            return transform(h, p[f"{name}.transform.weight"], p[f"{name}.transform.bias"], 2, 1)

        frequencies = torch.tensor([10000 ** (-i / 15) for i in range(16)], dtype=torch.float64)
        angles = index[:, None] * frequencies
        emb = torch.cat([angles.sin(), angles.cos()], dim=1)
        emb = F.relu(F.linear(emb, p["time_mlp.0.weight"], p["time_mlp.0.bias"]))
        h = F.conv2d(x, p["conv0.weight"], p["conv0.bias"], padding=1)
        h1 = block("downs.0", h, emb, up=False)
        h2 = block("downs.1", h1, emb, up=False)
        h = block("ups.0", torch.cat([h2, h2], dim=1), emb, up=True)
        h = block("ups.1", torch.cat([h, h1], dim=1), emb, up=True)
        expected = F.conv2d(h, p["output.weight"], p["output.bias"])
        t = (index + 1).double() / 300
        torch.testing.assert_close(network(x, t), expected, atol=1e-10, rtol=1e-10)

    @pytest.mark.parametrize("setting", [{"widths": (64,)}, {"widths": (8, 0)}, {"time_dim": 3}])
    def test_impossible_settings_are_named(self, setting: dict) -> None:
        with pytest.raises(UsageError, match=next(iter(setting))):
            TutorialUNet(channels=3, **setting)


TINY = {"widths": (8, 16), "attention": 1, "head_dim": 8}


class TestUNet:
    def test_what_is_asked_does_not_drown_the_noise_level_at_first(self) -> None:
        network = UNet([("classes", 9)] * 4, channels=3, widths=(32, 64), attention=0)
        level = network.embed(network.sinusoid(1000 * torch.rand(64)))
        asked = network.embed_cond(torch.randint(9, (64, 4)).float())
        assert asked.std() < 0.5 * level.std()
        assert network.embed_cond.unconditional(1).isnan().all() and network.embed_cond.unknown.std() < 0.05

    def test_figures(self) -> None:
        network = UNet(channels=3)
        assert parameters(network) == pytest.approx(7.5e6, rel=0.01)
        assert flops(network, (64, 64)) == pytest.approx(4.2e9, rel=0.01)

    def test_flops_of_attention(self) -> None:
        def of(attention: int) -> int:
            return flops(UNet(channels=3, widths=(32, 64), attention=attention, head_dim=32), (16, 16))

        c, positions = 64, 8 * 8
        products = 2 * positions * c * 3 * c + 2 * positions * c * c + 2 * 2 * positions**2 * c
        assert of(1) - of(0) == 3 * products  # one going down, one in the middle, one going up

    def test_time_is_embedded_in_thousandths(self) -> None:
        network = UNet(channels=3, **TINY)
        seen = []
        network.sinusoid.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
        x, t = batch()
        network(x, t)
        torch.testing.assert_close(seen[0], 1000 * t)

    def test_starts_at_zero(self) -> None:
        assert not UNet(channels=3, **TINY)(*batch()).any()

    def test_blocks_start_as_the_identity(self) -> None:
        x, embedding = torch.randn(2, 32, 8, 8), torch.randn(2, 16)
        assert torch.equal(ResidualBlock(32, 32, 16, dropout=0.0, head_dim=16)(x, embedding), x)

    def test_dropout_only_in_training(self) -> None:
        network = awake(UNet(channels=3, **TINY, dropout=0.5))
        x, t = batch()
        assert not torch.equal(network(x, t), network(x, t))
        network.eval()
        assert torch.equal(network(x, t), network(x, t))

    def test_condition(self) -> None:
        network = awake(UNet([("classes", 5), ("numbers", 3)], channels=3, **TINY)).eval()
        x, t = batch()
        cond = torch.randn(4, 4)
        cond[:, 0] = torch.tensor([0.0, 4.0, 2.0, 2.0])
        y = network(x, t, cond)

        def changed(row: int, column: int, value: float) -> list[bool]:
            other = cond.clone()
            other[row, column] = value
            return ((network(x, t, other) - y).flatten(1).abs().amax(1) > 1e-4).tolist()

        assert (
            changed(2, 0, 3.0) == changed(2, 3, 9.0) == changed(2, 0, math.nan) == [False, False, True, False]
        )
        unknown = torch.full((4, 4), math.nan)
        assert torch.equal(network(x, t), network(x, t, unknown))
        with pytest.raises(UsageError, match=r"\(n, 4\)"):
            network(x, t, torch.zeros(4, 5))

    def test_a_field_with_one_unknown_number_is_unknown(self) -> None:
        network = awake(UNet([("numbers", 2)], channels=3, **TINY)).eval()
        x, t = batch()
        half = torch.tensor([[math.nan, 7.0]]).expand(4, 2)
        assert torch.equal(network(x, t, half), network(x, t))

    def test_unknown_values_give_finite_gradients_and_teach_the_unknown(self) -> None:
        network = awake(UNet([("classes", 5), ("numbers", 3)], channels=3, **TINY))
        x, t = batch()
        cond = torch.randn(4, 4).abs()
        cond[1] = math.nan
        network(x, t, cond).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        assert network.embed_cond is not None and network.embed_cond.unknown.grad.abs().amin(1).gt(0).all()

    def test_middle_attention(self) -> None:
        assert UNet(channels=3, widths=(32, 64), attention=0).middle_attention() is None
        assert UNet(channels=3).middle_attention() is not None

    def test_blocks_of_pixels_are_channels(self) -> None:
        network = awake(UNet(channels=3, **TINY, patch=2)).eval()
        on_blocks = UNet(channels=12, **TINY).eval()
        on_blocks.load_state_dict(network.state_dict())
        x, t = batch()
        expected = F.pixel_shuffle(on_blocks(F.pixel_unshuffle(x, 2), t), 2)
        torch.testing.assert_close(network(x, t), expected)
        with pytest.raises(UsageError, match="multiples of 4"):
            network.check_size((SIZE, SIZE + 2))

    def test_every_skip_connection_is_used_once(self) -> None:
        network = UNet(channels=3, widths=(32, 64, 128), blocks=2, attention=0)
        widths = [block.conv1.in_channels for up in network.ups for block in up.blocks]
        assert widths == [256, 256, 128, 128, 64, 64]
        assert network(*batch()).shape == (4, 3, SIZE, SIZE)

    @pytest.mark.parametrize(
        "setting",
        [
            {"widths": ()},
            {"widths": (3, 8)},
            {"blocks": 0},
            {"patch": 0},
            {"attention": 5},
            {"head_dim": 60},
            {"dropout": 1.0},
        ],
    )
    def test_impossible_settings_are_named(self, setting: dict) -> None:
        with pytest.raises(UsageError, match=next(iter(setting))):
            UNet(channels=3, **setting)

    @pytest.mark.parametrize(("width", "groups"), [(64, 16), (256, 32), (144, 24), (100, 25), (7, 1)])
    def test_group_norm_takes_any_width(self, width: int, groups: int) -> None:
        assert group_norm(width).num_groups == groups


def magnitude(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


SMALL = {"widths": (16, 32), "head_dim": 16}


class TestMPUNet:
    def test_figures(self) -> None:
        network = MPUNet(channels=3)
        assert parameters(network) == pytest.approx(6.66e6, rel=0.01)
        assert flops(network, (64, 64)) == pytest.approx(1.54e9, rel=0.01)

    def test_every_level_costs_the_same(self) -> None:
        """Where widths double, a picture of twice the size and one level more costs one level more."""
        one, two, three = (
            flops(MPUNet(channels=3, widths=widths), (size, size))
            for widths, size in [((64,), 16), ((32, 64), 32), ((16, 32, 64), 64)]
        )
        assert three - two == pytest.approx(two - one, rel=0.1)

    @pytest.mark.parametrize(("widths", "size"), [((32,), 16), ((16, 32), 32), ((8, 16, 16, 32), 128)])
    def test_a_level_more_for_every_doubling_of_the_size(self, widths: tuple[int, ...], size: int) -> None:
        network = awake(MPUNet(channels=3, widths=widths, head_dim=16))
        assert network(*batch(1, size=size)).shape[-1] == size

    @pytest.mark.parametrize("layer", [MPConv(64, 96, 0), MPConv(64, 96, 1), MPConv(64, 96, 3)])
    def test_a_layer_keeps_the_magnitude_whatever_its_weights_scale(self, layer: MPConv) -> None:
        x = torch.randn(512, 64) if layer.weight.ndim == 2 else torch.randn(8, 64, 16, 16)
        y = layer(x)
        inner = y if y.ndim == 2 else y[..., 1:-1, 1:-1]  # at the border some inputs are zeros
        assert magnitude(inner) == pytest.approx(1, abs=0.05)
        layer.weight.data *= 7
        torch.testing.assert_close(layer(x), y, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(layer(x, 0.5), 0.5 * layer(x))

    def test_functions_keep_the_magnitude(self) -> None:
        a, b = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
        assert magnitude(mp_silu(a)) == pytest.approx(1, abs=0.01)
        assert magnitude(mp_sum(a, b, 0.3)) == pytest.approx(1, abs=0.01)
        torch.testing.assert_close(mp_sum(a, torch.zeros_like(a), 0.3), a * 0.7 / math.sqrt(0.58))
        x = 5 * torch.randn(3, 16, 4)
        torch.testing.assert_close(unit(x, 1).square().mean(1), torch.ones(3, 4))
        assert not unit(torch.zeros(3, 4), 1).any()

    def test_fourier_features(self) -> None:
        features = MPFourier(4096)
        assert magnitude(features(torch.tensor([-0.7, 0.2]))) == pytest.approx(1, abs=0.03)
        assert not list(features.parameters()) and set(features.state_dict()) == {"f", "phi"}
        features.f[:2], features.phi[:2] = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.25])
        root = math.sqrt(2)
        assert features(torch.tensor([0.5]))[0, :2].tolist() == pytest.approx([-root, 0], abs=1e-5)

    def test_features_start_near_magnitude_one_throughout(self) -> None:
        """Zeros beyond the border, and attention to uncorrelated positions, take a little away."""
        torch.manual_seed(0)
        network = MPUNet(channels=3, widths=(48, 96), head_dim=48)
        seen: dict[str, float] = {}
        for name, module in network.named_modules():
            if isinstance(module, Block):
                module.register_forward_hook(lambda _m, _i, y, name=name: seen.update({name: magnitude(y)}))
        x, t = batch(8, size=32)
        network(x, t)
        assert len(seen) == 5 and all(0.7 < value < 1.1 for value in seen.values()), seen

    def test_starts_at_zero(self) -> None:
        x, t = batch()
        network = MPUNet(channels=3, **SMALL)
        assert not network(x, t).any()
        network.output_gain.data.fill_(1.0)
        assert 0.6 < magnitude(network(x, t)) < 1.1

    def test_pixels_come_out_where_they_went_in(self) -> None:
        network = MPUNet(channels=3, **SMALL)
        blocks = []
        network.downs[0].shrink.register_forward_hook(lambda _m, inputs, _y: blocks.append(inputs[0]))
        network.output.register_forward_hook(lambda _m, _i, _y: blocks[0][:, :12])
        x, t = batch()
        assert torch.equal(network(x, t), x)
        assert torch.equal(blocks[0][:, 4], x[:, 1, ::2, ::2])
        assert torch.equal(blocks[0][:, 6], x[:, 1, 1::2, ::2])
        assert (blocks[0][:, 12] == 1).all()

    def test_block_written_out(self) -> None:
        block = awake(Block(8, 6, 5, dropout=0.0, head_dim=None)).double()
        x, e = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 5).double()

        def w(layer: MPConv) -> Tensor:
            return layer.weight / (layer.weight.flatten(1).norm(dim=1) + 1e-4).reshape(
                -1, *[1] * (layer.weight.ndim - 1)
            )

        c = 1 + block.gain * e @ w(block.modulation).T
        h = F.conv2d(F.silu(x) / 0.596, w(block.conv1), padding=1) * c[:, :, None, None]
        h = F.conv2d(F.silu(h) / 0.596, w(block.conv2), padding=1)
        expected = (0.7 * F.conv2d(x, w(block.skip)) + 0.3 * h) / math.sqrt(0.7**2 + 0.3**2)
        torch.testing.assert_close(block(x, e), expected)

    def test_attention_written_out(self) -> None:
        layer = MPAttention(8, head_dim=4).double()
        x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
        y = torch.empty_like(x)
        q, k, v = layer.qkv(x).flatten(2).chunk(3, dim=1)
        for head in (slice(0, 4), slice(4, 8)):
            a, b, c = (unit(part[:, head], 1) for part in (q, k, v))
            scores = a.transpose(1, 2) @ b / math.sqrt(4)  # (n, to, from)
            y[:, head] = (c @ scores.softmax(dim=2).transpose(1, 2)).unflatten(2, (3, 5))
        torch.testing.assert_close(layer(x), mp_sum(x, layer.out(y), 0.3))

    def test_dropout_only_in_training(self) -> None:
        network = awake(MPUNet(channels=3, **SMALL, dropout=0.5))
        x, t = batch()
        assert not torch.equal(network(x, t), network(x, t))
        network.eval()
        assert torch.equal(network(x, t), network(x, t))

    def test_condition(self) -> None:
        network = awake(MPUNet([("classes", 5)], channels=3, **SMALL)).eval()
        x, t = batch()
        cond = torch.tensor([[0.0], [4.0], [2.0], [math.nan]])
        y = network(x, t, cond)
        assert torch.equal(network(x, t)[3], y[3])
        cond[2] = 3.0
        changed = (network(x, t, cond) - y).flatten(1).abs().amax(1) > 1e-5
        assert changed.tolist() == [False, False, True, False]

    def test_a_narrower_network_goes_on_inside_a_wider_one(self) -> None:
        conditions = (("classes", 3), ("numbers", 1))
        torch.manual_seed(0)
        small = awake(MPUNet(conditions, channels=3, widths=(16, 32), head_dim=16)).eval()
        wide = MPUNet(conditions, channels=3, widths=(24, 64), head_dim=16).eval()
        x, t = batch()
        cond = torch.tensor([[0.0, 0.5], [2.0, torch.nan], [torch.nan, -1.0], [torch.nan, torch.nan]])
        with torch.no_grad():
            expected = small(x, t, cond)
            wide.load_compatible(small.state_dict())
            alike = F.cosine_similarity(wide(x, t, cond).flatten(1), expected.flatten(1))
        # Not equal: where features are normalised, the new channels count too.
        assert (alike > 0.97).all()
        wide(x, t, cond).square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in wide.parameters())

    def test_new_channels_have_no_say_at_first(self) -> None:
        """Whatever the new channels of the last level say, the picture is the same."""
        small = awake(MPUNet(channels=3, widths=(8, 16), head_dim=8)).eval()
        wide = MPUNet(channels=3, widths=(16, 32), head_dim=8).eval()
        wide.load_compatible(small.state_dict())
        block = wide.ups[0].blocks[0]
        h = torch.randn(2, 64, 8, 8)
        other = h.clone()
        other[:, 16:32] += torch.randn(2, 16, 8, 8)  # new ones of what comes up,
        other[:, 48:] += torch.randn(2, 16, 8, 8)  # and of the skip connection beside it
        embedding = torch.randn(2, 32)
        with torch.no_grad():
            a, b = block(h, embedding)[:, :16], block(other, embedding)[:, :16]
        assert torch.allclose(a, b, atol=1e-5)

    def test_weights_that_do_not_fit_are_refused(self) -> None:
        small = MPUNet(channels=3, widths=(8, 16), head_dim=8)
        with pytest.raises(UsageError, match=r"do not fit this network \(.* \[8\], theirs \[16\]\)"):
            small.load_compatible(MPUNet(channels=3, widths=(16, 32), head_dim=8).state_dict())
        with pytest.raises(UsageError, match="theirs none"):
            MPUNet(channels=3, widths=(8, 16, 32), head_dim=8).load_compatible(small.state_dict())

    def test_an_embedding_of_other_labels_begins_anew(self) -> None:
        asked = MPUNet((("classes", 3),), channels=3, widths=(8, 16), head_dim=8)
        other = MPUNet((("classes", 5),), channels=3, widths=(8, 16), head_dim=8)
        before = other.embed_cond.embed[0].weight.clone()
        other.load_compatible(asked.state_dict())
        assert torch.equal(other.embed_cond.embed[0].weight, before)
        assert torch.equal(other.middle.conv1.weight, asked.middle.conv1.weight)
        MPUNet(channels=3, widths=(8, 16), head_dim=8).load_compatible(
            asked.state_dict()
        )  # no condition any more

    def test_middle_attention_can_be_switched_off(self) -> None:
        network = awake(MPUNet(channels=3, **SMALL)).eval()
        x, t = batch()
        y = network(x, t)
        with network.middle_attention().identity_attention(torch.tensor([True, False, True, False])):
            changed = (network(x, t) - y).flatten(1).abs().amax(1) > 1e-6
        assert changed.tolist() == [True, False, True, False]
        assert torch.equal(network(x, t), y)

    @pytest.mark.parametrize(
        "setting", [{"widths": ()}, {"widths": (0, 64)}, {"blocks": 0}, {"head_dim": 60}, {"dropout": 1.0}]
    )
    def test_impossible_settings_are_named(self, setting: dict) -> None:
        with pytest.raises(UsageError, match=next(iter(setting))):
            MPUNet(channels=3, **setting)


def test_sinusoid() -> None:
    e = Sinusoid(8)(torch.tensor([0.0, 3.0]))
    assert e[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    expected = [math.sin(3 * 10000 ** (-i / 3)) for i in range(4)]
    expected += [math.cos(3 * 10000 ** (-i / 3)) for i in range(4)]
    assert e[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_self_attention_written_out() -> None:
    layer = awake(SelfAttention(8, head_dim=4)).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    y = torch.empty_like(x)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)
    for head in (slice(0, 4), slice(4, 8)):
        scores = q[:, head].transpose(1, 2) @ k[:, head] / math.sqrt(4)  # (n, to, from)
        y[:, head] = (v[:, head] @ scores.softmax(dim=2).transpose(1, 2)).unflatten(2, (3, 5))
    torch.testing.assert_close(layer(x), x + layer.out(y))


def normalise(x: Tensor, weight_of_output: Tensor, norm: nn.Module) -> dict[str, Tensor]:
    """What two steps of batch normalisation leave behind."""
    x = x.clone().requires_grad_()
    norm(x + 3)
    y = norm(x)
    (y * weight_of_output).sum().backward()
    return {
        "y": y.detach(),
        "x.grad": x.grad,
        "weight.grad": norm.weight.grad,
        "bias.grad": norm.bias.grad,
        **{name: buffer.clone() for name, buffer in norm.named_buffers()},
    }


def normalise_a_share(rank: int, folder: Path, inputs: tuple[Tensor, Tensor]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    share = slice(0, 3) if rank == 0 else slice(3, 8)
    norm = BatchNorm2d(5)
    result = normalise(*(value[share] for value in inputs), norm)
    norm.eval()
    result["eval"] = norm(inputs[0][share]).detach()
    torch.save(result, folder / f"{rank}.pt")
    dist.barrier()  # who leaves first must not pull the connection from under the other
    dist.destroy_process_group()


def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    inputs = (torch.randn(8, 5, 4, 4) * 2 + 1, torch.randn(8, 5, 4, 4))
    mp.spawn(normalise_a_share, (tmp_path, inputs), nprocs=2)
    a, b = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    norm = nn.BatchNorm2d(5)
    expected = normalise(*inputs, norm)
    expected["eval"] = norm.eval()(inputs[0]).detach()
    assert norm.state_dict().keys() == BatchNorm2d(5).state_dict().keys()
    for name in ("y", "x.grad", "eval"):
        torch.testing.assert_close(torch.cat([a[name], b[name]]), expected[name], atol=1e-5, rtol=1e-5)
    for name in ("weight.grad", "bias.grad"):
        torch.testing.assert_close(a[name] + b[name], expected[name], atol=1e-5, rtol=1e-5)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(a[name], expected[name], atol=1e-6, rtol=1e-6)
        assert torch.equal(a[name], b[name])


def gradients(network: nn.Module, step: nn.Module, *inputs: Tensor, bf16: bool) -> dict[str, Tensor]:
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        output = step(*inputs)
    output.float().square().mean().backward()
    return {name: p.grad.flatten().clone() for name, p in network.named_parameters()}


class TestUpsample:
    def test_it_repeats_rows_and_columns(self) -> None:
        x = torch.randn(2, 3, 4, 5)
        assert torch.equal(Upsample()(x), F.interpolate(x, scale_factor=2, mode="nearest"))

    @pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
    def test_compiled_in_bf16_its_gradient_is_right(self) -> None:
        """With nn.Upsample in its place the gradients of the first convolution are 0 (torch 2.13)."""
        torch.manual_seed(0)
        up = nn.Sequential(Upsample(), nn.Conv2d(16, 16, 3, padding=1))
        below = nn.Conv2d(3, 16, 3, padding=1)
        network = nn.Sequential(below, up, nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))
        x = torch.randn(4, 3, 8, 8)
        right = gradients(network, network, x, bf16=False)
        found = gradients(network, torch.compile(network, dynamic=False), x, bf16=True)
        for name, wanted in right.items():
            assert torch.cosine_similarity(found[name], wanted, dim=0) >= 0.9, name

    def test_weights_keep_their_names(self) -> None:
        names = UNet(channels=3, widths=(8, 16), attention=0).state_dict()
        assert {"ups.0.grow.1.weight", "ups.0.grow.1.bias"} <= names.keys()


class TestLargerPatches:
    def test_a_network_of_larger_patches_begins_as_the_trained_one_on_means_of_pixels(self):
        small = UNet(channels=3, widths=(8, 16), head_dim=8, patch=2).eval()
        for parameter in small.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
        large = UNet(channels=3, widths=(8, 16), head_dim=8, patch=4).eval()
        large.load_compatible(small.state_dict())
        x, t = torch.randn(2, 3, 32, 32), torch.rand(2)
        wanted = (
            small(torch.nn.functional.avg_pool2d(x, 2), t).repeat_interleave(2, 2).repeat_interleave(2, 3)
        )
        assert torch.allclose(large(x, t), wanted, atol=1e-5)

    def test_other_patches_are_refused(self):
        small = UNet(channels=3, widths=(8, 16), head_dim=8, patch=2)
        for patch in (1, 3):
            other = UNet(channels=3, widths=(8, 16), head_dim=8, patch=patch)
            with pytest.raises(UsageError, match=r"stem\.weight"):
                other.load_compatible(small.state_dict())


PLAIN = {"widths": (8, 16), "head_dim": 8, "patch": 2, "attention": 1}
NESTED = {**PLAIN, "name": "nested_unet", "detail_width": 8}


class TestNestedUNet:
    @pytest.mark.parametrize(("times", "patch"), [(2, 2), (3, 2), (4, 2), (2, 1), (2, 3)])
    def test_it_begins_as_the_trained_network_of_the_coarse_picture(self, times, patch):
        small = disturbed(UNet(channels=3, **PLAIN | {"patch": patch}))
        large = NETWORKS.build(NESTED | {"times": times, "patch": patch}, channels=3).eval()
        large.load_compatible(small.state_dict())
        side = times * patch * 4
        x, t = torch.randn(2, 3, side, side), torch.rand(2)
        wanted = small(F.avg_pool2d(x, times), t).repeat_interleave(times, 2).repeat_interleave(times, 3)
        assert torch.allclose(large(x, t), wanted, atol=1e-5)

    def test_the_detail_leaves_the_coarse_picture_as_it_is(self):
        small, large = UNet(channels=3, **PLAIN), disturbed(NETWORKS.build(NESTED, channels=3))
        small.load_state_dict(large.coarse.state_dict())
        x, t = torch.randn(2, 3, 32, 32), torch.rand(2)
        found = large(x, t)
        assert torch.allclose(F.avg_pool2d(found, 2), small.eval()(F.avg_pool2d(x, 2), t), atol=1e-5)
        assert (found - F.avg_pool2d(found, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)).std() > 0.1

    def test_in_training_one_sample_in_four_has_detail(self):
        network = disturbed(NETWORKS.build(NESTED, channels=3))
        x, t = torch.randn(6, 3, 32, 32), torch.rand(6)
        whole, some = network.eval()(x, t), network.train()(x, t)
        flat = F.avg_pool2d(whole, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        wanted = torch.where((torch.arange(6) % 4 == 0)[:, None, None, None], whole, flat)
        assert torch.allclose(some, wanted, atol=1e-5)

    def test_the_coarse_network_learns_as_if_it_were_alone(self):
        large = disturbed(NETWORKS.build(NESTED, channels=3)).train()
        small = UNet(channels=3, **PLAIN).train()
        small.load_state_dict(large.coarse.state_dict())
        x, t, wanted = torch.randn(4, 3, 32, 32), torch.rand(4), torch.randn(4, 3, 32, 32)
        (large(x, t) - wanted).square().mean().backward()
        (small(F.avg_pool2d(x, 2), t) - F.avg_pool2d(wanted, 2)).square().mean().backward()
        for name, parameter in small.named_parameters():
            found = large.coarse.get_parameter(name).grad
            assert torch.allclose(found, parameter.grad, atol=1e-5), name
        assert all(p.grad is not None and p.grad.any() for p in large.detail.parameters())

    def test_restoration_has_the_whole_derivative(self):
        network = disturbed(NETWORKS.build(NESTED, channels=3)).double()
        x, v, w = torch.randn(3, 2, 3, 32, 32, dtype=torch.float64).unbind()
        t = torch.rand(2, dtype=torch.float64)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad((network(x, t) * w).sum(), x)
        step = 1e-5
        with torch.no_grad():
            change = (network(x + step * v, t) - network(x - step * v, t)) / (2 * step)
        assert (gradient * v).sum().item() == pytest.approx((change * w).sum().item(), rel=1e-5)

    def test_trained_detail_is_taken_over_where_its_form_is_the_same(self):
        trained = disturbed(NETWORKS.build(NESTED, channels=3))
        same, larger = (NETWORKS.build(NESTED | {"times": n}, channels=3).eval() for n in (2, 3))
        for network in (same, larger):
            network.load_compatible(trained.state_dict())
        x, t = torch.randn(1, 3, 32, 32), torch.rand(1)
        assert torch.equal(same(x, t), trained(x, t))
        assert torch.equal(larger.coarse.stem.weight, trained.coarse.stem.weight)
        assert not larger.detail.output.weight.any()

    def test_only_the_detail_is_learned_on_request(self):
        small = UNet((("class", 3),), channels=3, dropout=0.5, **PLAIN)
        settings = NESTED | {"only_detail": True, "dropout": 0.5}
        large = NETWORKS.build(settings, channels=3, conditions=(("class", 3),))
        large.load_compatible(small.state_dict())
        x, t, cond = torch.randn(4, 3, 32, 32), torch.rand(4), torch.eye(3)[[0, 1, 2, 1]]
        found = large.train()(x, t, cond)
        (found - torch.randn(found.shape)).square().mean().backward()
        coarse = small.eval()(F.avg_pool2d(x, 2), t, cond)
        assert torch.allclose(F.avg_pool2d(found, 2), coarse, atol=1e-5)  # no dropout either
        assert all(p.grad is None for p in large.coarse.parameters())
        assert large.detail.output.weight.grad.any()

    @pytest.mark.parametrize("setting", ["times", "detail_width", "patch"])
    def test_absurd_sizes_are_refused_by_name(self, setting):
        with pytest.raises(UsageError, match=f"network.{setting} = "):
            NETWORKS.resolve(NESTED | {setting: 10**9})

    def test_another_coarse_network_is_refused(self):
        large = NETWORKS.build(NESTED, channels=3)
        with pytest.raises(UsageError, match="downs"):
            large.load_compatible(UNet(channels=3, **PLAIN | {"widths": (8, 8)}).state_dict())


def disturbed(network: nn.Module) -> Any:
    """A network whose weights that begin at zero are not."""
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return network.eval()


@pytest.mark.parametrize("name", ["unet", "nested_unet", "mp_unet"])
def test_recomputed_blocks_have_the_same_gradients(name):
    settings = {"name": name, "widths": (8, 16), "head_dim": 8, "dropout": 0.2}
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = NETWORKS.build(settings, channels=3).train()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
        if recompute:
            recompute_blocks(network)
        torch.manual_seed(1)
        network(torch.randn(2, 3, 16, 16), torch.rand(2)).square().mean().backward()
        gradients.append({key: p.grad for key, p in network.named_parameters()})
    for key, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][key]), key
