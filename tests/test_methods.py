"""The GAN, the VAE and distillation: their losses against closed forms, and the same life as any model."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.denoiser import FunctionDenoiser, NetworkDenoiser
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import ddim, last_step
from alphabar.diffusion.schedules import broadcast
from alphabar.errors import AlphabarError, UsageError
from alphabar.methods.gan import Gan, augmented, gradient_penalty
from alphabar.methods.registry import METHODS, method_of
from alphabar.networks import NETWORKS
from alphabar.networks.encoder_decoder import latents
from alphabar.networks.vae import VariationalAutoencoder, kl_to_standard_normal
from alphabar.recipes.derive import SIGMA_FIRST, distilled
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe
from alphabar.reporting.report import write_report
from alphabar.reporting.report_figures import make_report_figures
from alphabar.restoration.operators.mask import Mask
from alphabar.restoration.restore import restore
from alphabar.runs.model import build_denoiser, load_model
from alphabar.runtime import Runtime
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import nfe_per_sample, sampling_settings
from alphabar.tensor_files import unpack_tensors
from alphabar.training.loop import MAX_BAD_STEPS, begin, train
from refusals import refused
from training_child import tiny_dataset

BASELINES = ("gan", "vae")


def tiny(name: str, *settings: str) -> Recipe:
    small = [
        "data.size=16",
        "batch=8",
        "ema.half_life=64",
        "monitor.share=0",
        "monitor.samples=1",
        "monitor.distance=0",
    ]
    widths = ["network.widths=[8,16]", "network.head_dim=16"] if name == "lean" else ["network.width=4"]
    return with_settings(named_recipe(name), [*small, *widths, *settings])


def pag(scale: float, interval: tuple[float, float] | None = None) -> str:
    """The setting of a recipe that guides its samples with perturbed attention."""
    spec = {"name": "pag", "scale": scale, "interval": interval}
    return f"sampling.guidance={json.dumps([spec])}"


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return tiny_dataset(picture_folder)


def built(recipe: Recipe):
    denoiser = build_denoiser(recipe)
    return METHODS.build(recipe.method, denoiser=denoiser, recipe=recipe, runtime=Runtime())


class TestLosses:
    def test_a_linear_critic_has_its_weight_for_a_gradient(self):
        weight, x = torch.randn(3, 8, 8), torch.randn(5, 3, 8, 8, requires_grad=True)
        penalty = gradient_penalty((x * weight).sum((1, 2, 3)), x)
        assert torch.allclose(penalty, weight.square().sum().expand(5))

    def test_a_critic_that_cannot_tell_leaves_log_two(self):
        gan = built(tiny("gan"))
        for parameter in gan.critic.parameters():
            nn.init.zeros_(parameter)
        x = torch.randn(4, 3, 16, 16)
        assert torch.allclose(gan.losses(x, torch.ones(4), x, None), torch.tensor(math.log(2)))

    def test_the_critic_learns_to_tell_and_the_generator_hears_of_it(self):
        torch.manual_seed(0)
        gan = built(tiny("gan", "method.augment=false"))
        real, eps = torch.full((8, 3, 16, 16), 0.8), torch.randn(8, 3, 16, 16)
        for i in range(30):
            gan.prepare(real, eps, 8 * i, 0.0, 5e-3)
        told = gan.losses(real, torch.ones(8), eps, None).mean()
        assert told > 1.5 * math.log(2)
        before = [p.grad.clone() for p in gan.critic.parameters()]  # of its own update
        told.backward()
        assert all(map(torch.equal, before, [p.grad for p in gan.critic.parameters()]))
        assert any(p.grad is not None and p.grad.any() for p in gan.generator.parameters())

    def test_penalties_come_every_few_updates(self, monkeypatch):

        asked = []
        monkeypatch.setattr(
            "alphabar.methods.gan.gradient_penalty", lambda c, x: asked.append(1) or c.new_zeros(len(c))
        )
        gan = built(tiny("gan", "method.every=4"))
        x = torch.randn(8, 3, 16, 16)
        for i in range(8):
            gan.prepare(x, x, 8 * i, 0.0, 1e-4)
        assert len(asked) == 2 * 2  # R1 and R2, twice

    def test_penalties_that_come_seldom_weigh_as_much_as_those_that_come_always(self):
        """A linear critic w has |grad C|² = |w|², so R1 and R2 pull it back by 2 gamma w an update."""
        gamma, every, rate = 0.3, 4, 0.5
        gan = built(tiny("gan", f"method.gamma={gamma}", f"method.every={every}", "method.augment=false"))
        gan.critic = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1, bias=False))
        (weight,) = gan.critic.parameters()
        start, real, eps = weight.detach().clone(), torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16)
        gan.optimizer = torch.optim.SGD(gan.critic.parameters())
        moves = []
        for update in range(2 * every):
            weight.data.copy_(start)
            gan.prepare(real, eps, 8 * update, 0.0, rate)
            moves.append(weight.detach() - start)
        fake = gan.generator(eps, torch.ones(8)).detach()
        apart = ((fake - real).flatten(1) @ start.T).sigmoid()
        plain = -rate * (apart * (fake - real).flatten(1)).mean(0)
        for update, move in enumerate(moves):
            pull = rate * 2 * gamma * start * (every if update % every == 0 else 0)
            assert torch.allclose(move, plain - pull, atol=1e-5)

    @pytest.mark.parametrize("dead", [None, "critic.levels.1.0.conv1.weight"])
    def test_a_part_of_the_critic_that_does_not_move_is_told(self, dataset, tmp_path, monkeypatch, dead):
        whole = Gan.prepare

        def cut_off(self, *args):
            prepared = whole(self, *args)
            if dead:
                self.prepared_parameters()[dead].grad = None
            return prepared

        monkeypatch.setattr(Gan, "prepare", cut_off)
        run = begin(tmp_path / "run", tiny("gan", "batch=2"))
        records = train(dataset, run, images=2 * 55, runtime=Runtime())
        told = [r.message for r in records if getattr(r.message, "identifier", "") == "training.unmoved"]
        assert [note.values["names"] for note in told] == ([dead] if dead else [])

    @pytest.mark.parametrize("whose", ["critic", "generator"])
    def test_an_update_that_is_refused_for_one_network_moves_none(
        self, dataset, tmp_path, monkeypatch, whose
    ):
        calls, name = [], "score" if whose == "critic" else "losses"
        real = getattr(Gan, name)

        def bad_in_the_third_update(self, *args):
            calls.append(1)
            return real(self, *args) * (math.nan if len(calls) == bad else 1)

        # The critic scores real and generated samples of its own, then those of the generator.
        bad = 2 * 4 + 1 if whose == "critic" else 3
        monkeypatch.setattr(Gan, name, bad_in_the_third_update)
        run = begin(tmp_path / "run", tiny("gan"))
        files, bad_steps = {}, {}
        for images in (8, 16, 24, 32):
            list(train(dataset, run, images=images, runtime=Runtime()))
            checkpoint = run.checkpoints.newest()[0]
            files[checkpoint.images] = checkpoint.files
            bad_steps[checkpoint.images] = checkpoint.state["bad_steps"]
        for part in ("critic", "critic_optimizer", "model", "ema", "optimizer"):
            file = f"{part}.safetensors"
            assert files[8][file] != files[16][file] == files[24][file] != files[32][file], part
        assert bad_steps == {8: 0, 16: 0, 24: 1, 32: 0}

    @pytest.mark.parametrize("pieces", [1, 2])
    def test_a_training_that_stopped_after_a_refused_update_goes_on_as_without(
        self, dataset, tmp_path, monkeypatch, pieces
    ):
        real = Gan.prepare

        def bad_in_the_second_update(self, x0, eps, images, *rest):
            return real(self, x0 * (math.nan if images == 8 else 1), eps, images, *rest)

        monkeypatch.setattr(Gan, "prepare", bad_in_the_second_update)
        files = []
        for name, ends in (("at once", [32]), ("in two sittings", [16, 32])):
            run = begin(tmp_path / name, tiny("gan", f"accumulate={pieces}"))
            for images in ends:
                list(train(dataset, run, images=images, runtime=Runtime()))
            files.append(run.checkpoints.newest()[0].files)
        assert all(files[0][name] == files[1][name] for name in files[0] if name.endswith(".safetensors"))

    def test_a_critic_whose_gradient_stays_not_finite_ends_the_training(self, dataset, tmp_path, monkeypatch):
        run = begin(tmp_path / "run", tiny("gan", "method.every=1"))
        list(train(dataset, run, images=16, runtime=Runtime(), checkpoint_every=0))
        monkeypatch.setattr("alphabar.methods.gan.gradient_penalty", lambda c, x: c * math.nan)
        with refused("training.diverged", AlphabarError, times=MAX_BAD_STEPS):
            list(train(dataset, run, images=8 * 99, runtime=Runtime(), checkpoint_every=0))
        assert run.checkpoints.newest()[0].images <= 24

    def test_a_refused_first_update_leaves_the_critics_optimizer_empty(self):
        gan = built(tiny("gan"))
        before, x = gan.state_files(), torch.randn(8, 3, 16, 16)
        gan.prepare(x, x, 0, 0.0, 1e-4)
        assert gan.state_files() != before
        gan.undo_prepare()
        assert gan.state_files() == before

    def test_kl_of_gaussians(self):
        mean, std = torch.randn(6, 4, 2, 2).double(), torch.rand(6, 4, 2, 2).double() + 0.2
        wanted = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
        )
        found = kl_to_standard_normal(mean, std.log())
        assert torch.allclose(found, wanted.sum((1, 2, 3)))

    def test_the_bound_is_the_evidence_where_the_posterior_is_exact(self):
        """Pixels z + N(0, s²) of one latent number each, z ~ N(0, 1): p(x) = N(0, 1 + s²)."""
        s2 = 0.3

        class Linear(nn.Module):
            def forward(self, x):
                mean = latents(x, 192) / (1 + s2)
                log_std = torch.full_like(mean, 0.5 * math.log(s2 / (1 + s2)))
                return torch.cat([mean, log_std], dim=1)

        class Pixels(nn.Module):
            def forward(self, z, size):
                return z.reshape(-1, 3, *size)

        vae = VariationalAutoencoder(channels=3, width=4, latent=192)
        vae.encoder, vae.decoder = Linear(), Pixels()
        vae.log_sigma.data.fill_(0.5 * math.log(s2))
        torch.manual_seed(0)
        x = math.sqrt(1 + s2) * torch.randn(1024, 3, 8, 8)
        bound = vae.negative_elbo(x, torch.randn(x.shape)).mean().item()
        evidence = -torch.distributions.Normal(0, math.sqrt(1 + s2)).log_prob(x).mean().item()
        assert bound == pytest.approx(evidence, abs=0.01)

    def test_augmented_pictures_are_moved_and_cut_and_gradients_pass(self):
        torch.manual_seed(0)
        x = torch.rand(64, 3, 16, 16, requires_grad=True)
        y = augmented(x)
        assert y.shape == x.shape and torch.isfinite(y).all()
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        assert (gradient.flatten(1).abs().sum(1) > 0).all()
        cut = (y == 0).all(1).flatten(1).float().mean(1)
        assert 0.05 < cut.mean() < 0.5


class TestNetworks:
    @pytest.mark.parametrize("name", ("generator", "vae"))
    def test_latents_are_normal_and_of_any_size(self, name):
        z = latents(torch.randn(50, 3, 32, 32), 128)
        assert z.shape == (50, 128) and abs(z.std().item() - 1) < 0.05
        network = NETWORKS.build({"name": name, "width": 4}, channels=3)
        for size in (8, 24):
            x = torch.randn(2, 3, size, size)
            assert network(x, torch.ones(2)).shape == x.shape

    @pytest.mark.parametrize("name", ("generator", "vae"))
    def test_a_number_of_the_latent_is_heard_everywhere(self, name):
        network = NETWORKS.build({"name": name, "width": 4}, channels=3)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
        x = torch.randn(1, 3, 64, 64)
        moved = x.clone()
        moved[0, 0, 0, 0] += 1
        changed = (network(moved, torch.ones(1)) - network(x, torch.ones(1))).abs().amax((0, 1))
        assert (changed > 0).all()

    @pytest.mark.parametrize("name", [*BASELINES, "distillation"])
    def test_the_cost_of_training_is_what_is_computed(self, name):
        # Without penalties: the counter cannot follow a gradient of gradients.
        free = ["method.gamma=0", "method.augment=false"] if name == "gan" else []
        if name == "distillation":
            recipe = distilled(tiny("lean", pag(2.0, (0.2, 2.5))))
        else:
            recipe = tiny(name, "network.width=16", *free)
        method, x = built(recipe), torch.randn(8, 3, 16, 16)
        with FlopCounterMode(display=False) as counter:
            method.prepare(x, x, 0, 0.0, 1e-4)
            method.losses(x, torch.ones(8), x, None).mean().backward()
        assert counter.get_total_flops() / 8 == pytest.approx(
            method_of(recipe).training_flops(recipe), rel=0.1
        )


@pytest.mark.parametrize("name", BASELINES)
class TestLife:
    def test_resume_equals_never_having_stopped(self, name, dataset, tmp_path):
        straight = begin(tmp_path / "straight", tiny(name))
        list(train(dataset, straight, images=64, runtime=Runtime()))
        stopped = begin(tmp_path / "stopped", tiny(name))
        records = train(dataset, stopped, images=64, runtime=Runtime())
        for record in records:
            if record.loss is not None and record.images == 24:
                break
        records.close()
        list(train(dataset, stopped, images=64, runtime=Runtime()))
        files = [run.checkpoints.newest()[0].files for run in (straight, stopped)]
        for file in files[0]:
            if file.endswith(".safetensors"):
                assert files[0][file] == files[1][file], file

    def test_it_draws_and_says_what_it_cannot(self, name, dataset, tmp_path):
        run = begin(tmp_path / "run", tiny(name))
        list(train(dataset, run, images=16, runtime=Runtime()))
        assert list(run.path.glob("samples/*.png"))
        model = load_model(run.path)
        *_, drawn = sample(model, 3)
        *_, again = sample(model, 5)
        assert torch.equal(drawn.result, again.result[:3])
        for wrong in ({"steps": 5}, {"sampler": "heun"}, {"initial_noise": "gaussian"}):
            with pytest.raises(UsageError, match="samples in its own way"):
                sampling_settings(model, **wrong)
        with pytest.raises(UsageError, match="without conditions"):
            sample(model, 1, sampling_settings(model, conditions=[{"class": "red"}]))
        with pytest.raises(UsageError, match="early snapshot"):
            sample(model, 1, sampling_settings(model, guidance={"autoguidance": 2.0}))
        with pytest.raises(UsageError, match="self-attention"):
            sample(model, 1, sampling_settings(model, guidance={"pag": 2.0}))
        hole = Mask(torch.ones(1, 16, 16), (3, 16, 16))
        with pytest.raises(UsageError, match=f"method '{name}': restoring needs a diffusion model"):
            restore(model, torch.zeros(1, *hole.measurement_shape), hole)

    def test_what_does_not_belong_together_is_refused(self, name):
        with pytest.raises(UsageError, match=r"choose one of (generator|vae)"):
            with_settings(named_recipe(name), ["network=unet"])
        with pytest.raises(UsageError, match="choose one of tutorial_unet, unet, nested_unet, mp_unet"):
            with_settings(named_recipe("lean"), [f"network={named_recipe(name).network['name']}"])
        with pytest.raises(UsageError, match="takes no condition"):
            with_settings(named_recipe(name), ["condition.on=class"])


class TestDistilled:
    @pytest.mark.parametrize("steps", [1, 2, 4])
    def test_what_is_learnt_leads_where_the_flow_does(self, steps):
        """Pixels from N(0, c²): the probability flow keeps x in proportion to its standard deviation."""
        c = 0.5
        method = built(
            with_settings(
                distilled(tiny("lean"), steps), ["method.teacher_steps=60", "method.sigma_min=0.002"]
            )
        )
        schedule = method.denoiser.schedule

        def std(level):
            return (level.alpha**2 * c**2 + level.sigma**2).sqrt()

        def mean(x, t, cond):
            level = schedule(t)
            return broadcast(c**2 * level.alpha / std(level) ** 2, x) * x

        def jump(x, t, cond):
            i = (method.times[None] - t[:, None]).abs().argmin(1)
            level, end = schedule(t), schedule(method.times[i + 1])
            kept = end.sigma / level.sigma
            return broadcast((std(end) / std(level) - kept) / (end.alpha - level.alpha * kept), x) * x

        @dataclass(frozen=True)
        class Answers(FunctionDenoiser):
            coeffs: Callable
            coarse: int

        method.guided = lambda teacher: FunctionDenoiser(schedule, mean)
        x0, eps = c * torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16)
        method.prepare(x0, eps, 0, 0.0, 0.0)
        t = torch.rand(8, dtype=torch.float64)
        losses, coeffs, k = [], method.denoiser.coeffs, method.denoiser.coarse
        for answer in (jump, mean, lambda x, t, cond: jump(x, t, cond) + 0.1):
            method.denoiser = Answers(schedule, answer, coeffs, k)
            losses.append(method.losses(x0, t, eps, None))
        assert (losses[0] < 1e-4 * losses[1]).all()
        # what the network's own prediction is off by
        at = method.times[torch.arange(8) * steps // 8]
        assert torch.allclose(losses[2], (0.01 / coeffs(at).c_out ** 2).float(), rtol=1e-2)
        # what is wrong in the detail counts as it is
        sign = torch.ones(16).index_fill(0, torch.arange(0, 16, 2), -1.0)
        method.denoiser = Answers(schedule, lambda x, t, cond: jump(x, t, cond) + 0.1 * sign, coeffs, 2)
        assert torch.allclose(method.losses(x0, t, eps, None), torch.full((8,), 0.01), rtol=1e-2)
        start = std(schedule(method.times[0])).float() * torch.randn(8, 3, 16, 16)
        drawn = last_step(ddim(FunctionDenoiser(schedule, jump), start, method.times, Noise(0, [], "none"))).x
        assert torch.allclose(drawn, start * (c / std(schedule(method.times[0]))).float(), atol=1e-5)

    def test_steps_are_even_and_walks_lead_from_one_to_the_next(self):
        method = built(distilled(tiny("lean", "sampling.timesteps.sigma_min=0.02"), 3))
        sigma = [(-method.denoiser.schedule(walk).log_snr / 2).exp() for walk in method.teacher_times]
        assert [len(walk) for walk in method.teacher_times] == [5, 5, 5]
        assert torch.allclose(sigma[0][0] / sigma[1][0], sigma[1][0] / sigma[2][0])
        assert torch.allclose(sigma[0][-1], sigma[1][0]) and torch.allclose(sigma[1][-1], sigma[2][0])
        assert sigma[2][-2].item() == pytest.approx(0.02) and sigma[2][-1] == 0
        means = distilled(tiny("lean", "sampling.timesteps.sigma_min=0.02", "coarse=2"), 3)
        assert means.sampling.timesteps["sigma_max"] == 2 * SIGMA_FIRST
        for one in (distilled(tiny("lean"), 1), distilled(named_recipe("classic"), 1)):
            assert len(built(one).teacher_times) == 1
        with pytest.raises(UsageError, match="at least 1 sampling step"):
            distilled(tiny("lean"), 0)
        with pytest.raises(UsageError, match="3 images at a time cannot be shared by 4 sampling steps"):
            built(with_settings(distilled(tiny("lean")), ["batch=3"]))
        blind = built(distilled(tiny("lean", "network.attention=0")))
        assert (
            blind.guidance
            and blind.guided(blind.copy())(torch.zeros(1, 3, 16, 16), torch.ones(1)).isfinite().all()
        )
        with pytest.raises(UsageError, match="teacher_steps = 0"):
            built(with_settings(distilled(tiny("lean")), ["method.teacher_steps=0"]))
        with pytest.raises(UsageError, match=r"sampling\.timesteps=log_snr"):
            built(
                with_settings(
                    distilled(tiny("lean")), ["schedule=rectified_flow", "sampling.timesteps=uniform"]
                )
            )

    def test_it_begins_with_the_model_and_leaves_it_alone(self, dataset, tmp_path):
        run = begin(tmp_path / "run", tiny("lean", "sampling.guidance=[]"))
        list(train(dataset, run, images=32, runtime=Runtime()))
        before = {path: path.read_bytes() for path in run.path.rglob("*.safetensors")}
        model = load_model(run.path)
        short = begin(tmp_path / "short", distilled(model.recipe, 2), initial_model=model)
        still = with_settings(short.recipe, ["optimizer.learning_rate=1e-30"])
        short.change(still)
        list(train(dataset, short, images=16, runtime=Runtime()))
        again = load_model(short.path)
        for a, b in zip(model.denoiser.parameters(), again.denoiser.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
        assert all(path.read_bytes() == data for path, data in before.items())
        *_, drawn = sample(again, 2)
        assert drawn.total == 2 * 2 and drawn.result.shape == (2, 16, 16, 3)
        (watched,) = short.path.glob("samples/*.png")  # as it draws, from its own start
        assert abs(np.asarray(Image.open(watched).convert("RGB"), int) - drawn.result[0].numpy()).max() <= 1
        with pytest.raises(UsageError, match="cannot be distilled"):
            distilled(again.recipe)
        with pytest.raises(UsageError, match="its own way, in 2 steps"):
            sampling_settings(again, steps=5)
        hole = Mask(torch.ones(1, 16, 16), (3, 16, 16))
        with pytest.raises(UsageError, match="restoring, give the model that it was distilled from"):
            restore(again, torch.zeros(1, *hole.measurement_shape), hole)

    def test_guidance_is_learnt_from_the_model_as_it_was(self, dataset, tmp_path):
        guidance = [pag(20.0)]
        run = begin(tmp_path / "run", tiny("lean", *guidance, "optimizer.warm_up=0"))
        list(train(dataset, run, images=320, runtime=Runtime()))
        model = load_model(run.path, "cpu")
        recipe = with_settings(distilled(model.recipe), ["optimizer.warm_up=0"])
        assert recipe.method["guidance"] == [{"name": "pag", "scale": 20.0, "interval": None}]
        assert recipe.sampling.guidance == []
        short = begin(tmp_path / "short", recipe, initial_model=model)
        list(train(dataset, short, images=1200, runtime=Runtime()))
        assert len(list(train(dataset, short, images=1280, runtime=Runtime()))) > 0  # goes on
        teacher = unpack_tensors(short.checkpoints.newest()[0].files["teacher.safetensors"])
        for name, value in model.denoiser.network.state_dict().items():
            assert torch.equal(teacher[name], value)

        quick = load_model(short.path, "cpu")
        assert (
            nfe_per_sample(quick, sampling_settings(quick)) == 4
            and nfe_per_sample(model, sampling_settings(model)) == 20
        )
        losses = []
        for network in (model.denoiser.network, quick.denoiser.network):
            method = built(recipe)
            method.denoiser.network.load_state_dict(model.denoiser.network.state_dict())
            method.prepare(torch.empty(0), torch.empty(0), 0, 0.0, 0.0)
            method.denoiser.network.load_state_dict(network.state_dict())
            x0 = ImageCodec(16).encode(torch.from_numpy(dataset.items[:]))
            eps = Noise(1, range(len(x0)), "held-out").normal(0, x0)
            with torch.no_grad():
                losses.append(method.losses(x0, torch.ones(len(x0)), eps, None).mean().item())
        assert losses[1] < 0.8 * losses[0]

    @pytest.mark.parametrize("guidance", [0, 2])
    def test_lost_weights_are_an_error(self, dataset, tmp_path, guidance):
        short = begin(tmp_path / "short", distilled(tiny("lean", pag(guidance))))
        with pytest.raises(AlphabarError, match="lacks the weights"):
            list(train(dataset, short, images=16, runtime=Runtime()))


def test_a_vae_learns_the_mean_picture_first(dataset, tmp_path):
    run = begin(tmp_path / "run", tiny("vae", "optimizer.learning_rate=5e-3", "optimizer.warm_up=0"))
    losses = [r.loss for r in train(dataset, run, images=1600, runtime=Runtime()) if r.loss is not None]
    assert sum(losses[-20:]) / 20 < sum(losses[:5]) / 5 - 0.3


def test_several_processes_are_refused():
    recipe = tiny("gan")
    runtime = SimpleNamespace(world_size=2)
    with pytest.raises(UsageError, match="one process"):
        METHODS.build(recipe.method, denoiser=build_denoiser(recipe), recipe=recipe, runtime=runtime)


def test_old_recipes_are_of_diffusion():
    values = named_recipe("lean").model_dump(mode="json")
    del values["method"]
    assert Recipe.model_validate(values).method == {"name": "diffusion"}
    assert isinstance(build_denoiser(named_recipe("gan")), NetworkDenoiser)


@pytest.mark.parametrize("name", BASELINES)
def test_its_report_has_no_process_to_show(name, dataset, tmp_path, picture_folder):
    run = begin(tmp_path / "run", tiny(name))
    list(train(dataset, run, images=16, runtime=Runtime()))
    list(make_report_figures(run, str(picture_folder)))
    html = write_report(run.path).read_text(encoding="utf-8")
    assert "adversarial" in html or "autoencoder" in html
    assert "The forward process" not in html and "The reverse process" not in html and 'id="samples"' in html
