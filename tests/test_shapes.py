"""Grey, transparent and not square images are trained and sampled as what they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from alphabar.progress import last
from alphabar.runs.model import load_model
from alphabar.runtime import Runtime
from alphabar.sampling.sample_folder import SampleFolder, sample_into
from alphabar.sampling.settings import sampling_settings
from alphabar.training.launch import launch

UPDATES, BATCH = 60, 16
SETTINGS = [
    f"batch={BATCH}",
    "network.widths=[16,32]",
    "network.head_dim=16",
    "data.augment=0.1",
    "monitor.distance=0",
    "optimizer.learning_rate=0.003",
    "optimizer.warm_up=0",
]
CASES = {  # settings, shape of a signal, mode of the files
    "color": (["data.size=[16,24]"], (3, 16, 24), "RGB"),
    "grey": (["data.size=16"], (1, 16, 16), "L"),
    "clear": (["data.size=16", "data.channels=4"], (4, 16, 16), "RGBA"),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))


def disc(rng: np.random.Generator, kind: str) -> Image.Image:
    """A disc of a random colour on another one, or on nothing."""
    ground = (0, 0, 0, 0) if kind == "clear" else (*rng.integers(0, 256, 3).tolist(), 255)
    image = Image.new("RGBA", (48, 32), ground)
    ImageDraw.Draw(image).ellipse([10, 4, 37, 27], fill=(*rng.integers(0, 256, 3).tolist(), 255))
    return {"color": image.convert("RGB"), "grey": image.convert("L").convert("RGB"), "clear": image}[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_samples_are_like_their_data(kind: str, tmp_path: Path) -> None:
    settings, shape, mode = CASES[kind]
    data = tmp_path / kind
    data.mkdir()
    rng = np.random.Generator(np.random.PCG64(0))
    for i in range(64):
        disc(rng, kind).save(data / f"{i:02d}.png")
    run = tmp_path / "run"
    records = launch(
        str(data),
        run=run,
        recipe="lean",
        settings=[*SETTINGS, *settings],
        images=UPDATES * BATCH,
        runtime=Runtime(),
    )
    said = [record.message for record in records if record.message]
    assert any("All pictures are grey" in sentence for sentence in said) == (kind == "grey")
    model = load_model(run, "cpu")
    assert model.shape == shape
    folder = SampleFolder(tmp_path / "samples", model.codec, {}, 8)
    last(sample_into(folder, model, 8, [sampling_settings(model, steps=8)]))
    items = torch.stack([folder.read(i) for i in range(8)])
    for i in range(8):
        with Image.open(tmp_path / "samples" / f"{i:06d}.png") as image:
            assert image.mode == mode and image.size == shape[:0:-1]
    if kind == "clear":  # the corners are more transparent than the middle
        alpha = items[..., 3].float()
        assert alpha[:, :3, :3].mean() < alpha[:, 6:10, 6:10].mean() - 50
