import itertools
import math
import re
from pathlib import Path

import pytest

from alphabar.diffusion.noise_distributions import NOISE_DISTRIBUTIONS
from alphabar.errors import AlphabarError, UsageError
from alphabar.recipes.derive import distilled, finetuned, first_stage
from alphabar.recipes.overrides import differences, with_settings
from alphabar.recipes.presets import RECIPES, named_recipe
from alphabar.recipes.schema import make_recipe, read_recipe
from refusals import refused


@pytest.mark.parametrize("name", RECIPES)
def test_toml_round_trip(name, tmp_path):
    recipe = named_recipe(name)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert read_recipe(tmp_path / "recipe.toml") == recipe
    assert recipe.name == name


def test_classic_is_the_notebooks():
    recipe = named_recipe("classic")
    assert recipe.schedule == {"name": "linear_beta", "steps": 300, "beta_min": 1e-4, "beta_max": 0.02}
    assert recipe.noise_distribution == {"name": "uniform", "discrete": 300}
    assert recipe.optimizer.name == "adam" and recipe.optimizer.learning_rate == 1e-3
    assert recipe.optimizer.clip is None and recipe.ema.half_life == 0
    assert recipe.batch == 128 and recipe.data.size == 64 and recipe.data.fit == "squash"
    assert recipe.sampling.sampler == {"name": "ancestral", "clamp": True} and recipe.sampling.steps == 300


@pytest.mark.parametrize(
    ("setting", "identifier"),
    [
        ("sampling=ddim", "recipes.section"),
        ("monitor=3", "recipes.section"),
        ("optimizer.betas=[]", "recipes.bad_value"),
        ("optimizer.betas=[0.5]", "recipes.bad_value"),
        ("extensions=3", "recipes.bad_extensions"),
        ("extensions=abc", "recipes.bad_extensions"),
        ('extensions=[{"name":"mine"}]', "recipes.bad_extensions"),
        ("schedule.name=none", "registry.no_name"),
    ],
)
def test_what_is_no_value_of_its_key_is_said(setting, identifier):
    with refused(identifier):
        with_settings(named_recipe("lean"), [setting])


def test_settings_reach_every_depth():
    recipe = with_settings(
        named_recipe("ddpm"),
        [
            "batch=8",
            "optimizer.learning_rate=1e-3",
            "network.widths=[64,128]",
            "network.attention=1",
            "schedule.name=linear_beta",
            "sampling.sampler=heun",
            "data.fit=crop",
        ],
    )
    assert recipe.batch == 8 and recipe.optimizer.learning_rate == 1e-3 and recipe.data.fit == "crop"
    assert list(recipe.network["widths"]) == [64, 128]
    assert recipe.schedule == {"name": "linear_beta", "steps": 1000, "beta_min": 1e-4, "beta_max": 0.02}
    assert recipe.sampling.sampler == {"name": "heun"}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("bach=8", "did you mean 'batch'?"),
        ("optimiser.lr=1", "did you mean 'optimizer'?"),
        ("optimizer.learning_rat=1", "did you mean 'optimizer.learning_rate'?"),
        ("network.widht=3", "did you mean 'widths'?"),
        ("network=unett", "did you mean 'unet'?"),
        ("batch=many", "batch = 'many'"),
        ("batch=0", "batch = 0"),
        ("data.fit=stretch", "data.fit = 'stretch'"),
        ("batch", "key=value"),
        ("data.size=60", "data.size = 60: this UNet takes multiples of 8; choose 56 / 64"),
        ("data.size=[96,4]", "data.size = [96, 4]: give one number"),
        ("data.size=x", "data.size = 'x': give one number"),
        ("data.size=4", "data.size = 4: give one number"),
        ("batch.size=3", "unknown recipe section 'batch'"),
        ("accumulate=3", "accumulate = 3"),
    ],
)
def test_mistakes_are_named_with_the_nearest(setting, told):
    with pytest.raises(UsageError) as error:
        with_settings(named_recipe("ddpm"), [setting])
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "choice",
    ["optimizer.name=adam", 'optimizer={"name":"adam"}', "schedule=linear_beta", "schedule.name=linear_beta"],
)
def test_the_order_of_settings_does_not_matter(choice):
    own = {"optimizer": "optimizer.learning_rate=0.0003", "schedule": "schedule.steps=500"}
    recipe = named_recipe("lean")
    section = re.split(r"[.=]", choice)[0]
    settings = [choice, own[section], "batch=8"]
    orders = [with_settings(recipe, order) for order in itertools.permutations(settings)]
    assert all(other == orders[0] for other in orders)
    assert orders[0].batch == 8 and orders[0].optimizer.name == ("adam" if section == "optimizer" else "muon")
    if section == "optimizer":
        assert orders[0].optimizer.learning_rate == 0.0003
    else:
        assert orders[0].schedule["name"] == "linear_beta" and orders[0].schedule["steps"] == 500


def test_the_last_of_two_equal_settings_counts():
    assert with_settings(named_recipe("lean"), ["batch=8", "batch=16"]).batch == 16


def test_unknown_recipe_and_broken_file(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'classic'"):
        named_recipe("clasic")
    with pytest.raises(AlphabarError, match="There is no recipe"):
        read_recipe(tmp_path / "recipe.toml")
    (tmp_path / "recipe.toml").write_bytes(b"\xff\x00 = [")
    with pytest.raises(AlphabarError, match="not a readable recipe"):
        read_recipe(tmp_path / "recipe.toml")
    (tmp_path / "recipe.toml").write_text('name = "mine"')
    with pytest.raises(UsageError, match="schedule"):
        read_recipe(tmp_path / "recipe.toml")


def test_differences_name_what_changed():
    a = named_recipe("classic")
    b = with_settings(a, ["optimizer.learning_rate=0.5", "schedule=cosine"])
    assert "optimizer.learning_rate: 0.001 → 0.5" in differences(a, b)
    assert "schedule.name: linear_beta → cosine" in differences(a, b)
    assert differences(a, a) == []


def test_the_commented_recipe_of_the_guide_is_lean():
    guide = Path(__file__).parents[1] / "docs" / "guide" / "recipe.toml"
    assert read_recipe(guide) == named_recipe("lean")


def test_finetuning_on_larger_pictures_enlarges_network_and_noise():
    lean = named_recipe("lean")
    larger = finetuned(lean, "m", ["data.size=128"])
    assert larger.network.items() >= (lean.network | {"name": "nested_unet", "times": 2}).items()
    assert larger.noise_distribution["mean"] == pytest.approx(lean.noise_distribution["mean"] + math.log(2))
    assert larger.sampling.guidance[0]["interval"] == (0.4, 5.0)
    before, after = lean.sampling.timesteps, larger.sampling.timesteps
    assert [after[level] for level in ("sigma_min", "sigma_max")] == [
        2 * before[level] for level in ("sigma_min", "sigma_max")
    ]
    assert larger.parameterization == lean.parameterization and larger.coarse == 2  # the weights' own
    own = ["network.patch=4", "coarse=1", "noise_distribution.mean=-1", "sampling.guidance=[]"]
    named = finetuned(lean, "m", ["data.size=128", "sampling.timesteps.sigma_min=0.1"]).sampling.timesteps
    assert named["sigma_min"] == 0.1 and named["sigma_max"] == after["sigma_max"]
    chosen = finetuned(lean, "m", ["data.size=128", *own])
    assert chosen.network == lean.network | {"patch": 4}
    assert chosen.noise_distribution["mean"] == -1 and chosen.coarse == 1
    assert not chosen.sampling.guidance
    largest = finetuned(larger, "m", ["data.size=256"])
    assert largest.coarse == 4 and largest.network == larger.network | {"times": 4}
    assert finetuned(lean, "m", ["data.size=96"]).network == lean.network
    detail = finetuned(lean, "m", ["data.size=128", "network.only_detail=true"])
    assert detail.network == larger.network | {"only_detail": True}
    odd = finetuned(lean, "m", ["data.size=36", "network.widths=[16,64]"])
    assert odd.data.size == 36 and odd.network["name"] == "unet"
    assert finetuned(detail, "m").network == distilled(detail).network == larger.network
    # Noise levels that are uniform in t are those of the schedule.
    ddpm = named_recipe("ddpm")
    uniform = finetuned(ddpm, "m", ["data.size=128"])
    assert uniform.network["times"] == 2 and uniform.noise_distribution == ddpm.noise_distribution


def test_the_autoencoder_of_latents_is_measured_as_often_as_they_are():
    inner = first_stage(with_settings(named_recipe("latent"), ["monitor.share=0", "monitor.distance=32"]))
    own = named_recipe("autoencoder").monitor
    assert inner.monitor == own.model_copy(update={"share": 0.0, "distance": 32})
    assert first_stage(named_recipe("latent")).monitor == own


def test_noise_that_a_person_names_stays_as_it_is():
    uniform = make_recipe(named_recipe("lean").model_dump() | {"noise_distribution": {"name": "uniform"}})
    for name in ("noise_distribution.name=log_normal", "noise_distribution=log_normal"):
        chosen = finetuned(uniform, "m", ["data.size=128", name])
        assert chosen.noise_distribution["mean"] == NOISE_DISTRIBUTIONS.settings("log_normal")["mean"]


@pytest.mark.parametrize(("name", "setting", "said"), [
    ("lean", "noise_distribution.std=-1", r"noise_distribution\.std"),
    ("lean", "noise_distribution.mean=1e400", r"noise_distribution\.mean"),
    ("lean", "noise_distribution.uniform_share=1", "uniform_share"),
    ("ddpm", "noise_distribution.discrete=-1", "discrete"),
    ("lean", "schedule.steps=0", "steps"),
    ("edm", "schedule.sigma_min=-1", "sigma_min"),
    ("edm", "parameterization.sigma_data=0", "sigma_data"),
    ("lean", "sampling.timesteps.sigma_min=-1", "sigma_min"),
    ("lean", 'sampling.timesteps={"name":"log_snr","sigma_min":5,"sigma_max":1}', "below 1"),
    ("lean", "sampling.sampler.order=0", "order"),
    ("lean", "optimizer.betas=[2,0.5]", "betas"),
    ("gan", "method.gamma=-1", r"method\.gamma"),
    ("gan", "method.every=0", r"method\.every"),
    ("autoencoder", "method.noise=-1", r"method\.noise"),
    ("autoencoder", "method.scales=0", r"method\.scales"),
    ("autoencoder", "method.equivariance=-1", r"method\.equivariance"),
    ("patches", "parameterization=eps", "choose v"),
    ("gan", "coarse=2", "method 'gan'"),
    ("classifier", "coarse=2", "method 'classifier'"),
])  # fmt: skip
def test_settings_out_of_range_are_refused_before_anything_begins(name, setting, said):
    with pytest.raises(UsageError, match=said):
        with_settings(named_recipe(name), [setting])


@pytest.mark.parametrize(("coarse", "said"), [(3, "coarse = 3"), (0, "coarse")])
def test_squares_of_a_coarse_picture_must_fit(coarse, said):
    with pytest.raises(UsageError, match=said):
        with_settings(named_recipe("patches"), [f"coarse={coarse}"])
