"""Numbers that no computer can use, wherever a person may write one: one sentence."""

import pytest
from PIL import Image

from alphabar.data.sources import open_source
from alphabar.errors import UsageError
from alphabar.formatting import parse_count, parse_duration
from alphabar.messages import message
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.registry import Registry
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.task import degrade, read_photo, read_task
from refusals import refused

DIGITS = "9" * 400
KEYS = ("batch", "images", "seed", "data.size", "data.held_out", "network.widths", "network.blocks",
        "network.head_dim", "optimizer.learning_rate", "optimizer.betas", "sampling.steps",
        "sampling.guidance", "monitor.samples", "ema.half_life", "extensions")  # fmt: skip


@pytest.mark.parametrize("value", [DIGITS, f"-{DIGITS}", f"[{DIGITS}, 2]", "9" * 5000, "1e999", "[" * 3000])
@pytest.mark.parametrize("key", KEYS)
def test_in_a_recipe(key, value):
    with pytest.raises(UsageError) as error:
        with_settings(named_recipe("lean"), [f"{key}={value}"])
    assert len(error.value.message) < 500


ABSURD = {
    "schedule.steps": 10**10, "schedule.offset": 1e308, "sampling.sampler.order": 10**9,
    "noise_distribution.mean": 1e300, "noise_distribution.std": 1e300,
    "coarse": 10**9, "accumulate": 10**9, "optimizer.learning_rate": 1e300,
    "optimizer.weight_decay": 1e300, "optimizer.clip": 1e300, "ema.ramp": 1e300,
}  # fmt: skip


@pytest.mark.parametrize("key", ABSURD)
def test_in_a_recipe_where_a_computer_could_count_on(key):
    with pytest.raises(UsageError) as error:
        with_settings(named_recipe("lean"), [f"{key}={ABSURD[key]}"])
    spoken = error.value.message
    assert key.rpartition(".")[2] in spoken and "it must be at" in spoken and len(spoken) < 500


UNBUILDABLE = [
    ("lean", "network.patch=1000000000"), ("lean", "network.patch=9e99"), ("lean", "network.head_dim=-1"),
    ("lean", "network.widths=[1e9,1e9]"), ("gan", "network.width=1000000000"), ("vae", "network.width=1e18"),
    ("classic", "network.time_dim=1e18"), ("classic", "network.steps=-1"),
    ("classifier", "network.head_dim=0"),
    ("autoencoder", "network.widths=[1e9,1e9]"), ("latent", "data.codec.patch=1e18"),
    ("edm", "network.widths=[1e9,1e9]"), ("nested", "network.detail_width=1e18"),
    ("nested", "network.times=1e9"),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "setting"), UNBUILDABLE)
def test_a_network_that_cannot_even_be_described(recipe, setting):
    key = setting.partition("=")[0].removeprefix("data.")
    with refused("registry.bad_value", setting=key):
        with_settings(named_recipe(recipe), [setting])


NOT_FINITE = ["sampling.timesteps.sigma_max=Infinity", "sampling.timesteps.sigma_min=NaN",
              'sampling.guidance=[{"name":"sag","blur":-1}]', 'sampling.guidance=[{"name":"sag","blur":NaN}]',
              'sampling.timesteps={"name":"karras","rho":1e-300}']  # fmt: skip


@pytest.mark.parametrize("setting", NOT_FINITE)
def test_a_setting_of_a_choice_that_no_sampling_can_use(setting):
    with refused("registry.bad_value"):
        with_settings(named_recipe("lean"), [setting])


@pytest.mark.parametrize("timesteps", ["karras", "log_snr"])
def test_a_noise_level_that_is_zero_in_float32(timesteps):
    with refused("diffusion.timesteps_sigma"):
        with_settings(
            named_recipe("lean"), [f"sampling.timesteps={timesteps}", "sampling.timesteps.sigma_min=1e-300"]
        )


@pytest.mark.parametrize("text", [DIGITS, f"{DIGITS}k", f"{'9' * 305}M", f"{DIGITS}h", f"{'9' * 306}h"])
@pytest.mark.parametrize("parse", [parse_count, parse_duration])
def test_in_times_and_counts(parse, text):
    with pytest.raises(UsageError):
        parse(text)


COMMANDS = {
    "sample": ["-n", "{}"],
    "sample, compared": ["--compare", "pag=1,2", "-n", "{}"],
    "interpolate": ["--rows", "{}", "--columns", "2"],
    "interpolate, columns": ["--rows", "100000", "--columns", "{}"],
    "edit": ["{picture}", "-n", "{}"],
    "restore": ["{picture}", "--degradation", "blur:1", "-n", "{}"],
    "inpaint": ["{picture}", "--mask", "box:0,0,8,8", "-n", "{}"],
    "upscale": ["{picture}", "-n", "{}"],
    "evaluate": ["--against", "toycars:50", "-n", "{}"],
    "export": ["--to", "diffusers", "-n", "{}"],
}


@pytest.mark.parametrize("number", ["100000000", "999999999999", DIGITS])
@pytest.mark.parametrize("command", COMMANDS)
def test_in_how_many_results_there_are(call, tmp_path, command, number):
    Image.new("RGB", (64, 64)).save(tmp_path / "p.png")
    name, given = command.partition(",")[0], COMMANDS[command]
    words = [word.format(number, picture=tmp_path / "p.png") for word in given]
    words += [] if name == "evaluate" else ["--out", tmp_path / "out"]
    code, _, err = call(name, "cars64", *words)
    assert code == 2 and "too many: one command makes at most 10000000" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps", ["100001", "999999999999", DIGITS])
@pytest.mark.parametrize(
    "command", ["sample", "edit", "restore", "inpaint", "upscale", "interpolate", "evaluate"]
)
def test_in_the_steps_of_a_command(call, tmp_path, command, steps):
    Image.new("RGB", (64, 64)).save(tmp_path / "p.png")
    words = [word.format(1, picture=tmp_path / "p.png") for word in COMMANDS.get(command, [])]
    words += ["--against", "toycars:50"] if command == "evaluate" else ["--out", tmp_path / "out"]
    code, _, err = call(command, "cars64", *words, "--steps", steps)
    assert code == 2 and "from 1 to 100000 steps" in err.splitlines()[-1]


@pytest.mark.parametrize("number", ["1000001", "999999999", DIGITS, "9" * 5000, "²", "0"])
def test_in_the_number_of_toycars(number):
    with pytest.raises(UsageError, match="from 1 to 1000000"):
        open_source(f"toycars:{number}")


@pytest.mark.parametrize("number", [DIGITS, "9" * 5000, "1e999", "NaN"])
def test_in_a_spec(number):
    def choice(*, eta: float = 0.0, n: int = 1): ...

    registry = Registry("sampler", {"ddim": choice})
    with pytest.raises(UsageError):
        registry.resolve(f'{{"name": "ddim", "n": {number}, "eta": "x"}}')


SPECS = ("noise:X", "blur:X", "downsample:X", "downsample:1000000", "jpeg:X", "motion:X,1", "motion:9,X",
         "random:X", "strokes:X", "box:0,0,X,X")  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_in_a_degradation(tmp_path, spec):
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    text = spec.replace("X", DIGITS)
    with pytest.raises(UsageError):
        read_task(tmp_path / "p.png", parse_degradation(text))
    with pytest.raises(UsageError):
        degrade(read_photo(tmp_path / "p.png"), parse_degradation(text))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 40), (40, 3), (4, 4), (9, 9)])
@pytest.mark.parametrize("before", ["", "grayscale+", "downsample:4+"])
def test_noise_of_an_image_that_is_too_small_is_asked_for(tmp_path, size, before):
    Image.new("RGB", size, (9, 99, 200)).save(tmp_path / "p.png")
    with pytest.raises(UsageError, match="too small to estimate"):
        read_task(tmp_path / "p.png", parse_degradation(f"{before}noise:auto"))


def test_a_long_word_is_cut_and_a_path_is_not():
    path = "/".join(["folder" * 10] * 20)
    assert path in message("runs.locked", path=path)
    assert len(message("runs.locked", path=DIGITS)) < 200
