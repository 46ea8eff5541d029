"""Inception v3, the network behind the FID and the Inception Score."""

import io

import torch
from torch import Tensor

from alphabar.errors import AlphabarError
from alphabar.messages import message
from alphabar.metrics.features.base import Features
from alphabar.metrics.features.weights import PublishedWeights, load_weights
from alphabar.metrics.pictures import channels_first

INCEPTION = PublishedWeights(
    "Inception",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "ALPHABAR_INCEPTION_WEIGHTS",
)


class Inception:
    """Inception v3 of 2015 as torch-fidelity ports it, with TensorFlow 1's resize: the network of FID and IS.

    Needs the extra ``alphabar[fidelity]``.
    device: where the network runs.
    weights: a file with its weights; else the environment variable ALPHABAR_INCEPTION_WEIGHTS; else the
        standard file, fetched at first use. The name is "inception" only with the standard weights; any
        others show in it, since their distances are no FID.
    Raises AlphabarError where the extra or the file is missing, or the file holds no such weights.
    """

    dim = 2048

    def __init__(self, device: torch.device | str = "cpu", *, weights: str = ""):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise AlphabarError("metrics.inception_missing", problem=error) from None
        data, sha256, path = load_weights(INCEPTION, weights)
        self.name = "inception" if sha256 == INCEPTION.sha256 else f"inception_{sha256[:8]}"
        self.protocol = message("metrics.inception_protocol", sha256=sha256[:16])
        self.device = torch.device(device)
        try:
            # torch-fidelity would unpickle whatever the file holds: it gets a copy with tensors only
            plain = io.BytesIO()
            torch.save(torch.load(io.BytesIO(data), weights_only=True), plain)
            plain.seek(0)
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=plain
            )
        except Exception as error:  # a damaged file fails in more ways than can be named
            reason = str(error).partition("\n")[0]
            raise AlphabarError(
                "metrics.wrong_weights", path=path, network="Inception", problem=reason
            ) from None
        # twice as fast on a CPU
        self.network = network.to(self.device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Features:
        with torch.autocast(self.device.type, enabled=False):
            features, logits = self.network(channels_first(pictures.to(self.device)).contiguous())
        return Features(features.cpu(), logits.cpu())
