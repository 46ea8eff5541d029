"""How fast does the judge look? Features and a Fréchet distance, ours and torch-fidelity's own pipeline.

The same pictures and the same network on both sides: torch-fidelity gets lite0 as PyTorch runs it through its
registry; both use its Inception, with the weights of --weights or random ones. On an otherwise idle machine:
python benchmarks/judge_speed.py > docs/results/judge_speed.md
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.image import ImageCodec
from alphabar.data.dataset import prepare
from alphabar.data.toycars.source import ToyCars
from alphabar.metrics.distances import frechet_distance
from alphabar.metrics.features import EXTRACTORS, Extractor, extract, lite0
from alphabar.metrics.features.lite0 import by_openvino, load_lite0

ROUNDS = 3


def toycars(n: int, seed: int) -> Tensor:
    *_, last = prepare(ToyCars(n, seed=seed), ImageCodec(64))
    assert last.result is not None
    return torch.from_numpy(last.result.items)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def ours(extractor: Extractor, a: Tensor, b: Tensor, batch: int) -> float:
    sets = []
    for pictures in (a, b):
        *_, last = extract(extractor, pictures, batch=batch)
        assert last.result is not None
        sets.append(last.result.features)
    return frechet_distance(*sets)


def register_lite0() -> None:
    """lite0 becomes one of torch-fidelity's extractors."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    with patch.object(lite0, "by_openvino", lambda network, size: None):
        plain = EXTRACTORS.build("lite0")

    class Lite0(FeatureExtractorBase):
        """lite0, as PyTorch runs it, inside torch-fidelity: (n, 3, h, w) uint8 in, features out."""

        def __init__(self, name: str, features_list: list[str], **_: Any):
            super().__init__(name, features_list)
            self.anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("pooled",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "pooled"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (plain(x.permute(0, 2, 3, 1)).features,)

    torch_fidelity.register_feature_extractor("lite0", Lite0)


def fidelity(weights: str | None, a: Path, b: Path) -> float:
    """torch-fidelity's calculate_metrics on two folders, as its `fidelity` command does it: with Inception of
    these weights, or else with lite0."""
    import torch_fidelity

    settings: dict[str, Any] = {"feature_extractor": "lite0", "feature_layer_fid": "pooled"}
    if weights:
        settings = {"feature_extractor_weights_path": weights}
    found = torch_fidelity.calculate_metrics(
        input1=str(a), input2=str(b), fid=True, cuda=False, cache=False, verbose=False, **settings
    )
    return found["frechet_inception_distance"]


def random_inception(file: Path) -> str:
    """A file of random weights for Inception: what they are changes no rate."""
    import torch_fidelity.feature_extractor_inceptionv3 as port

    blank = port.FeatureExtractorInceptionV3
    with (
        patch.object(port, "load_state_dict_from_url", lambda *args, **kwargs: {}),
        patch.object(blank, "load_state_dict", lambda self, state: None),
    ):
        network = blank("inception", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), file)
    return str(file)


def written(pictures: Tensor, folder: Path) -> Path:
    folder.mkdir()
    for i, picture in enumerate(pictures.numpy()):
        Image.fromarray(picture).save(folder / f"{i:06d}.png")
    return folder


def variants(pictures: Tensor) -> list[tuple[str, ...]]:
    """What the machine could do otherwise with lite0: pictures a second, and how far the features are off."""
    x = pictures[:64].permute(0, 3, 1, 2).float()
    x = (torch.nn.functional.interpolate(x, size=(224, 224), mode="bicubic", antialias=True) - 127) / 128
    last = x.contiguous(memory_format=torch.channels_last)
    network = load_lite0()
    channels_last = load_lite0().to(memory_format=torch.channels_last)
    compiled = torch.compile(load_lite0().to(memory_format=torch.channels_last))
    openvino = by_openvino(network, 224)
    assert openvino is not None, "pip install openvino"

    def half(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return channels_last(x)

    kinds: dict[str, tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Tensor]] = {
        "float32, channels first": (network, x),
        "float32, channels last (used without OpenVINO)": (channels_last, last),
        "bfloat16 autocast, channels last": (half, last),
        "float32, channels last, torch.compile": (compiled, last),
        "**float32, OpenVINO** (used)": (openvino, x),
    }
    truth = network(x)[0]
    rows = []
    with torch.inference_mode():
        for name, (forward, given) in kinds.items():
            found = forward(given)[0].float()  # also the warm-up
            best = min(timed(lambda f=forward, g=given: f(g))[0] for _ in range(ROUNDS))
            error = float((found - truth).norm() / truth.norm())
            rows.append((name, f"{len(given) / best:.1f}", f"{error:.1e}"))
    return rows


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for row in (head, tuple("---" for _ in head), *rows):
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=256, help="pictures in each of the two sets")
    parser.add_argument("--weights", metavar="FILE", help="Inception weights, in place of random ones")
    chosen = parser.parse_args()
    a, b = toycars(chosen.n, 1), toycars(chosen.n, 2)
    print("# How fast the judge looks\n")
    print(
        f"`python benchmarks/judge_speed.py -n {chosen.n}`, {platform.machine()}, {torch.get_num_threads()}"
    )
    print(f"threads, torch {torch.__version__}; two sets of toycars of 64×64, the best of {ROUNDS}:\n")
    register_lite0()
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as root:
        folders = written(a, Path(root) / "a"), written(b, Path(root) / "b")
        weights = chosen.weights or random_inception(Path(root) / "random.pth")
        networks: dict[str, Any] = {"lite0": None, "Inception": weights}
        for network, file in networks.items():
            extractor = EXTRACTORS.build({"name": "inception", "weights": file} if file else "lite0")
            mine, value = min(timed(lambda e=extractor: ours(e, a, b, batch=64)) for _ in range(ROUNDS))
            peers, expected = min(timed(lambda f=file: fidelity(f, *folders)) for _ in range(ROUNDS))
            rates = (f"{2 * chosen.n / seconds:.1f}" for seconds in (mine, peers))
            rows.append((network, *rates, f"{peers / mine:.2f}", f"{abs(value / expected - 1):.0e}"))
    table(("network", "alphabar, pictures/s", "torch-fidelity", "times", "distances differ by"), rows)
    print("## What else the machine could do with lite0\n")
    table(("how", "pictures/s", "relative error of the features"), variants(a))


if __name__ == "__main__":
    main()
