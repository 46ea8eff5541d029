"""The gradients of every method's loss in every runtime that the probe can choose, against float32 eager."""

import functools
import shutil

import pytest
import torch
from torch._inductor import config as inductor

from alphabar.conditioning.vocabulary import build_vocabulary
from alphabar.networks import NETWORKS
from alphabar.recipes.derive import distilled
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import RECIPES, named_recipe
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime
from alphabar.training.labels import Conditions
from alphabar.training.trial import Trial, wrong_gradient

BF16 = torch.bfloat16
UNET = ["network.widths=[8,16]", "network.head_dim=8"]
SIZES = {
    "autoencoder": ["network.widths=[8,8]"],
    "classic": ["network.widths=[8,16]"],
    "gan": ["network.width=4"],
    "vae": ["network.width=4"],
}
# Every recipe, and what no recipe has by itself: attention everywhere, several blocks, a condition of every
# kind, augmentation, dropout.
VARIANTS = {
    "unet with everything": ("lean", ["network.attention=2", "network.blocks=2", "network.dropout=0.1"]),
    "nested": ("lean", ["network=nested_unet", "coarse=2", "network.detail_width=8"]),
    "mp_unet with everything": ("edm", ["network.blocks=2", "network.dropout=0.1"]),
    "augmented": ("ddpm", ["data.augment=0.5"]),
    "grey and oblong": ("ddpm", ["data.size=[16,24]", "data.channels=1"]),
    "gan of pictures as they are": ("gan", ["method.augment=false", "network.blocks=2"]),
}
LOSSES = [*RECIPES, *VARIANTS, "conditional", "distilled"]
EAGER = [Runtime(channels_last=True), Runtime(dtype=BF16), Runtime(dtype=BF16, channels_last=True)]
NO_DENOISERS = ("gan", "vae", "classifier", "autoencoder")
DENOISERS = [name for name in LOSSES if name not in NO_DENOISERS and "gan of" not in name]


def recipe_of(name: str) -> Recipe:
    base, more = VARIANTS.get(name, ({"conditional": "ddpm", "distilled": "lean"}.get(name, name), []))
    if name in ("conditional", "classifier"):
        more = ["condition.on=attributes"]
    small = ["data.size=16", "batch=8", *SIZES.get(base, UNET)]
    recipe = with_settings(named_recipe(base), [*small, *more])
    return distilled(recipe, 2) if name == "distilled" else recipe


@functools.cache
def conditions() -> Conditions:
    """Classes, numbers and unknown values."""
    columns = {"colour": ["red", "blue", None, "red"], "weight": [0.1, 0.9, 0.5, None]}
    vocabulary = build_vocabulary("attributes", columns)
    return Conditions(vocabulary, (), vocabulary.rows(columns, None))


@functools.cache
def trial(name: str) -> Trial:
    recipe = recipe_of(name)
    return Trial(recipe, conditions() if recipe.condition.on else None)


def gradients(name: str, runtime: Runtime) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        return trial(name).gradients_in(runtime, 8)


def test_every_network_is_among_them():
    assert {recipe_of(name).network["name"] for name in LOSSES} == set(NETWORKS)


@pytest.mark.parametrize("name", LOSSES)
def test_eager_gradients_are_right_in_every_runtime(name):
    right = gradients(name, Runtime())
    without = {parameter for parameter, value in right.items() if not value.any()}
    assert without == ({"embed_cond.unknown"} if name == "augmented" else set())  # transformations are known
    assert any(parameter.startswith("critic.") for parameter in right) == name.startswith("gan")
    for runtime in EAGER:
        found = gradients(name, runtime)
        assert wrong_gradient(found, right, rounded=runtime.dtype is not None) is None, runtime
        gains = {parameter: value for parameter, value in right.items() if value.ndim == 1}
        assert wrong_gradient(found, gains) is None, "the gradient of a single number has cancelled"


# Most of what the compiler does for each of some 45 kernels is to read PyTorch's header. This one reads it
# once and has GCC take it in its compiled form, which GCC does only where all options are the same.
COMPILER = r"""#!/bin/bash
here=$(dirname "$0") header=torch/csrc/inductor/cpp_prefix.h options=() skip=
for word in "$@"; do
  case "$skip$word" in
    skip*) skip= ;;
    -o) skip=skip ;;
    *.cpp | -l* | -L* | -shared | -c) ;;
    *) options+=("$word") ;;
  esac
done
compiled=$here/$header.gch/$(printf '%s ' "${options[@]}" | sha1sum | cut -c1-16)
if [[ "$*" == *.cpp* && ! -e $compiled ]]; then
  mkdir -p "$here/$header.gch"
  echo "#include <$header>" > "$here/all-$$.h"
  g++ "${options[@]}" -x c++-header "$here/all-$$.h" -o "$here/$$.gch" 2> "$here/$$.log" &&
    mv "$here/$$.gch" "$compiled"
fi
exec g++ -I"$here" "$@"
"""


@pytest.fixture(scope="module")
def quick_compiler(tmp_path_factory):
    if not (shutil.which("g++") and shutil.which("bash")):
        yield
        return
    script = tmp_path_factory.mktemp("compiler") / "g++"
    script.write_text(COMPILER)
    script.chmod(0o755)
    with inductor.patch({"cpp.cxx": (str(script),)}):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, BF16])
@pytest.mark.parametrize("name", DENOISERS)
def test_compiled_gradients_are_right(name, dtype, quick_compiler):
    torch.compiler.reset()
    right, eager = gradients(name, Runtime()), gradients(name, Runtime(dtype=dtype, channels_last=True))
    found = gradients(name, Runtime(dtype=dtype, channels_last=True, compile=True))
    assert wrong_gradient(found, right, eager) is None
