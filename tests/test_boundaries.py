"""Boundaries: the last value that is allowed, the first that is refused or warned of, and nothing at all."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from alphabar.codecs import build_codec
from alphabar.conditioning.clusters import clusters
from alphabar.conditioning.fields import CAPTION, Text
from alphabar.conditioning.label_frequencies import ITEMS, label_frequencies
from alphabar.conditioning.vocabulary import build_vocabulary
from alphabar.diffusion.initial_noise import fit_gaussian
from alphabar.diffusion.noise_distributions import WEIGHTS
from alphabar.diffusion.random import Noise
from alphabar.diffusion.samplers import SAMPLERS
from alphabar.diffusion.schedules import SCHEDULES, terminal_warning
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError, UsageError
from alphabar.guidance import GUIDANCES
from alphabar.guidance.self_attention import blurred
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.restoration.noise_estimation import estimate_noise
from alphabar.restoration.operators.registry import build_operator
from alphabar.restoration.solvers.base import trajectory
from alphabar.restoration.solvers.ddnm import back_in_time
from alphabar.runtime import Runtime
from alphabar.training.labels import conditions_of
from alphabar.training.loop import begin
from alphabar.training.model_sizes import sizes
from alphabar.training.monitor import TrainingMonitor
from alphabar.training.muon import Muon
from alphabar.training.state import TrainingState
from refusals import refused
from training_child import tiny_dataset, tiny_recipe

COSINE = SCHEDULES.build("cosine")


class TestDiffusion:
    @pytest.mark.parametrize("order", [0, -1])
    def test_a_sampler_without_an_order_is_refused(self, order):
        with refused("registry.bad_value"):
            SAMPLERS.build({"name": "unipc", "order": order})

    @pytest.mark.parametrize("steps", [0, -3])
    def test_a_schedule_of_no_steps_is_refused(self, steps):
        with refused("diffusion.linear_beta_steps"):
            SCHEDULES.build({"name": "linear_beta", "steps": steps})

    @pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (-1.0, 20.0), (5.0, 5.0), (20.0, 0.1)])
    def test_timesteps_of_a_beta_that_does_not_rise_are_refused(self, low, high):
        with refused("diffusion.timesteps_beta"):
            TIMESTEPS.build({"name": "linear_beta", "beta_min": low, "beta_max": high})(COSINE, 5)

    @pytest.mark.parametrize(("snr", "warned"), [(0.95e-3, False), (1.05e-3, True)])
    def test_too_much_signal_at_the_end_is_warned_of(self, snr, warned):
        schedule = SCHEDULES.build({"name": "variance_exploding", "sigma_max": snr**-0.5})
        assert (terminal_warning(schedule) is not None) == warned

    def test_the_unit_weight_is_one(self):
        assert WEIGHTS.build("unit")(COSINE(torch.linspace(0.1, 1, 4).double())).tolist() == [1] * 4


class TestRestoration:
    @pytest.mark.parametrize("size", [(4, 16), (16, 4)])
    def test_a_blur_is_at_most_as_wide_as_the_shorter_side(self, size):
        assert build_operator({"name": "blur", "std": 4.0}, (3, *size)).shape == (3, *size)
        for std in (4.1, 0.0):
            with pytest.raises(UsageError):
                build_operator({"name": "blur", "std": std}, (3, *size))

    def test_noise_on_a_ramp_is_estimated_without_bias(self):
        generator = torch.Generator().manual_seed(0)
        noisy = torch.linspace(-1, 1, 64) + 0.1 * torch.randn(4, 3, 64, 64, generator=generator)
        assert np.mean([estimate_noise(y) for y in noisy]) == pytest.approx(0.1, rel=0.03)

    @pytest.mark.parametrize("schedule", ["cosine", "variance_exploding", "rectified_flow"])
    def test_going_back_in_time_gives_the_noise_of_that_time(self, schedule):
        """x of variance alpha²c² + sigma² at one time has this variance at the other time, too."""
        schedule, c = SCHEDULES.build(schedule), 0.7
        times = torch.tensor([0.8, 0.6, 0.4], dtype=torch.float64)
        (step,) = trajectory(schedule, times, [(2, 0)])

        def std(level):
            return torch.hypot(level.alpha * c, level.sigma)

        generator = torch.Generator().manual_seed(0)
        x = std(step.level_t) * torch.randn(1, 200_000, generator=generator, dtype=torch.float64)
        moved = back_in_time(x, step, Noise(0, [0], "travel"))
        assert moved.std().item() == pytest.approx(std(step.level_s).item(), rel=0.01)
        ratio = step.level_s.alpha / step.level_t.alpha
        assert (moved * x).mean().item() == pytest.approx((ratio * x.square().mean()).item(), rel=0.02)


class TestTraining:
    def test_a_vector_without_a_gradient_stays(self):
        p = nn.Parameter(torch.ones(4))
        p.grad = torch.zeros(4)
        Muon([p], lr=1.0, betas=(0.9, 0.99)).step()
        assert torch.equal(p, torch.ones(4))

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_a_training_begins_at_nothing_and_where_the_runtime_says(self, picture_folder, channels_last):
        runtime = Runtime(channels_last=channels_last)
        training = TrainingState(tiny_dataset(picture_folder), tiny_recipe(), runtime, None)
        training.loader.close()
        assert (training.images, training.seconds, training.bad_steps) == (0, 0.0, 0)
        wide = [p for p in training.network.parameters() if p.ndim == 4 and min(p.shape) > 1]
        assert wide
        for p in wide:
            assert p.is_contiguous(memory_format=torch.channels_last) == channels_last

    def test_the_first_measurement_waits_until_it_is_within_its_share(self, picture_folder, tmp_path):
        """Four samples or ten for the distance, in five steps, and nine levels twice on two pictures."""
        dataset = tiny_dataset(picture_folder)
        settings = ("samples=4", "distance=10", "steps=5", "levels=2", "share=0.1")
        recipe = tiny_recipe(*(f"monitor.{each}" for each in settings))
        codec = build_codec(recipe.data)
        monitor = TrainingMonitor(
            dataset,
            recipe,
            begin(tmp_path / "run", recipe),
            Runtime(),
            fit_gaussian([codec.encode(torch.from_numpy(dataset.items[:]))], codec),
        )
        seconds = (10 * 5 + 2 * 9 * 2) / (3 * 6.0) / 0.1
        assert not monitor.is_due(0.99 * seconds, rate=6.0) and monitor.is_due(1.01 * seconds, rate=6.0)

    def test_a_method_that_needs_a_condition_does_not_train_without(self, picture_folder):
        recipe = with_settings(named_recipe("classifier"), ["data.size=16"])
        unconditional = recipe.model_copy(
            update={"condition": recipe.condition.model_copy(update={"on": None})}
        )
        with refused("training.needs_condition"):
            conditions_of(tiny_dataset(picture_folder), unconditional)

    def test_a_network_without_widths_has_no_sizes(self):
        with refused("training.no_sizes"):
            sizes(named_recipe("gan"))


class TestConditioning:
    def test_a_few_captions_are_enough_and_need_the_encoder(self, monkeypatch):
        installed = []
        monkeypatch.setattr("alphabar.conditioning.vocabulary.check_installed", lambda: installed.append(1))
        (field,) = build_vocabulary("text", {CAPTION: [None, "a car", None]}).fields
        assert isinstance(field, Text) and installed == [1]
        with pytest.raises(AlphabarError, match="caption"):
            build_vocabulary("text", {CAPTION: [None, None]})

    def test_clusters_do_not_depend_on_the_units_of_the_features(self):
        generator = torch.Generator().manual_seed(0)
        of = torch.arange(60) % 3
        features = torch.randn(60, 2, generator=generator, dtype=torch.float64)
        features += 12.0 * torch.stack([of == 1, of == 2], 1)
        first = clusters(features, 3)
        assert torch.equal(clusters(features * torch.tensor([1e-6, 1e6]) + 5, 3), first)
        assert all(len(first[of == i].unique()) == 1 for i in range(3))

    def test_labels_are_drawn_from_the_training_items_alone(self):
        columns = {"class": ["a", "b", "c", None]}
        vocabulary = build_vocabulary("class", columns)
        drawn = label_frequencies(vocabulary, columns, np.array([0, 2, 3]), seed=0)
        counts = [drawn.count(labels) for labels in ({"class": "a"}, {"class": "c"}, {})]
        assert sum(counts) == len(drawn) == ITEMS and min(counts) > ITEMS / 5
        assert label_frequencies(vocabulary, columns, np.array([], int), seed=0) == ()


class TestGuidance:
    @pytest.mark.parametrize("name", GUIDANCES)
    def test_the_range_of_scales_begins_at_none_and_contains_the_usual(self, name):
        cls = type(GUIDANCES.build({"name": name}))
        low, high = cls.scale_range
        assert low <= cls.neutral < high and cls.neutral in (0, 1)

    @pytest.mark.parametrize("std", [0.5, 1.1, 2.0])
    def test_the_blur_is_a_gaussian_cut_beyond_three_standard_deviations(self, std):
        x = torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        wanted = scipy.ndimage.gaussian_filter(
            x.numpy(), std, mode="mirror", radius=math.ceil(3 * std), axes=(2, 3)
        )
        np.testing.assert_allclose(blurred(x, std).numpy(), wanted, atol=1e-12)
