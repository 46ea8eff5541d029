"""Exports to diffusers: the same pictures in a process that cannot import alphabar."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alphabar.errors import AlphabarError
from alphabar.export.base import Export
from alphabar.export.bundle import bundle
from alphabar.export.diffusers import Diffusers, load_pipeline
from alphabar.export.export import export_to
from alphabar.export.unet2d import is_exact, unet2d_config, unet2d_weights
from alphabar.files import Damaged
from alphabar.progress import last
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings
from export_models import SMALL, conditioned, made, uniform_widths
from hub_server import hub_server
from refusals import refused

MODELS = {
    "conditioned": conditioned,
    "uniform widths": uniform_widths,
    "no attention": lambda: made("lean", *SMALL, "network.attention=0", "sampling.steps=3"),
    "classic": lambda: made("classic", "data.size=16", "network.widths=[8,16]", "sampling.steps=5"),
    "edm": lambda: made("edm", "data.size=[16,24]", *SMALL[1:], "sampling.steps=3", early=True),
    "coarse": lambda: made("lean", *SMALL, "coarse=2", "sampling.steps=3"),
    "grey": lambda: made("ddpm", "data.channels=1", *SMALL, "sampling.steps=3"),
    "gan": lambda: made("gan", "data.size=16", "network.width=4", "network.latent=16"),
}
ASKED = {
    "conditioned": {
        "first": 5,
        "conditions": [{"body": "van"}, {"body": "coupe", "year": "2004"}],
        "guidance": {"classifier_free": 2.0, "sag": 0.5},
    },
    "uniform widths": {"seed": 3, "guidance": {}, "sampler": "euler"},
    "edm": {"seed": 1, "guidance": {"autoguidance": 2.0}},
}
"""What else is asked of some pipelines than their default."""

CHILD = """
import json, sys
import numpy as np
sys.modules["alphabar"] = None  # importing it fails
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
out = sys.argv[1]
for name, asked in json.loads(sys.argv[2]).items():
    pipe = DiffusionPipeline.from_pretrained(f"{out}/{name}", trust_remote_code=True, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    stored = load_file(f"{out}/{name}/unet/diffusion_pytorch_model.safetensors")
    own = pipe.unet.state_dict()
    assert own.keys() == stored.keys() and all(own[k].equal(v) for k, v in stored.items())
    made = pipe(3, output_type="np").images
    other = pipe(2, **asked, output_type="np").images
    np.savez(f"{out}/{name}.npz", made=made, other=other)
    print(json.dumps({name: type(pipe.unet).__name__}))
picture = pipe(1).images[0]
assert picture.size == (16, 16), picture
"""


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusers")
    for name, model in models.items():
        (folder / name).mkdir()
        last(Diffusers().write(Export(model, sampling_settings(model), "fp32"), folder / name))
    return folder


@pytest.fixture(scope="module")
def classes(folder):
    """Samples of all pipelines, made by another process: the classes of their networks."""
    asked = json.dumps({name: ASKED.get(name, {}) for name in MODELS})
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), asked]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return {k: v for line in done.stdout.splitlines() for k, v in json.loads(line).items()}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_pictures_without_alphabar(name, models, folder, classes):
    made, model = np.load(folder / f"{name}.npz"), models[name]
    asked = dict(ASKED.get(name, {}))
    first = asked.pop("first", 0)
    for key, n, at, settings in (
        ("made", 3, 0, sampling_settings(model)),
        ("other", 2, first, sampling_settings(model, **asked)),
    ):
        own = last(sample(model, n, settings, first=at, precision="fp32")).numpy()
        difference = np.abs(own - 255.0 * made[key])
        assert own.std() > 5, "pictures of one grey would agree too"
        assert difference.mean() < 0.01 and difference.max() <= 1.001


def test_only_equal_widths_are_a_unet2d_model(models, classes):
    assert {name for name, kind in classes.items() if kind == "UNet2DModel"} == {"uniform widths"}
    assert is_exact(models["uniform widths"].denoiser.network)
    groups = made("lean", "data.size=16", "network.widths=[64,64]", "network.head_dim=64")
    assert not is_exact(groups.denoiser.network)


def test_no_file_names_alphabar_or_a_path(folder, classes):
    files = [path for path in folder.rglob("*") if path.is_file() and "home" not in path.parts]
    codes = {path.read_text() for path in files if path.suffix == ".py"}
    assert len(codes) >= 7
    for path in files:
        assert str(folder).encode() not in path.read_bytes() and path.suffix not in (".bin", ".pt", ".pkl")
    for code in codes:
        for node in ast.walk(ast.parse(code)):
            names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
            names.append(getattr(node, "module", None) or "")
            assert not any(name.startswith("alphabar") for name in names)


def test_a_bundle_has_one_definition_of_each_name():
    with pytest.raises(ValueError, match="Block is defined twice"):
        bundle("alphabar.export.diffusers_network", "")
    with pytest.raises(ValueError, match="inside a function"):
        bundle("alphabar.cli.export", "")


def test_what_cannot_be_exported(models, tmp_path):
    model = models["conditioned"]
    unconditional = replace(model, path=tmp_path)
    guided = sampling_settings(unconditional, guidance={"classifier": {"scale": 1.0, "model": "somewhere"}})
    with refused("export.needs_other_model", guidance="classifier"):
        Diffusers().check(Export(model, guided, "fp32"))
    extended = replace(
        model, recipe=model.recipe.model_copy(update={"extensions": [{"name": "mine", "sha256": ""}]})
    )
    with refused("diffusers.needs_extension", names="mine"):
        Diffusers().check(Export(extended, sampling_settings(model), "fp32"))
    classifier = made("classifier", *SMALL, "condition.on=attributes")
    with refused("sampling.cannot_sample"):
        next(export_to(classifier, "diffusers", tmp_path / "out"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"{")])
def test_a_damaged_export(damage, models, tmp_path):
    model = models["gan"]
    last(Diffusers().write(Export(model, sampling_settings(model), "fp32"), tmp_path))
    damage(tmp_path / "model_index.json")
    with pytest.raises(Damaged):
        load_pipeline(tmp_path)


def test_one_changed_byte_and_no_samples_are_refused(models, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    model, out = models["gan"], tmp_path / "changed"
    out.mkdir()
    last(Diffusers().write(Export(model, sampling_settings(model), "fp32"), out))
    pipe = load_pipeline(out)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        pipe(0)
    for part in ("unet", "statistics"):
        file = out / part / "diffusion_pytorch_model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(Damaged, match=f"weights of {part}"):
            load_pipeline(out)
        file.write_bytes(whole)


@pytest.mark.slow
def test_the_whole_export_with_its_report(models, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    out = tmp_path / "out"
    parity = last(export_to(models["uniform widths"], "diffusers", out, n=8))
    assert parity.mean < 0.01 and parity.about == {"network": "UNet2DModel"}
    weights = out / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AlphabarError, match=str(out)):
        load_pipeline(out)


FROM_HUB = """
import sys
sys.modules["alphabar"] = None
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("someone/cars", trust_remote_code=True, low_cpu_mem_usage=False)
assert len(pipe(2).images) == 2
"""


@pytest.mark.slow
def test_diffusers_loads_it_from_the_hub(folder, tmp_path):
    with hub_server() as (address, repositories):
        root = folder / "conditioned"
        files = {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}
        repositories.add("someone/cars", files)
        env = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run([sys.executable, "-c", FROM_HUB], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("attention", [0, 2])
def test_a_unet2d_model_computes_the_same(attention):
    from diffusers import UNet2DModel

    from alphabar.export.diffusers_pipeline import MappedUNet

    wide = ["network.widths=[128,128,128]", "network.head_dim=32", "network.blocks=2"]
    model = made("lean", "data.size=[16,32]", *wide, f"network.attention={attention}")
    network = model.denoiser.network
    theirs = UNet2DModel(**unet2d_config(network, (16, 32)))
    weights = unet2d_weights(network)
    theirs.load_state_dict(weights)  # raises for a name too few or too many
    own = sum(value.numel() for value in network.parameters())
    extra = [name for name in weights if ".resnets.2." in name and "up_blocks" in name]
    extra += [name for name in weights if ".attentions.2." in name and "up_blocks" in name]
    assert own == sum(value.numel() for name, value in weights.items() if name not in extra)
    x, c_noise = torch.randn(3, 3, 16, 32), torch.rand(3)
    mapped = MappedUNet(theirs, None, network.patch)
    assert torch.allclose(mapped(x, c_noise), network(x, c_noise), atol=1e-4, rtol=1e-4)
