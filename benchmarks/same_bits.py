"""Does the refactored code compute the same bits as the code before it?

    git worktree add ../before 2cc0284
    python benchmarks/same_bits.py ../before .

Both checkouts run on this machine in the plain runtime: float32, contiguous, eager, one thread. Printed is a
table of hashes: (a) 64 samples of `cars64` for three seeds, with its own guidance, with none and with
classifier-free guidance; (b) the weights and their EMA after 40 updates of every recipe at 32 px; (c) a
restoration by every solver; (d) the numbers of an evaluation; (e) interpolation, editing, and the restoration
of a picture larger than the model.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

UPDATES, BATCH, SIZE = 40, 8, 32
NOT_MEASURED = {
    *("when", "seconds_per_sample", "sampler", "grid", "timesteps", "start", "initial_noise"),
    *("guidance", "guidance_interval", "sag", "pag", "pag_interval", "autoguidance", "classifier_scale"),
}
"""Keys of an evaluation that hold times and settings: the settings have other names after the change."""
SOLVERS = ("ddnm", "ddrm", "diffpir", "pigdm", "mmps", "perturb_and_map", "dps", "direct", None)
SMALL = {
    "classic": ["network.widths=[16,32,32,32]"],
    "ddpm": ["network.widths=[32,32]", "network.head_dim=32"],
    "edm": ["network.widths=[32,64]"],
    "lean": ["network.widths=[32,64]", "network.head_dim=32"],
    "classifier": ["network.widths=[32,64]", "network.head_dim=32"],
    "gan": ["network.width=8"],
    "vae": ["network.width=8"],
}


class Before:
    """The calls of version 0.1, commit 2cc0284."""

    settings: ClassVar[list[str]] = ["watch.share=0", "watch.levels=0", "watch.distance=0", "watch.grid=1"]

    def load(self) -> Any:
        from alphabar.training.run import load_model

        return load_model("cars64", "cpu")

    def sampling(self, model: Any, kind: str, seed: int) -> Any:
        from alphabar.sampling import settings

        kinds: dict[str, dict[str, Any]] = {"own": {}, "none": {"pag": 0.0}, "bare": {"pag": 0.0, "ask": ()}}
        more = kinds.get(kind, {"guidance": 2.0, "ask": [{"body": "SUV"}]})
        return settings(model, seed=seed, **more)

    def sample(self, model: Any, n: int, settings: Any) -> Any:
        from alphabar.sampling import sample

        return list(sample(model, n, settings))[-1].pictures

    def dataset(self) -> Any:
        from alphabar.data.cache import prepare

        from alphabar.data.sources import open_source

        return list(prepare(open_source("toycars:200"), SIZE))[-1].dataset

    def recipe(self, name: str, settings: list[str]) -> Any:
        from alphabar.training.recipe import with_settings
        from alphabar.training.recipes import named_recipe

        return with_settings(named_recipe(name), settings)

    def train(self, dataset: Any, folder: Path, recipe: Any, start: Any = None) -> None:
        from alphabar.training.runtime import Runtime
        from alphabar.training.trainer import begin, train

        run = begin(folder, recipe, start=start)
        list(train(dataset, run, images=UPDATES * BATCH, runtime=Runtime(), checkpoint_every=1e9))

    def load_run(self, folder: Path) -> Any:
        from alphabar.training.run import load_model

        return load_model(folder, "cpu")

    def derived(self, kind: str, recipe: Any) -> Any:
        from alphabar.training.recipes import continued, shortened

        return shortened(recipe, 2) if kind == "distilled" else continued(recipe, "lean")

    def set(self, recipe: Any, settings: list[str]) -> Any:
        from alphabar.training.recipe import with_settings

        return with_settings(recipe, settings)

    def restore(self, model: Any, x: Any, degradation: str, solver: str | None, steps: int) -> Any:
        from alphabar.restoring import parse_degradation, restore, settings

        operator, sigma_y = self._operator(parse_degradation(degradation), x)
        how = settings(model, operator, sigma_y, seed=0, solver=solver, steps=steps)
        return list(restore(model, operator.A(x), operator, sigma_y, n=1, how=how))[-1].x

    def _operator(self, parsed: Any, x: Any) -> Any:
        operator = parsed.operator(tuple(x.shape[1:]))
        return operator, 0.05

    def evaluate(self, model: Any) -> dict[str, Any]:
        from alphabar.evaluation import evaluate

        return list(evaluate(model, "toycars:300", n=64, how=self.sampling(model, "own", 0)))[
            -1
        ].result.to_dict()

    def interpolate(self, model: Any) -> Any:
        from alphabar.editing import deterministic, interpolate

        how = deterministic(model, self.sampling(model, "bare", 0))
        return list(interpolate(model, how, rows=2, columns=4))[-1].pictures

    def edit(self, model: Any, x: Any, invert: bool) -> Any:
        from alphabar.editing import deterministic, edit

        how = deterministic(model, self.sampling(model, "bare", 0))
        return list(edit(model, x, how, strength=0.6, invert=invert))[-1].pictures


class After(Before):
    """The same calls of the refactored package."""

    settings: ClassVar[list[str]] = [
        *("monitor.share=0", "monitor.levels=0", "monitor.distance=0", "monitor.samples=1")
    ]

    def load(self) -> Any:
        from alphabar import load_model

        return load_model("cars64", "cpu")

    def sampling(self, model: Any, kind: str, seed: int) -> Any:
        from alphabar import sampling_settings

        kinds: dict[str, dict[str, Any]] = {
            "own": {},
            "none": {"guidance": {}},
            "bare": {"guidance": {}, "conditions": ()},
        }
        more = kinds.get(kind, {"guidance": {"classifier_free": 2.0}, "conditions": [{"body": "SUV"}]})
        return sampling_settings(model, seed=seed, **more)

    def sample(self, model: Any, n: int, settings: Any) -> Any:
        from alphabar import last, sample

        return last(sample(model, n, settings))

    def dataset(self) -> Any:
        from alphabar import last, open_source, prepare
        from alphabar.codecs.image import ImageCodec

        return last(prepare(open_source("toycars:200"), ImageCodec(SIZE)))

    def recipe(self, name: str, settings: list[str]) -> Any:
        from alphabar import named_recipe, with_settings

        return with_settings(named_recipe(name), settings)

    def train(self, dataset: Any, folder: Path, recipe: Any, start: Any = None) -> None:
        from alphabar import begin, train
        from alphabar.runtime import Runtime

        run = begin(folder, recipe, initial_model=start)
        list(train(dataset, run, images=UPDATES * BATCH, runtime=Runtime(), checkpoint_every=1e9))

    def load_run(self, folder: Path) -> Any:
        from alphabar import load_model

        return load_model(folder, "cpu")

    def derived(self, kind: str, recipe: Any) -> Any:
        from alphabar.recipes.derive import distilled, finetuned

        return distilled(recipe, 2) if kind == "distilled" else finetuned(recipe, "lean")

    def set(self, recipe: Any, settings: list[str]) -> Any:
        from alphabar import with_settings

        return with_settings(recipe, settings)

    def restore(self, model: Any, x: Any, degradation: str, solver: str | None, steps: int) -> Any:
        from alphabar import last, parse_degradation, restoration_settings, restore

        renamed = degradation.replace("down:", "downsample:")
        operator, sigma_y = self._operator(parse_degradation(renamed), x)
        settings = restoration_settings(model, operator, sigma_y, seed=0, solver=solver, steps=steps)
        return last(restore(model, operator.A(x), operator, sigma_y, n=1, settings=settings))

    def evaluate(self, model: Any) -> dict[str, Any]:
        from alphabar import evaluate, last

        return last(evaluate(model, "toycars:300", n=64, settings=self.sampling(model, "own", 0))).to_dict()

    def interpolate(self, model: Any) -> Any:
        from alphabar import interpolate, last
        from alphabar.sampling.edit import deterministic

        settings = deterministic(model, self.sampling(model, "bare", 0))
        return last(interpolate(model, settings, rows=2, columns=4))

    def edit(self, model: Any, x: Any, invert: bool) -> Any:
        from alphabar import edit, last
        from alphabar.sampling.edit import deterministic

        settings = deterministic(model, self.sampling(model, "bare", 0))
        return last(edit(model, x, settings, strength=0.6, invert=invert))


def hash_of(*tensors: Any) -> str:
    """The first 16 digits of a SHA-256 over tensors' shapes and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def hash_of_numbers(values: Any) -> str:
    """The first 16 digits of a SHA-256 over all numbers of nested values, sorted, without times."""
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                if key not in NOT_MEASURED:
                    collect(each)
        elif isinstance(value, list | tuple):
            for each in value:
                collect(each)
        elif isinstance(value, float):
            found.append(repr(value))

    collect(values)
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()[:16]


def hashes(api: Before) -> Iterator[tuple[str, str]]:
    """(what, hash) of everything that is compared."""
    import torch

    model = api.load()
    for kind in ("own", "none", "classifier-free"):
        for seed in range(3):
            yield (
                f"64 samples, {kind} guidance, seed {seed}",
                hash_of(api.sample(model, 64, api.sampling(model, kind, seed))),
            )
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    for solver in SOLVERS:
        degradation = {"ddnm": "jpeg:20", "direct": "noise:0.05"}.get(solver or "", "down:4")
        yield (
            f"{degradation} by {solver or 'the default'}",
            hash_of(api.restore(model, x, degradation, solver, 5)),
        )
    for degradation in ("box:10,10,40,40", "blur:1.5", "random:0.7", "motion:9,45"):
        yield f"{degradation} by the default", hash_of(api.restore(model, x, degradation, None, 5))
    large = torch.linspace(-1, 1, 3 * 96 * 96).reshape(1, 3, 96, 96)
    yield "box of a larger picture", hash_of(api.restore(model, large, "box:20,20,50,50", None, 3))
    yield "interpolation", hash_of(api.interpolate(model))
    for invert in (False, True):
        yield f"editing, invert = {invert}", hash_of(api.edit(model, x[0], invert))
    yield "an evaluation's numbers", hash_of_numbers(api.evaluate(model))
    yield from trained(api)


def trained(api: Before) -> Iterator[tuple[str, str]]:
    """(what, hash) of the weights after some updates of every recipe."""
    dataset = api.dataset()
    common = [f"data.size={SIZE}", f"batch={BATCH}", *api.settings]
    with tempfile.TemporaryDirectory() as folder:
        for name, small in SMALL.items():
            labels = ["condition.on=attributes"] if name == "classifier" else []
            recipe = api.recipe(name, [*common, *small, *labels])
            run = Path(folder) / name
            api.train(dataset, run, recipe)
            yield f"weights of {name}", weights_of(run)
        lean = api.load_run(Path(folder) / "lean")
        for kind in ("finetuned", "distilled"):
            recipe = api.set(api.derived(kind, lean.recipe), [f"batch={BATCH}"])
            run = Path(folder) / kind
            api.train(dataset, run, recipe, start=lean)
            yield f"weights of lean {kind}", weights_of(run)


def weights_of(run: Path) -> str:
    """The hash of the weights and their EMA in the newest checkpoint of a run, in the order of names."""
    from safetensors.torch import load_file

    folder = max((run / "checkpoints").glob("[0-9]*"))
    tensors = []
    for name in ("model", "ema"):
        if (file := folder / f"{name}.safetensors").exists():
            tensors += [tensor for _, tensor in sorted(load_file(file).items())]
    return hash_of(*tensors)


def run_child() -> None:
    """Compute the hashes of the package on the path and print them as JSON."""
    import torch

    torch.set_num_threads(1)
    import alphabar

    after = (Path(alphabar.__file__).parent / "runtime.py").exists()
    found = {}
    for what, value in hashes(After() if after else Before()):
        print(f"{value}  {what}", file=sys.stderr, flush=True)
        found[what] = value
    print(json.dumps(found))


def results(checkout: Path) -> dict[str, str]:
    """The hashes of a checkout, or those in a JSON file of an earlier run."""
    if checkout.is_file():
        return json.loads(checkout.read_text())
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout.resolve() / "src"),
            "ALPHABAR_CACHE": cache,
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, __file__, "--child"],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Compare two checkouts, or only compute the hashes of one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkouts", nargs="*", type=Path, metavar="CHECKOUT", help="or a file made with --out"
    )
    parser.add_argument("--out", type=Path, help="where the hashes of a single checkout go, as JSON")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run_child()
        return
    found = [results(checkout) for checkout in given.checkouts]
    if given.out:
        given.out.write_text(json.dumps(found[0], indent=1))
    if len(found) == 2:
        before, after = found
        print("| | before | after | |\n| --- | --- | --- | --- |")
        for what in before:
            same = "same" if before[what] == after.get(what) else "**different**"
            print(f"| {what} | {before[what]} | {after.get(what, '-')} | {same} |")


if __name__ == "__main__":
    main()
