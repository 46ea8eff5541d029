"""How fast does an evaluation compute features, compared with torch-fidelity?

    python benchmarks/feature_speed.py -n 64

Prints docs/results/feature_speed.md: pictures a second for features and a Fréchet distance, alphabar's and
torch-fidelity's own pipeline, with the same pictures and the same network. torch-fidelity receives lite0 as
PyTorch runs it through its registry; both use its Inception, with the weights of ``--weights`` or random
ones. Needs the extra "fast" (OpenVINO), torch-fidelity with torchvision, and a machine that is otherwise
idle.
"""

import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

from alphabar.codecs.image import ImageCodec
from alphabar.data.toycars.source import ToyCars
from alphabar.metrics.distances import frechet_distance
from alphabar.metrics.features import EXTRACTORS, Extractor, lite0
from alphabar.metrics.features.lite0 import by_openvino, load_lite0
from common import argument_parser, compute_features, load_dataset, print_command, print_section, print_table


def toycars(n: int, seed: int) -> Tensor:
    """Pictures (n, 64, 64, 3) uint8."""
    return torch.from_numpy(load_dataset(ToyCars(n, seed=seed), ImageCodec(64)).items)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that work takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def distance_by_alphabar(extractor: Extractor, a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two sets of pictures."""
    return frechet_distance(compute_features(extractor, a), compute_features(extractor, b))


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


def distance_by_fidelity(weights: str | None, a: Path, b: Path) -> float:
    """torch-fidelity's calculate_metrics on two folders, as its command computes it.

    weights: of Inception; None for lite0.
    """
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


def write_pngs(pictures: Tensor, folder: Path) -> Path:
    """The folder, with the pictures in it."""
    folder.mkdir()
    for i, picture in enumerate(pictures.numpy()):
        Image.fromarray(picture).save(folder / f"{i:06d}.png")
    return folder


def comparison(a: Tensor, b: Tensor, rounds: int, inception: str | None) -> Iterator[tuple[str, ...]]:
    """A row for each network: rates, their ratio, and how much the two distances differ."""
    register_lite0()
    with tempfile.TemporaryDirectory() as root:
        folders = write_pngs(a, Path(root) / "a"), write_pngs(b, Path(root) / "b")
        weights = inception or random_inception(Path(root) / "random.pth")
        for network, file in (("lite0", None), ("Inception", weights)):
            extractor = EXTRACTORS.build({"name": "inception", "weights": file} if file else "lite0")
            found = [timed(partial(distance_by_alphabar, extractor, a, b)) for _ in range(rounds)]
            expected = [timed(partial(distance_by_fidelity, file, *folders)) for _ in range(rounds)]
            (seconds, value), (their_seconds, their_value) = min(found), min(expected)
            rates = (f"{(len(a) + len(b)) / each:.1f}" for each in (seconds, their_seconds))
            yield (
                network, *rates, f"{their_seconds / seconds:.2f}", f"{abs(value / their_value - 1):.0e}"
            )  # fmt: skip


def configurations(pictures: Tensor, rounds: int) -> Iterator[tuple[str, ...]]:
    """Other ways to run lite0 on this machine: pictures a second, and the error of the features."""
    x = pictures[:64].permute(0, 3, 1, 2).float()
    x = (torch.nn.functional.interpolate(x, size=(224, 224), mode="bicubic", antialias=True) - 127) / 128
    x_last = x.contiguous(memory_format=torch.channels_last)
    network = load_lite0()
    channels_last = load_lite0().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(load_lite0().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    openvino = by_openvino(network, 224)
    assert openvino is not None, "pip install openvino"

    def bfloat16(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return channels_last(x)

    ways: dict[str, tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Tensor]] = {
        "float32, channels first": (network, x),
        "float32, channels last (used without OpenVINO)": (channels_last, x_last),
        "bfloat16 autocast, channels last": (bfloat16, x_last),
        "float32, channels last, torch.compile": (compiled, x_last),
        "**float32, OpenVINO** (used)": (openvino, x),
    }
    with torch.inference_mode():
        truth = network(x)[0]
        for name, (forward, given) in ways.items():
            found = forward(given)[0].float()  # also the warm-up
            best = min(timed(partial(forward, given))[0] for _ in range(rounds))
            error = float((found - truth).norm() / truth.norm())
            yield name, f"{len(given) / best:.1f}", f"{error:.1e}"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("-n", type=int, default=256, help="pictures in each of the two sets")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--weights", metavar="FILE", help="Inception weights, instead of random ones")
    args = parser.parse_args()
    a, b = toycars(args.n, 1), toycars(args.n, 2)
    print_section(
        "# Speed of feature extraction",
        "How fast does an evaluation compute features, compared with torch-fidelity?",
        f"Two sets of {args.n} toycars at 64×64, the best of {args.rounds} rounds; {platform.machine()},"
        f" {torch.get_num_threads()} threads, torch {torch.__version__}. torch-fidelity receives the `lite0`"
        " network as PyTorch runs it, reads its pictures from PNG files, and computes `sqrtm`; alphabar's"
        " pictures come from memory."
        + " The Inception weights were random, which changes no rate."
        * (args.weights is None),
    )
    head: tuple[str, ...] = (
        "network",
        "alphabar, pictures/s",
        "torch-fidelity",
        "ratio",
        "relative difference of the distances",
    )
    print_table(head, comparison(a, b, args.rounds, args.weights))
    print_command()
    print("## Appendix: what else was tried with `lite0`\n")
    head = ("configuration", "pictures/s", "relative error of the features")
    print_table(head, configurations(a, args.rounds))


if __name__ == "__main__":
    main()
