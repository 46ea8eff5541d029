"""Our statistics, and our use of its Inception, against torch-fidelity.

torch-fidelity imports torchvision for data sets and transforms that nothing here calls: where torchvision
is absent, empty modules stand in for the length of the import.
"""

import hashlib
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.errors import AlphabarError
from alphabar.metrics.distances import (
    classifier_score,
    frechet_distance,
    kid,
    kid_over_subsets,
    precision_recall,
)
from alphabar.metrics.features import EXTRACTORS, dinov2, extract, inception
from alphabar.metrics.features.dinov2 import DINOV2, DINOv2
from alphabar.metrics.features.inception import INCEPTION


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices gain nothing from threads, and lose much to them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def fidelity(module: str) -> ModuleType:
    """A module of torch-fidelity, with or without torchvision."""
    pytest.importorskip("tqdm")
    try:
        return import_module(f"torch_fidelity.{module}")
    except ModuleNotFoundError as error:
        if error.name == "torch_fidelity":
            pytest.skip("torch-fidelity is not installed")
    for name in [name for name in sys.modules if name.startswith("torch_fidelity")]:
        del sys.modules[name]
    names = ["", ".datasets", ".transforms", ".transforms.functional"]
    stand_ins = {f"torchvision{name}": _Empty(f"torchvision{name}") for name in names}
    stand_ins["torchvision"].transforms = stand_ins["torchvision.transforms"]  # type: ignore[attr-defined]
    stand_ins["torchvision.transforms"].functional = stand_ins["torchvision.transforms.functional"]  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        return import_module(f"torch_fidelity.{module}")
    finally:
        for name in stand_ins:
            del sys.modules[name]


def sets(n: int, m: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Skewed, correlated, non-negative features, as pooled activations are; float64."""
    g = torch.Generator().manual_seed(n)
    mix = torch.randn(d, d, generator=g, dtype=torch.float64) / d**0.5
    a = torch.randn(n, d, generator=g, dtype=torch.float64) @ mix
    b = torch.randn(m, d, generator=g, dtype=torch.float64) @ mix * 1.2 + 0.2
    return a.relu(), b.relu()


@pytest.mark.parametrize(("n", "m"), [(300, 200), (30, 200), (300, 40)])
def test_frechet_distance(n, m):
    oracle = fidelity("metric_fid")
    a, b = sets(n, m, 48)
    statistics = [oracle.fid_features_to_statistics(x) for x in (a, b)]
    expected = oracle.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_kid_on_the_same_subsets():
    oracle = fidelity("metric_kid")
    a, b = sets(300, 200, 48)
    expected = oracle.kid_features_to_metric(
        a, b, kid_subsets=7, kid_subset_size=100, rng_seed=5, verbose=False
    )
    mean, std = kid_over_subsets(a, b, subsets=7, subset_size=100, seed=5)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
    assert std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-6)


def test_kid_of_all_pairs_is_that_of_one_subset_that_holds_all():
    oracle = fidelity("metric_kid")
    a, b = sets(150, 150, 48)
    expected = oracle.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=150, verbose=False)
    assert kid(a, b).value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)


@pytest.mark.parametrize("n", [300, 203])
def test_classifier_score(n):
    oracle = fidelity("metric_isc")
    logits = sets(n, 2, 48)[0] * 5
    expected = oracle.isc_features_to_metric(logits, splits=10, shuffle=False)
    mean, std, _ = classifier_score(logits, splits=10)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-6)


@pytest.mark.parametrize("save_memory", [False, True])
def test_precision_and_recall(save_memory):
    oracle = fidelity("metric_prc")
    fake, real = sets(300, 200, 12)
    expected = oracle.prc_features_to_metric(fake, real, save_cpu_ram=save_memory, verbose=False)
    precision, recall = precision_recall(real, fake)
    # torch-fidelity averages in float32
    assert precision == pytest.approx(expected["precision"], abs=1e-6)
    assert recall == pytest.approx(expected["recall"], abs=1e-6)
    assert 0 < precision < 1 and 0 < recall < 1


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """torch-fidelity's Inception with random weights that keep activations alive, and a file of them."""
    oracle = fidelity("feature_extractor_inceptionv3")
    with pytest.MonkeyPatch.context() as patch:
        blank = oracle.FeatureExtractorInceptionV3
        patch.setattr(oracle, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(blank, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = blank("inception", ["2048", "logits_unbiased"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), file)
    return network, file


def pictures(n: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, 40, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_inception_is_torch_fidelitys(random_inception, monkeypatch):
    network, file = random_inception
    monkeypatch.setenv("ALPHABAR_INCEPTION_WEIGHTS", str(file))
    extractor = EXTRACTORS.build("inception")
    *_, last = extract(extractor, pictures(2), batch=1)
    expected, logits = network(pictures(2).permute(0, 3, 1, 2).contiguous())
    assert expected.std() > 0
    torch.testing.assert_close(last.result.features, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.result.logits, logits, rtol=1e-4, atol=1e-5)
    assert last.result.features.shape == (2, extractor.dim)


def test_only_the_standard_weights_are_called_inception(random_inception, monkeypatch):
    _, file = random_inception
    other = EXTRACTORS.build({"name": "inception", "weights": str(file)})
    digest = other.name.removeprefix("inception_")
    assert len(digest) == 8 and digest in other.protocol
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "INCEPTION", INCEPTION._replace(sha256=sha256))
    assert EXTRACTORS.build({"name": "inception", "weights": str(file)}).name == "inception"


class Payload:
    """What a hostile file does when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Payload, "ran", True)


@pytest.mark.parametrize("name", ["inception", "dinov2"])
@pytest.mark.parametrize("content", ["text", "pickle", "other tensors", "missing"])
def test_weights_that_are_none_are_refused_and_never_unpickled(content, name, tmp_path):
    fidelity("feature_extractor_inceptionv3")
    file = tmp_path / "weights.pth"
    if content == "text":
        file.write_text("<html>not found</html>")
    elif content == "pickle":
        torch.save({"fc.bias": Payload()}, file)
    elif content == "other tensors":
        torch.save({"fc.bias": torch.zeros(3)}, file)
    with pytest.raises(AlphabarError, match=r"weights\.pth") as error:
        EXTRACTORS.build({"name": name, "weights": str(file)})
    assert "\n" not in str(error.value)
    assert not Payload.ran


def test_a_damaged_download_is_refused(random_inception, monkeypatch, tmp_path):
    """In the place of the standard file only the standard file will do."""
    monkeypatch.delenv("ALPHABAR_INCEPTION_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    target = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    target.write_bytes(random_inception[1].read_bytes())
    with pytest.raises(AlphabarError, match=r"6726825d\.pth is damaged. Delete it"):
        EXTRACTORS.build("inception")


@pytest.mark.parametrize("name", ["inception", "dinov2"])
def test_without_a_network_the_way_out_is_named(name, monkeypatch, tmp_path):
    fidelity("feature_extractor_inceptionv3")
    variable = f"ALPHABAR_{name.upper()}_WEIGHTS"
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(AlphabarError, match=rf"no route.*{variable}.*lite0"):
        EXTRACTORS.build(name)


def test_without_the_extra_its_name_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(AlphabarError, match=r"pip install 'alphabar\[fidelity\]'"):
        EXTRACTORS.build("inception")


DEPTH, DIM = 2, 128


def small_dinov2(grid: int) -> DINOv2:
    """A DINOv2 of two blocks with random weights that all have a say."""
    torch.manual_seed(0)
    network = DINOv2(DIM, DEPTH, grid)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.05)
    return network.eval()


def test_dinov2_is_the_network_of_transformers():
    """With one position a patch; theirs are stretched otherwise than the authors' are."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ours = small_dinov2(16)
    size = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": DIM // 64}
    oracle = transformers.Dinov2Model(transformers.Dinov2Config(**size, image_size=224)).eval()
    state = ours.state_dict()
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
    }
    theirs = {name: state[own] for name, own in names.items()} | {
        "embeddings.mask_token": torch.zeros(1, DIM)
    }
    layers = {"attention.o_proj": "attn.proj", "norm1": "norm1", "norm2": "norm2"}
    layers |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for i in range(DEPTH):
        block, layer = f"blocks.{i}", f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            theirs |= {
                f"{layer}.{name}.{kind}": state[f"{block}.{own}.{kind}"] for name, own in layers.items()
            }
            parts = state[f"{block}.attn.qkv.{kind}"].chunk(3)
            theirs |= {f"{layer}.attention.{qkv}_proj.{kind}": part for qkv, part in zip("qkv", parts)}
        theirs |= {f"{layer}.layer_scale{j}.lambda1": state[f"{block}.ls{j}.gamma"] for j in (1, 2)}
    oracle.load_state_dict(theirs)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = oracle(x).last_hidden_state[:, 0]
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_dinov2_stretches_its_positions_as_the_authors_do():
    """Patch i of 16 stands at (i + 1/2) 37 / 16.1 - 1/2 among the 37 published ones, by cubic convolution."""

    def kernel(t: torch.Tensor, a: float = -0.75) -> torch.Tensor:  # Keys 1981, eq. 4, with PyTorch's a
        t = t.abs()
        near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4)
        return torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))

    network = small_dinov2(37)
    profile = torch.randn(37, generator=torch.Generator().manual_seed(2))
    network.pos_embed.data[0, 1:, 0] = profile.repeat_interleave(37)  # the same along a row
    network.pos_embed.data[0, 1:, 1] = profile.repeat(37)
    at = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    places = torch.arange(-3, 40)
    wanted = kernel(at[:, None] - places) @ profile[places.clamp(0, 36)]
    positions = network.positions()
    assert torch.equal(positions[:, 0], network.pos_embed[:, 0])
    torch.testing.assert_close(positions[0, 1:, 0], wanted.repeat_interleave(16), rtol=0, atol=1e-4)
    torch.testing.assert_close(positions[0, 1:, 1], wanted.repeat(16), rtol=0, atol=1e-4)


def test_dinov2_from_a_file(tmp_path, monkeypatch):
    network = small_dinov2(37)
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict() | {"mask_token": torch.zeros(1, DIM)}, file)
    extractor = EXTRACTORS.build({"name": "dinov2", "weights": str(file)})
    digest = extractor.name.removeprefix("dinov2_")
    assert len(digest) == 8 and digest in extractor.protocol
    *_, last = extract(extractor, pictures(3), batch=2)
    assert last.result.features.shape == (3, extractor.dim) == (3, DIM) and last.result.logits is None
    image = Image.fromarray(pictures(3)[2].numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = network((x - mean[:, None, None])[None] / std[:, None, None])
    torch.testing.assert_close(last.result.features[2:], expected, rtol=1e-4, atol=1e-4)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(dinov2, "DINOV2", DINOV2._replace(sha256=sha256))
    monkeypatch.setenv("ALPHABAR_DINOV2_WEIGHTS", str(file))
    assert EXTRACTORS.build("dinov2").name == "dinov2"
