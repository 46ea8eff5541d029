"""Exports: the same samples without PyTorch; what cannot be exported is refused in time."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar import export_to, last, sample, sampling_settings
from alphabar.conditioning.fields import Categorical, Numeric
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.denoiser import FunctionDenoiser
from alphabar.diffusion.initial_noise import fit_gaussian
from alphabar.diffusion.random import Noise, Purpose
from alphabar.diffusion.samplers import SAMPLERS, last_step
from alphabar.diffusion.schedules import SCHEDULES
from alphabar.diffusion.timesteps import TIMESTEPS
from alphabar.errors import AlphabarError
from alphabar.export import TARGETS
from alphabar.export.export import LEAST
from alphabar.export.parity import size_on_disk
from alphabar.export.plan import Plan, sampler_steps
from alphabar.recipes.derive import distilled
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.model import Model, build_denoiser
from refusals import refused

VOCABULARY = Vocabulary((Categorical("class", ("hatch", "van")), Numeric("year", 2000.0, 5.0)))
GUIDANCE = {"pag": {"scale": 2.0, "interval": (0.3, 5.0)}, "classifier_free": 1.5, "autoguidance": 1.3}
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["alphabar"] = None  # importing either fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def made(folder: Path, recipe: str = "lean", *settings: str, vocabulary: Vocabulary | None = None) -> Model:
    """A small model with random weights, also of the early snapshot."""
    tiny = with_settings(named_recipe(recipe), ["data.size=16", *settings])
    denoisers = [build_denoiser(tiny, vocabulary).eval().requires_grad_(False) for _ in range(2)]
    for seed, denoiser in enumerate(denoisers):
        for parameter in denoiser.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    model = Model(denoisers[0], tiny, None, 0, folder, vocabulary, early=denoisers[1])
    smooth = torch.randn(40, *model.shape, generator=torch.Generator().manual_seed(9)).cumsum(3) / 8
    return replace(model, statistics=fit_gaussian([smooth], model.codec))


UNET = ("network.widths=[8,16]", "network.head_dim=8", "network.dropout=0")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return made(
        tmp_path_factory.mktemp("secret-path"), "lean", *UNET, "sampling.steps=4", vocabulary=VOCABULARY
    )


@pytest.fixture(scope="module")
def settings(model):
    conditions = [{"class": "van"}, {"class": "hatch", "year": "2007"}, {}]
    return sampling_settings(model, conditions=conditions, guidance=GUIDANCE, seed=3)


@pytest.fixture(scope="module")
def exported(model, settings, tmp_path_factory):
    """(folder, parity) of an export to OpenVINO with three guidances, Gaussian noise and conditions."""
    pytest.importorskip("openvino")
    out = tmp_path_factory.mktemp("exports") / "out"
    return out, last(export_to(model, "openvino", out, settings=settings, n=LEAST))


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def script(folder: Path):
    spec = importlib.util.spec_from_file_location("generate", folder / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", ["cosine", "linear_beta"])
def test_the_steps_of_every_sampler_are_its_own(name, schedule):
    schedule = SCHEDULES.build(schedule)
    times = TIMESTEPS.build("log_snr" if name != "ancestral" else "uniform")(schedule, 6)
    sampler, noise = SAMPLERS.build(name), Noise(0, [4], Purpose.SAMPLER)
    if name == "ddim":
        sampler = SAMPLERS.build({"name": "ddim", "eta": 0.5})
    denoise = lambda x, t, cond=None: torch.tanh(x + t.flatten()[0])  # noqa: E731
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[None]
    expected = last_step(sampler(FunctionDenoiser(schedule, denoise), x, times, noise, None)).x
    known = []
    for step in sampler_steps(sampler, schedule, times):
        known = [denoise(x, torch.tensor(step["t"], dtype=torch.float64)), *known]
        x = step["keep"] * x + sum(w * D for w, D in zip(step["weights"], known))
        x = x + sum(w * noise.normal(i, x) for i, w in step["noise"])
        assert len(step["weights"]) <= 3  # it remembers few estimates, however many steps there are
    torch.testing.assert_close(x, expected, rtol=1e-8, atol=1e-8)


def test_a_sampler_that_clamps_is_refused():
    schedule = SCHEDULES.build("cosine")
    sampler = SAMPLERS.build({"name": "ancestral", "clamp": True})
    with refused("export.sampler_not_linear"):
        sampler_steps(sampler, schedule, TIMESTEPS.build("uniform")(schedule, 5))


def test_the_scripts_noise_is_that_of_torch(exported):
    module = script(exported[0])
    for position, step in ((0, 0), (17, 3)):
        like = torch.empty(1, 3, 16, 16)
        expected = Noise(5, [position], "start").normal(step, like)[0].numpy()
        np.testing.assert_allclose(
            module.noise(5, "start", position, step, (3, 16, 16)), expected, rtol=1e-5, atol=1e-6
        )


def test_the_script_without_torch_generates_the_same_pictures(exported, model, settings, tmp_path):
    folder, parity = exported
    done = run_script(folder, "-n", "5", "--out", str(tmp_path / "png"))
    assert done.returncode == 0, done.stderr
    own = last(sample(model, 5, settings, precision="fp32")).numpy()
    difference = np.abs(pictures(tmp_path / "png").astype(float) - own)
    assert difference.mean() < 0.05 and difference.max() <= 1 and own.std() > 10
    assert parity.mean < 0.05 and parity.largest <= 1


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_script_adds_the_detail_to_a_coarse_picture(target, tmp_path):
    pytest.importorskip(target if target == "openvino" else "onnxruntime")
    model = made(tmp_path / "model", "lean", *UNET, "coarse=4", "sampling.steps=4")
    settings = sampling_settings(model, seed=3)
    last(export_to(model, target, tmp_path / "out", settings=settings, n=LEAST))
    assert run_script(tmp_path / "out", "-n", "3", "--out", str(tmp_path / "png")).returncode == 0
    own = last(sample(model, 3, settings, precision="fp32")).numpy()
    difference = np.abs(pictures(tmp_path / "png").astype(float) - own)
    assert difference.mean() < 0.05 and difference.max() <= 1 and own.std() > 10


def test_the_script_takes_seed_and_labels(exported, model, settings, tmp_path):
    labels = ("--attribute", "class=hatch", "--attribute", "year=2003")
    done = run_script(exported[0], "-n", "2", "--seed", "8", *labels, "--out", str(tmp_path / "png"))
    assert done.returncode == 0, done.stderr
    chosen = replace(settings, seed=8, conditions=({"class": "hatch", "year": "2003"},))
    own = last(sample(model, 2, chosen, precision="fp32")).numpy()
    assert np.abs(pictures(tmp_path / "png").astype(float) - own).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-n", "0"), "-n must be at least 1, not 0"),
        (("--attribute", "class=lorry"), "class 'lorry' is unknown; known: hatch, van"),
        (("--attribute", "class"), "class '' is unknown; known: hatch, van"),
        (("--attribute", "colour=red"), "unknown attribute 'colour'; known: class, year"),
        (("--attribute", "year=new"), "year 'new' is unknown; known: numbers"),
    ],
)
def test_the_script_says_what_is_wrong_with_its_arguments(exported, tmp_path, arguments, said):
    wrong = run_script(exported[0], *arguments, "--out", str(tmp_path / "png"))
    assert wrong.returncode == 1 and wrong.stderr == f"generate.py: {said}\n"


def test_the_script_explains_its_options(exported):
    said = " ".join(run_script(exported[0], "--help").stdout.split())
    for part in (
        "--attribute KEY=VALUE of all pictures",
        "how many (default: 16)",
        "folder (default: samples)",
    ):
        assert part in said
    text = TARGETS["onnx"]().script(
        Plan({"channels": 3, "latents": False, "seed": 0, "fields": {"class": {}}}, {})
    )
    assert 'metavar="NAME"' in text


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("fields", [{}, {"class": {}}, {"body": {}, "year": {}}])
@pytest.mark.parametrize("arrays", [{}, {"rows": np.eye(16)}])
def test_the_script_has_at_most_60_lines(target, channels, fields, arrays):
    document = {
        "shape": [channels, 16, 16],
        "channels": channels,
        "fields": fields,
        "seed": 0,
        "latents": True,
    }
    text = TARGETS[target]().script(Plan(document, arrays))
    assert len(text.splitlines()) <= 60 and not re.search("@[A-Z]+@", text)
    assert max(map(len, text.splitlines())) < 120, "lines are not made fewer by making them longer"
    compile(text, "generate.py", "exec")


@pytest.mark.parametrize("name", ["network.bin", "arrays.npz", "sampling.json"])
def test_a_damaged_export_is_one_line(exported, tmp_path, monkeypatch, name):
    import shutil

    folder = shutil.copytree(exported[0], tmp_path / "copy")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 255
    (folder / name).write_bytes(data)
    for optimised in ("", "1"):  # python -O, which leaves assertions out
        monkeypatch.setenv("PYTHONOPTIMIZE", optimised)
        done = run_script(folder, "-n", "1", "--out", str(tmp_path / "png"))
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("generate.py: ")
    assert not list((tmp_path / "png").glob("*"))


def test_an_export_says_nothing_of_where_the_model_lies(exported, model):
    for file in exported[0].rglob("*"):
        assert b"secret-path" not in file.read_bytes(), file.name
    names = {file.name for file in exported[0].iterdir()}
    networks = {f"{name}{suffix}" for name in ("network", "early") for suffix in (".xml", ".bin")}
    assert names == networks | {"sampling.json", "arrays.npz", "generate.py", "parity.json", "parity.md"}


def test_the_parity_report_is_in_the_folder(exported):
    folder, parity = exported
    kept = json.loads((folder / "parity.json").read_text())
    assert kept["mean"] == parity.mean and len(kept["sides"]) == 2
    assert [side["name"] for side in kept["sides"]] == ["alphabar fp32", "openvino fp32"]
    later = sum((folder / name).stat().st_size for name in ("parity.json", "parity.md"))
    assert parity.sides[1].size == size_on_disk(folder) - later
    low, high = parity.distance[1:]
    assert low < parity.distance[0] < high
    assert "255" in (folder / "parity.md").read_text()


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("lean", UNET),
        ("gan", ("network.width=4", "network.latent=16")),
        pytest.param("vae", ("network.width=4",), marks=pytest.mark.slow),
    ],
)
def test_other_methods_and_onnx(tmp_path, recipe, settings):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = made(tmp_path / "model", recipe, "data.channels=4", *settings)
    parity = last(export_to(model, "onnx", tmp_path / "out", n=LEAST))
    assert parity.mean < 0.05 and parity.largest <= 2


def test_a_distilled_model(model, tmp_path):
    """It samples in its own few steps, without guidance."""
    pytest.importorskip("openvino")
    few = replace(model, recipe=distilled(model.recipe, steps=2))
    parity = last(export_to(few, "openvino", tmp_path / "out", n=LEAST))
    assert parity.mean < 0.05 and parity.largest <= 1
    plan = json.loads((tmp_path / "out" / "sampling.json").read_text())
    assert [len(step["terms"]) for step in plan["steps"]] == [1, 1]


class TestRefusals:
    def export(self, model, out, target="openvino", **options):
        with_n = {"n": LEAST, **options}
        try:
            last(export_to(model, target, out, **with_n))
        finally:
            assert not out.exists() and not list(out.parent.glob(".writing*"))

    def test_precision(self, model, tmp_path):
        with refused("export.no_precision"):
            self.export(model, tmp_path / "out", precision="int4")

    def test_few_samples(self, model, tmp_path):
        with refused("export.too_few_samples"):
            self.export(model, tmp_path / "out", n=LEAST - 1)

    def test_a_guidance_that_looks_into_the_network(self, model, tmp_path):
        settings = sampling_settings(model, guidance={"sag": 1.0}, conditions=())
        with refused("export.guidance"):
            self.export(model, tmp_path / "out", settings=settings)

    def test_a_classifier(self, tmp_path):
        model = made(
            tmp_path / "model", "classifier", "network.widths=[8,16]", "network.head_dim=8",
            vocabulary=VOCABULARY,
        )  # fmt: skip
        with refused("sampling.cannot_sample"):
            self.export(model, tmp_path / "out")

    def test_an_engine_that_is_not_installed(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(TARGETS["openvino"], "modules", ("no_such_engine",))
        with refused("export.not_installed", AlphabarError, extra="export"):
            self.export(model, tmp_path / "out")

    def test_a_folder_that_holds_something(self, model, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        with refused("sampling.folder_not_empty", AlphabarError):
            last(export_to(model, "openvino", tmp_path / "out", n=LEAST))
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]

    def test_a_disk_that_is_full_in_the_middle(self, model, tmp_path, monkeypatch):
        from alphabar.export import numpy_sampler

        def full(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(numpy_sampler, "write_file", full)
        monkeypatch.setattr(TARGETS["openvino"], "convert", lambda *arguments: {".xml": b"", ".bin": b""})
        with refused("files.cannot_write", AlphabarError, reason="No space left on device"):
            self.export(model, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("target", "engine"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_int8_stays_near_and_says_which_layers_are_float(model, settings, tmp_path, target, engine):
    for module in ("nncf", engine):
        pytest.importorskip(module, reason=f"int8 needs {module}: pip install 'alphabar[export]'")
    out = tmp_path / "out"
    parity = last(export_to(model, target, out, settings=settings, precision="int8", n=LEAST))
    assert 0.05 < parity.mean < 8  # rounded, and near
    errors = parity.about["layer_errors"]
    floats = parity.about["float_layers"]
    assert sum(e**2 for name, e in errors.items() if name not in floats) ** 0.5 <= 0.0201
