"""Model folders and runs that come from anywhere: whatever is wrong with them is one sentence."""

import hashlib
import json
import os
import shutil

import pytest
import torch

from alphabar.codecs.image import ImageCodec
from alphabar.conditioning.fields import Categorical, Numeric
from alphabar.conditioning.vocabulary import Vocabulary
from alphabar.diffusion.initial_noise import fit_gaussian
from alphabar.errors import AlphabarError
from alphabar.files import MANIFEST, pack_json, read_folder, write_folder
from alphabar.messages import Message
from alphabar.progress import last
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.model import build_denoiser, load_model, write_model_folder
from alphabar.runs.run import Run
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings
from alphabar.tensor_files import pack_tensors, unpack_tensors
from refusals import refused

SETTINGS = ["data.size=16", "network.widths=[8,8]", "network.head_dim=8", "condition.on=attributes"]
LABELS = Vocabulary((Categorical("kind", ("first", "second")), Numeric("year", 2000.0, 5.0)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model folder with everything that one can hold."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    recipe = with_settings(named_recipe("lean"), SETTINGS)
    weights = pack_tensors(build_denoiser(recipe, LABELS).network.state_dict())
    statistics = fit_gaussian([torch.rand(20, 3, 16, 16)], ImageCodec(16))
    files = {
        "model.safetensors": weights,
        "early.safetensors": weights,
        "statistics.safetensors": pack_tensors(statistics._asdict()),
        "vocabulary.json": pack_json(LABELS.to_dict()),
        "label_frequencies.json": pack_json([{"kind": "first", "year": "1999"}]),
    }
    write_model_folder(folder, recipe, 96, files)
    return folder


def manifest(change):
    """Damage of the manifest, a function of its values."""

    def damage(folder):
        values = json.loads((folder / MANIFEST).read_bytes())
        changed = change(values, folder)
        (folder / MANIFEST).write_bytes(pack_json(values if changed is None else changed))

    return damage


def written(name, content):
    """Damage that has a right checksum: a file made up by somebody. content: bytes, or of the old ones."""

    def damage(folder):
        files = read_folder(folder)
        old = files.get(name, b"")
        write_folder(folder, {**files, name: content(old) if callable(content) else content})

    return damage


def values(name, *path, value):
    """One value of a JSON file replaced, with a right checksum."""

    def change(old):
        document = json.loads(old)
        here = document
        for key in path[:-1]:
            here = here[key]
        if value is DELETED:
            del here[path[-1]]
        else:
            here[path[-1]] = value
        return json.dumps(document).encode()

    return written(name, change)


def tensors(name, change):
    """The tensors of a file changed, with a right checksum. change: of the mapping from names to tensors."""

    def changed(old):
        held = unpack_tensors(old)
        change(held)
        return pack_tensors(held)

    return written(name, changed)


def in_place_of(name, make):
    """Something else in a file's place."""

    def damage(folder):
        (folder / name).unlink()
        make(folder / name)

    return damage


def listed(name):
    """The manifest names a further file, which exists and has this checksum."""

    def damage(folder):
        (folder.parent / "outside").write_bytes(b"secret")
        checksum = hashlib.sha256(b"secret").hexdigest()
        manifest(lambda known, folder: {**known, name(folder): checksum})(folder)

    return damage


def first_weight(held):
    return next(iter(held))


DELETED = object()
HUGE = int("9" * 400)
RECIPE, WEIGHTS, STATISTICS = "recipe.json", "model.safetensors", "statistics.safetensors"
NETWORK = (RECIPE, "recipe", "network")

DAMAGES = {
    "no recipe": lambda f: (f / RECIPE).unlink(),
    "no manifest": lambda f: (f / MANIFEST).unlink(),
    "no weights": lambda f: (f / WEIGHTS).unlink(),
    "weights not listed": manifest(lambda known, f: known.pop(WEIGHTS) and None),
    "statistics not listed": manifest(lambda known, f: known.pop(STATISTICS) and None),
    "recipe not listed": manifest(lambda known, f: known.pop(RECIPE) and None),
    "frequencies not listed": manifest(lambda known, f: known.pop("label_frequencies.json") and None),
    "empty manifest": lambda f: (f / MANIFEST).write_bytes(b""),
    "manifest of nothing": manifest(lambda known, f: {}),
    "manifest a list": manifest(lambda known, f: list(known)),
    "manifest null": lambda f: (f / MANIFEST).write_bytes(b"null"),
    "manifest cut short": lambda f: (f / MANIFEST).write_bytes((f / MANIFEST).read_bytes()[:40]),
    "manifest not text": lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe\x00{"),
    "manifest deep": lambda f: (f / MANIFEST).write_bytes(b"[" * 100_000),
    "manifest huge": lambda f: os.truncate(f / MANIFEST, 2**40),
    "checksum a number": manifest(lambda known, f: {**known, WEIGHTS: 5}),
    "checksum of other bytes": manifest(lambda known, f: {**known, WEIGHTS: "0" * 64}),
    "a file above": listed(lambda f: "../outside"),
    "a file by its full path": listed(lambda f: str(f.parent / "outside")),
    "a file in a folder": listed(lambda f: "x/../../outside"),
    "a file with backslashes": listed(lambda f: "..\\outside"),
    "the folder above": listed(lambda f: ".."),
    "the manifest itself": listed(lambda f: MANIFEST),
    "an empty name": listed(lambda f: ""),
    "a null in a name": listed(lambda f: "a\0b"),
    "a very long name": listed(lambda f: "x" * 5000),
    "a name that is no text": listed(lambda f: "\udcff"),
    "weights a link": in_place_of(WEIGHTS, lambda p: p.symlink_to("/etc/hostname")),
    "weights a link to itself": in_place_of(WEIGHTS, lambda p: p.symlink_to(p)),
    "weights a folder": in_place_of(WEIGHTS, lambda p: p.mkdir()),
    "weights a pipe": in_place_of(WEIGHTS, lambda p: os.mkfifo(p)),
    "recipe a folder": in_place_of(RECIPE, lambda p: p.mkdir()),
    "weights of a terabyte": lambda f: os.truncate(f / WEIGHTS, 2**40),
    "weights empty": written(WEIGHTS, b""),
    "weights cut short": written(WEIGHTS, lambda old: old[: len(old) // 2]),
    "weights no tensors": written(WEIGHTS, b"PK\x03\x04 a zip"),
    "weights declare a huge header": written(WEIGHTS, lambda old: b"\xff" * 8 + old[8:]),
    "a weight missing": tensors(WEIGHTS, lambda held: held.pop(first_weight(held))),
    "a weight too many": tensors(WEIGHTS, lambda held: held.update(extra=torch.zeros(2))),
    "a weight of another shape": tensors(
        WEIGHTS, lambda held: held.update({first_weight(held): torch.zeros(1, 2, 3)})
    ),
    "a weight NaN": tensors(WEIGHTS, lambda held: held[first_weight(held)].fill_(float("nan"))),
    "an early weight infinite": tensors(
        "early.safetensors", lambda held: held[first_weight(held)].fill_(float("inf"))
    ),
    "statistics of another shape": tensors(
        STATISTICS, lambda held: held.update(mean=torch.zeros(3, 8, 8))
    ),
    "statistics without a mean": tensors(STATISTICS, lambda held: held.pop("mean")),
    "statistics NaN": tensors(STATISTICS, lambda held: held["mean"].fill_(float("nan"))),
    "statistics of other numbers": tensors(STATISTICS, lambda held: held.update(factor=torch.zeros(()))),
    "recipe empty": written(RECIPE, b""),
    "recipe not text": written(RECIPE, b"\xff\xfe"),
    "recipe a list": written(RECIPE, b"[1, 2]"),
    "recipe a number": written(RECIPE, b"1" * 5000),
    "no recipe inside": values(RECIPE, "recipe", value=DELETED),
    "recipe inside a text": values(RECIPE, "recipe", value="lean"),
    "images a text": values(RECIPE, "images", value="many"),
    "images negative": values(RECIPE, "images", value=-1),
    "images NaN": values(RECIPE, "images", value=float("nan")),
    "no network": values(*NETWORK, value=DELETED),
    "network null": values(*NETWORK, value=None),
    "network unknown": values(*NETWORK, "name", value="resnet"),
    "network without a name": values(*NETWORK, "name", value=DELETED),
    "network of another name": values(*NETWORK, "name", value="tutorial_unet"),
    "no widths": values(*NETWORK, "widths", value=[]),
    "widths of texts": values(*NETWORK, "widths", value=["wide"]),
    "widths of 400 digits": values(*NETWORK, "widths", value=[HUGE, HUGE]),
    "widths beyond memory": values(*NETWORK, "widths", value=[2**20, 2**20]),
    "many widths": values(*NETWORK, "widths", value=[8] * 100_000),
    "a million blocks": values(*NETWORK, "blocks", value=10**6),
    "head_dim zero": values(*NETWORK, "head_dim", value=0),
    "an unknown setting": values(*NETWORK, "depth", value=3),
    "size zero": values(RECIPE, "recipe", "data", "size", value=0),
    "size of 400 digits": values(RECIPE, "recipe", "data", "size", value=HUGE),
    "another size": values(RECIPE, "recipe", "data", "size", value=32),
    "channels 2": values(RECIPE, "recipe", "data", "channels", value=2),
    "codec unknown": values(RECIPE, "recipe", "data", "codec", value={"name": "smell"}),
    "codec a list": values(RECIPE, "recipe", "data", "codec", value=[]),
    "an unknown key": values(RECIPE, "recipe", "colour", value="red"),
    "method unknown": values(RECIPE, "recipe", "method", "name", value="alchemy"),
    "schedule a number": values(RECIPE, "recipe", "schedule", value=3),
    "sampler unknown": values(RECIPE, "recipe", "sampling", "sampler", value="guess"),
    "steps beyond counting": values(RECIPE, "recipe", "sampling", "steps", value=10**30),
    "guidance a number": values(RECIPE, "recipe", "sampling", "guidance", value=3),
    "extensions a number": values(RECIPE, "recipe", "extensions", value=3),
    "extensions of numbers": values(RECIPE, "recipe", "extensions", value=[3]),
    "an extension that is not loaded": values(
        RECIPE, "recipe", "extensions", value=[{"name": "mine", "sha256": ""}]
    ),
    "vocabulary empty": written("vocabulary.json", b""),
    "vocabulary a list": written("vocabulary.json", b"[]"),
    "vocabulary without fields": written("vocabulary.json", b"{}"),
    "fields a number": values("vocabulary.json", "fields", value=3),
    "a field of nothing": values("vocabulary.json", "fields", 0, value={}),
    "names of numbers": values("vocabulary.json", "fields", 0, "names", value=[[1], [2]]),
    "more names than the network knows": values(
        "vocabulary.json", "fields", 0, "names", value=["a", "b", "c"]
    ),
    "a mean of text": values("vocabulary.json", "fields", 1, "mean", value="middle"),
    "a spread of 400 digits": values("vocabulary.json", "fields", 1, "std", value=HUGE),
    "a spread NaN": values("vocabulary.json", "fields", 1, "std", value=float("nan")),
    "frequencies an object": written("label_frequencies.json", b"{}"),
    "frequencies of numbers": written("label_frequencies.json", b"[1, 2]"),
}  # fmt: skip


def retyped(name, dtype):
    """Every tensor of a file in another type."""
    return tensors(name, lambda held: held.update({key: t.to(dtype) for key, t in held.items()}))


VOCABULARY, FREQUENCIES = "vocabulary.json", "label_frequencies.json"
FIELD = (VOCABULARY, "fields")
MISFITS = {
    "a spread of zero": (values(*FIELD, 1, "std", value=0), VOCABULARY, "fields.1.numeric.std = 0: "),
    "a negative spread": (values(*FIELD, 1, "std", value=-1), VOCABULARY, "std = -1: "),
    "a mean of infinity": (values(*FIELD, 1, "mean", value=float("inf")), VOCABULARY, "mean = inf: "),
    "a mean of text": (values(*FIELD, 1, "mean", value="middle"), VOCABULARY, "mean = 'middle': "),
    "names that are the same": (values(*FIELD, 0, "names", value=["a", "b", "a"]), VOCABULARY, "'a' "),
    "an empty name": (values(*FIELD, 0, "names", value=["", "b"]), VOCABULARY, "names.0 = '': "),
    "no names": (values(*FIELD, 0, "names", value=[]), VOCABULARY, "names = []: "),
    "fields that are the same": (values(*FIELD, 1, "name", value="kind"), VOCABULARY, "'kind' "),
    "no fields": (values(*FIELD, value=[]), VOCABULARY, "fields = []: "),
    "fields of text": (values(*FIELD, value=["kind"]), VOCABULARY, "fields.0"),
    "no list of fields": (written(VOCABULARY, b"{}"), VOCABULARY, "fields: "),
    "a thousand fields": (
        values(*FIELD, value=[{"name": str(i), "mean": 0, "std": 1} for i in range(1000)]), VOCABULARY, "500"
    ),
    "a hundred thousand names": (
        values(*FIELD, 0, "names", value=[str(i) for i in range(100_000)]), VOCABULARY, "50000"
    ),
    "a vocabulary beyond bounds": (written(VOCABULARY, b" " * (2**26 + 1)), VOCABULARY, "67108864"),
    "frequencies of another name": (
        written(FREQUENCIES, b'[{"kind": "third"}]'), FREQUENCIES, "kind = third"
    ),
    "frequencies of another field": (written(FREQUENCIES, b'[{"colour": "1"}]'), FREQUENCIES, "colour = 1"),
    "a frequency of no number": (written(FREQUENCIES, b'[{"year": "old"}]'), FREQUENCIES, "year = old"),
    "frequencies of numbers": (written(FREQUENCIES, b"[1]"), FREQUENCIES, "0 = 1: "),
    "no frequencies": (manifest(lambda known, f: known.pop(FREQUENCIES) and None), FREQUENCIES, ""),
    "weights of whole numbers": (retyped(WEIGHTS, torch.int32), "", "torch.int32"),
    "weights of truth values": (retyped(WEIGHTS, torch.bool), "", "torch.bool"),
    "weights of complex numbers": (retyped(WEIGHTS, torch.complex64), "", "torch.complex64"),
    "weights that are no tensors": (written(WEIGHTS, b"PK"), WEIGHTS, ""),
    "statistics of whole numbers": (retyped(STATISTICS, torch.int64), STATISTICS, "torch.int64"),
    "a factor of another size": (
        tensors(STATISTICS, lambda held: held.update(factor=torch.zeros(5, 5))), STATISTICS, "(5, 5)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_folder_whose_files_do_not_fit_names_the_file_and_the_value(whole, tmp_path, misfit):
    folder = shutil.copytree(whole, tmp_path / "model")
    damage, file, named = MISFITS[misfit]
    damage(folder)
    with pytest.raises(AlphabarError) as error:
        load_model(folder, "cpu")
    for said in (error.value.message, error.value.in_language("es")):
        assert str(folder) in said and file in said and named in said and "ValidationError" not in said


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_may_be_of_fewer_bits(whole, tmp_path, dtype):
    folder = shutil.copytree(whole, tmp_path / "model")
    retyped(WEIGHTS, dtype)(folder)
    assert load_model(folder, "cpu").fingerprint


def test_the_whole_folder_is_one(whole):
    model = load_model(whole, "cpu")
    settings = sampling_settings(model, steps=1, guidance={})
    assert last(sample(model, 1, settings)).shape == (1, 16, 16, 3)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_malformed_model_folder_is_one_sentence(whole, tmp_path, damage):
    folder = shutil.copytree(whole, tmp_path / "model")
    DAMAGES[damage](folder)
    with pytest.raises(AlphabarError) as error:
        load_model(folder, "cpu")
    said = error.value.message
    assert isinstance(said, Message) and str(folder) in said and len(said) < len(str(folder)) + 500
    assert "\n" not in said


@pytest.mark.parametrize("closed", [WEIGHTS, MANIFEST, "."])
def test_what_may_not_be_read_is_named(whole, tmp_path, closed, permissions_hold):
    folder = shutil.copytree(whole, tmp_path / "model")
    (folder / closed).chmod(0)
    try:
        with refused("files.unreadable", AlphabarError):
            load_model(folder, "cpu")
    finally:
        (folder / closed).chmod(0o700)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"a = ",
        b"name = 3",
        b"[network]\nname = 3",
        b"batch = " + b"9" * 400,
        b"a = " + b"[" * 9999,
    ],
    ids=["empty", "not text", "cut short", "no recipe", "no network", "400 digits", "deep"],
)
def test_a_malformed_recipe_of_a_run_is_one_sentence(tmp_path, content):
    (tmp_path / "recipe.toml").write_bytes(content)
    for reading in (lambda: Run(tmp_path).recipe, lambda: load_model(tmp_path)):
        with pytest.raises(AlphabarError) as error:
            reading()
        assert str(tmp_path) in error.value.message or "checkpoint" in error.value.message


def test_a_changed_recipe_is_named_and_its_copy_puts_it_right(tmp_path):
    run = Run(tmp_path / "run")
    run.create(with_settings(named_recipe("lean"), SETTINGS))
    file, original = run.path / "recipe.toml", run.recipe
    text = file.read_text()
    file.write_text(text.replace("seed = 0", "seed = 1"))
    with refused("runs.other_recipe", AlphabarError, path=file) as said:
        run.recipe  # noqa: B018
    del said
    copy = run.path / ".recipe" / "recipe.toml"
    shutil.copy(copy, file)
    assert run.recipe == original
    copy.write_bytes(copy.read_bytes() + b"#")  # damage of the copy itself is none of the recipe
    assert run.recipe == original
    shutil.rmtree(copy.parent)
    assert run.recipe == original


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"name = 'le", None])
def test_a_recipe_that_cannot_be_read_names_its_copy(tmp_path, content):
    run = Run(tmp_path / "run")
    run.create(with_settings(named_recipe("lean"), SETTINGS))
    file = run.path / "recipe.toml"
    file.write_bytes(content if content is not None else file.read_bytes()[:-30])
    with refused(
        "runs.other_recipe", AlphabarError, path=file, original=run.path / ".recipe" / "recipe.toml"
    ):
        run.recipe  # noqa: B018
