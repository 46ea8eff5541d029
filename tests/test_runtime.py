"""The runtime: what the probe chooses and why, what is written down, and two processes as one."""

import itertools
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from alphabar.messages import message
from alphabar.networks.unet import UNet
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.recipes.schema import Recipe
from alphabar.runtime import Runtime, accumulating, broadcast, describe_machine, processes
from alphabar.training.probe import Stopped, bf16_refused, precisions, probe
from alphabar.training.trial import Trial, wrong_gradient

BF16 = torch.bfloat16


def tiny() -> UNet:
    torch.manual_seed(0)
    return UNet(channels=3, widths=(8, 16), attention=1, head_dim=8)


class TestRuntime:
    def test_written_down_and_taken_up_again(self) -> None:
        runtime = Runtime("cpu", BF16, True, True, True, "a machine", ("one", "two"))
        assert Runtime.from_dict(json.loads(json.dumps(runtime.to_dict()))) == runtime
        assert Runtime.from_dict(Runtime().to_dict()) == Runtime()

    def test_its_notes_can_be_said_in_another_language_after_a_resume(self) -> None:
        noted = Runtime(notes=("a machine", message("training.compile_short")))
        machine, note = Runtime.from_dict(json.loads(json.dumps(noted.to_dict()))).notes
        assert (machine, note) == noted.notes
        assert note.in_language("es") == message("training.compile_short").in_language("es") != note

    @pytest.mark.parametrize(("dtype", "expected"), [(None, torch.float32), (BF16, BF16)])
    def test_autocast(self, dtype: torch.dtype | None, expected: torch.dtype) -> None:
        with Runtime(dtype=dtype).autocast():
            assert nn.Conv2d(3, 3, 1)(torch.zeros(1, 3, 2, 2)).dtype == expected

    def test_memory_format(self) -> None:
        network, x = nn.Conv2d(3, 4, 3), torch.zeros(2, 3, 4, 4)
        for runtime in (Runtime(channels_last=True), Runtime()):
            runtime.place(network)
            assert network.weight.is_contiguous(memory_format=runtime.memory_format)
            assert runtime.put(x).is_contiguous(memory_format=runtime.memory_format)

    def test_one_process_is_the_network_itself(self) -> None:
        network, runtime = tiny(), Runtime()
        assert runtime.parallel(network) is network
        assert (runtime.rank, runtime.world_size, runtime.is_main) == (0, 1, True)
        assert broadcast("value") == "value"
        assert runtime.mean(torch.tensor(2.0)) == 2
        with accumulating(network), processes():
            runtime.barrier()

    def test_thecompiled_network_shares_its_parameters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "alphabar.training.trial.compiled", lambda network: torch.compile(network, backend="eager")
        )
        network = tiny()
        names = list(network.state_dict())
        compiled = Runtime(compile=True).parallel(network)
        compiled(torch.ones(2, 3, 8, 8), torch.ones(2)).sum().backward()
        assert network.output.bias.grad is not None
        assert list(network.state_dict()) == names


def recipe(*settings: str) -> Recipe:
    small = ["data.size=8", "network.widths=[8,16]", "network.attention=1", "network.head_dim=8", "batch=4"]
    return with_settings(named_recipe("ddpm"), [*small, *settings])


Clock = Callable[[Runtime], float]


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Clock], None]:
    """Makes the probe believe that a step of one picture takes what a function of the runtime says."""

    def install(clock: Clock) -> None:
        def start(trial: Trial, runtime: Runtime, n: int) -> Callable[[], float]:
            return lambda: n * clock(runtime)

        monkeypatch.setattr(Trial, "step", start)
        monkeypatch.setattr(Trial, "gradients", lambda trial: {"weight": torch.ones(3)})
        monkeypatch.setattr(Trial, "method", lambda trial, runtime: None)
        monkeypatch.setattr("alphabar.training.probe.bf16_refused", lambda device: None)
        monkeypatch.setattr(shutil, "which", lambda name: name)
        monkeypatch.setattr("alphabar.training.probe.default_device", lambda: "cpu")

    return install


def last(seconds: Mapping[Runtime, float]) -> Runtime:
    return list(seconds)[-1]


def choice(runtime: Runtime) -> tuple[torch.dtype | None, bool, bool]:
    return runtime.dtype, runtime.channels_last, runtime.compile


class TestProbe:
    @pytest.mark.parametrize("fastest", [(None, False), (None, True), (BF16, False), (BF16, True)])
    @pytest.mark.parametrize("compiled", [True, False])
    def test_what_is_faster_is_chosen(self, clocked, fastest: tuple, compiled: bool) -> None:
        def clock(runtime: Runtime) -> float:
            speed = 2.0 if (runtime.dtype, runtime.channels_last) == fastest else 1.0
            return 0.01 / (speed * ((1.5 if compiled else 0.5) if runtime.compile else 1))

        clocked(clock)
        assert choice(probe(recipe())) == (*fastest, compiled)

    def test_what_is_hardly_faster_is_not_worth_it(self, clocked) -> None:
        clocked(lambda r: 0.01 * (0.98 if r.dtype or r.channels_last else 1) * (0.98 if r.compile else 1))
        assert choice(probe(recipe())) == (None, False, False)

    def test_a_slow_machine_is_not_made_to_take_whole_batches(self, clocked, monkeypatch) -> None:
        clocked(lambda runtime: 1.0)
        taken: list[int] = []
        start = Trial.step

        def recording(trial: Trial, runtime: Runtime, n: int) -> Callable[[], float]:
            taken.append(n)
            return start(trial, runtime, n)

        monkeypatch.setattr(Trial, "step", recording)
        probe(recipe("batch=128"))
        assert max(taken) == 1

    def test_emulated_bf16_is_never_tried_on_the_network(self, clocked, monkeypatch) -> None:
        clocked(lambda runtime: 0.001 if runtime.dtype else 0.01)
        monkeypatch.setattr("alphabar.training.probe.bf16_refused", lambda device: "a convolution crawls")
        runtime = probe(recipe())
        assert runtime.dtype is None
        assert "bf16: not chosen, a convolution crawls." in runtime.notes

    def test_a_gpu_without_bf16_is_tried_in_fp16(self, monkeypatch) -> None:
        monkeypatch.setattr("alphabar.training.probe.bf16_refused", lambda device: "the GPU has none")
        assert precisions("cuda:0", True, notes := []) == [None, torch.float16]
        assert notes == ["bf16: not chosen, the GPU has none."]
        assert precisions("cuda:0", False, []) == precisions("cpu", True, []) == [None]
        monkeypatch.setattr("alphabar.training.probe.bf16_refused", lambda device: None)
        assert precisions("cuda:0", True, []) == [None, BF16]

    def test_slow_bf16_convolutions_are_found(self, monkeypatch) -> None:
        # By turns 1 s in fp32 and 5 s in bf16, the first ones slower: the fastest count.
        ticks = iter([0, 9, 9, 29, *(t + shift for shift in (29, 35, 41, 47) for t in (0, 1, 1, 6))])
        monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
        assert "0.20 times the speed of fp32" in (bf16_refused("cpu") or "")

    def test_compiling_needs_a_compiler(self, clocked, monkeypatch) -> None:
        clocked(lambda runtime: 0.001 if runtime.compile else 0.01)
        monkeypatch.setattr(shutil, "which", lambda name: None)
        runtime = probe(recipe())
        assert not runtime.compile
        assert any("no C++ compiler" in note for note in runtime.notes)

    @pytest.mark.parametrize("speed", [1.0, 10.0])
    def test_the_time_to_compile_is_that_of_the_clock(self, clocked, monkeypatch, speed: float) -> None:
        clocked(lambda runtime: 0.01 / (speed if runtime.compile else 1))
        monkeypatch.setattr(time, "perf_counter", itertools.count(0, 100).__next__)
        assert any("compiled in 100 s" in note for note in probe(recipe()).notes)

    def test_a_training_on_the_processor_goes_on_there_beside_a_gpu(self, clocked, monkeypatch) -> None:
        clocked(lambda runtime: 0.01)
        monkeypatch.setattr("alphabar.training.probe.default_device", lambda: "cuda:0")
        monkeypatch.setattr(
            "alphabar.training.probe.describe_machine", lambda device: f"the machine's {device}"
        )
        monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
        recorded = Runtime(channels_last=True, machine="the machine's cpu", notes=("as it was",))
        assert probe(recipe(), recorded=recorded.to_dict()) == recorded
        elsewhere = probe(recipe(), recorded=recorded.to_dict() | {"machine": "a laptop"})
        assert (elsewhere.device, elsewhere.machine) == ("cpu", "the machine's cpu")
        assert elsewhere.channels_last and any("a laptop" in note for note in elsewhere.notes)

    def test_no_compiling_where_it_is_not_asked_for(self, clocked) -> None:
        clocked(lambda runtime: 0.001 if runtime.compile else 0.01)
        assert not probe(recipe(), try_compile=False).compile

    @pytest.mark.parametrize(
        ("factor", "chosen"), [(1.0, True), (1 + 1e-4, True), (1.2, False), (float("nan"), False)]
    )
    def test_wrong_gradients_are_notcompiled(self, monkeypatch, factor: float, chosen: bool) -> None:
        class Scaled(nn.Module):
            def __init__(self, network: nn.Module):
                super().__init__()
                self.network = network

            def forward(self, *inputs: Tensor) -> Tensor:
                return factor * self.network(*inputs)

        monkeypatch.setattr("alphabar.training.probe.simplest", last)  # let nothing but the numbers decide
        monkeypatch.setattr(shutil, "which", lambda name: name)
        monkeypatch.setattr("alphabar.training.probe.bf16_refused", lambda device: "not in this test")
        monkeypatch.setattr("alphabar.training.trial.compiled", Scaled)
        runtime = probe(recipe())
        assert runtime.compile == chosen
        assert any("gradients are wrong" in note for note in runtime.notes) != chosen

    def wrong_for(self, monkeypatch: pytest.MonkeyPatch, parameter: str) -> None:
        """Makes steps that are compiled or in bf16 give one parameter a gradient of zero."""
        start = Trial.step

        def broken(trial: Trial, runtime: Runtime, n: int) -> Callable[[], float]:
            step = start(trial, runtime, n)

            def seconds() -> float:
                took = step()
                if not (runtime.compile or runtime.dtype):
                    return took
                trial.network.get_parameter(parameter).grad = None
                return took / 10

            return seconds

        monkeypatch.setattr(Trial, "step", broken)
        monkeypatch.setattr(shutil, "which", lambda name: name)
        monkeypatch.setattr("alphabar.training.trial.compiled", lambda network: network)

    @pytest.mark.parametrize("emulated", [True, False])
    def test_one_small_dead_parameter_is_enough_to_refuse(self, monkeypatch, emulated: bool) -> None:
        name = "middle.0.attention.norm.bias"
        why = "not in this test" if emulated else None
        monkeypatch.setattr("alphabar.training.probe.bf16_refused", lambda device: why)
        self.wrong_for(monkeypatch, name)
        runtime = probe(recipe())
        assert runtime.dtype is None and not runtime.compile
        refused = [note for note in runtime.notes if name in note]
        assert any(note.startswith("torch.compile: not chosen") for note in refused)
        assert any(note.startswith("bf16") for note in refused) != emulated

    def test_gradients_may_be_no_worse_than_rounding_makes_them(self) -> None:
        right = {"a": torch.tensor([1.0, 0.0]), "unused": torch.zeros(2)}

        def gradients(cosine: float, norm: float = 1.0) -> dict[str, Tensor]:
            vector = torch.tensor([cosine, (1 - cosine**2) ** 0.5])
            return {"a": norm * vector, "unused": torch.zeros(2)}

        assert wrong_gradient(gradients(0.91), right) is None
        assert wrong_gradient(gradients(0.89), right)
        assert wrong_gradient(gradients(0.95, 1.24), right) is None
        for norm in (1.26, 0.79, 0.0, float("nan")):
            assert wrong_gradient(gradients(0.95, norm), right)
        assert wrong_gradient(gradients(0.7), right, gradients(0.72)) is None
        assert wrong_gradient(gradients(0.6), right, gradients(0.72))
        assert wrong_gradient(gradients(0.7), right, gradients(0.95))
        assert wrong_gradient(gradients(0.7, 0.0), right, gradients(0.7, 0.0))

    def test_a_failing_compiler_is_survived(self, monkeypatch) -> None:
        def broken(network: nn.Module) -> nn.Module:
            raise RuntimeError("Python.h not found\nand much more")

        monkeypatch.setattr(shutil, "which", lambda name: name)
        monkeypatch.setattr("alphabar.training.trial.compiled", broken)
        runtime = probe(recipe())
        assert not runtime.compile
        assert "torch.compile: not chosen, it fails: RuntimeError: Python.h not found." in runtime.notes

    def test_leaves_the_random_state_alone(self) -> None:
        state = torch.get_rng_state()
        probe(recipe(), try_compile=False)
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_resumed_training_keeps_its_runtime(self, clocked) -> None:
        clocked(lambda runtime: 0.01)
        odd = replace(Runtime(), dtype=BF16, machine=describe_machine("cpu"), notes=("as it was",))
        assert probe(recipe(), recorded=odd.to_dict()) == odd
        assert probe(recipe(), recorded=Runtime().to_dict()) == Runtime()
        for device in ("cuda", "mps"):
            runtime = probe(recipe(), recorded=odd.to_dict() | {"device": device})
            assert choice(runtime) == (None, False, False)
            assert any(f"needs the device {device}" in note for note in runtime.notes)

    def test_on_another_machine_it_is_kept_where_that_can_do_it(self, clocked, monkeypatch) -> None:
        clocked(lambda runtime: 0.01)
        recorded = Runtime(dtype=BF16, machine="a laptop", notes=("as it was",)).to_dict()
        runtime = probe(recipe(), recorded=recorded)
        assert (choice(runtime), runtime.machine) == ((BF16, False, False), describe_machine("cpu"))
        assert any("a laptop" in note and "not bit for bit" in note for note in runtime.notes)
        monkeypatch.setattr("alphabar.training.probe.bf16_refused", lambda device: "a convolution crawls")
        runtime = probe(recipe(), recorded=recorded)
        assert choice(runtime) == (None, False, False)
        assert any("a laptop" in note and "not bit for bit" in note for note in runtime.notes)
        assert any("a convolution crawls" in note for note in runtime.notes)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_busy_machine_chooses_what_an_idle_one_does(self, clocked, seed: int) -> None:
        """Most steps take up to five times as long, whatever the runtime, and each is up to 4 % off."""
        random = Random(seed)

        def clock(runtime: Runtime) -> float:
            speed = (3.0 if runtime.dtype else 1.0) * (1.02 if runtime.channels_last else 1.0)
            return 0.001 / speed * random.uniform(1, 1.04) * (random.choice([1, 1, 5]))

        clocked(clock)
        assert choice(probe(recipe(), try_compile=False)) == (BF16, False, False)

    def test_a_load_that_comes_and_goes_hits_all_alike(self, clocked) -> None:
        """Ten steps are fast, then ten are slow: timed one after the other, some would see only the slow."""
        count = itertools.count()
        clocked(lambda runtime: 0.01 * (10 if next(count) // 10 % 2 else 1))
        assert choice(probe(recipe(), try_compile=False)) == (None, False, False)

    def test_stopped_nothing_is_chosen(self) -> None:
        stop = threading.Event()
        stop.set()
        with pytest.raises(Stopped):
            probe(recipe(), stop=stop)

    @pytest.mark.slow
    def test_the_compiler_of_this_machine(self, monkeypatch) -> None:
        monkeypatch.setattr("alphabar.training.probe.simplest", last)
        assert probe(recipe()).compile


def step(runtime: Runtime, x: Tensor, target: Tensor, pieces: int) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The gradients of a step accumulated over pieces and its mean loss; one gradient after each piece."""
    network = tiny()
    nn.init.normal_(network.output.weight)
    network.double()
    stepped = runtime.parallel(network)
    total = torch.zeros((), dtype=x.dtype)
    grown = []
    parts = list(zip(x.chunk(pieces), target.chunk(pieces), strict=True))
    for i, (x_part, target_part) in enumerate(parts):
        with accumulating(stepped) if i < pieces - 1 else nullcontext():
            error = stepped(x_part, torch.ones(len(x_part), dtype=x.dtype)) - target_part
            loss = error.square().mean() / pieces
            loss.backward()
        total += loss.detach()
        grown.append(network.output.weight.grad.clone())
    grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return grads | {"loss": runtime.mean(total)}, grown


def work(rank: int, folder: Path, x: Tensor, target: Tensor) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": (folder / "port").read_text(),
        "CUDA_VISIBLE_DEVICES": "",
    }
    with processes():
        chosen = probe(recipe(), try_compile=False)
        runtime = Runtime()
        mine = slice(4 * rank, 4 * rank + 4)
        results = {
            "chosen": json.dumps(chosen.to_dict()),
            "rank": (runtime.rank, runtime.world_size, runtime.is_main),
            "told": broadcast({"from": rank}),
            "step": step(runtime, x[mine], target[mine], pieces=2),
        }
        runtime.barrier()
    torch.save(results, folder / f"{rank}.pt")


def test_two_processes_step_like_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    x, target = torch.randn(2, 8, 3, 8, 8, dtype=torch.float64)
    mp.spawn(work, (tmp_path, x, target), nprocs=2)
    a, b = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert a["chosen"] == b["chosen"]
    assert (a["rank"], b["rank"]) == ((0, 2, True), (1, 2, False))
    assert a["told"] == b["told"] == {"from": 0}
    expected, _ = step(Runtime(), x, target, pieces=1)
    (grads_a, grown_a), (grads_b, grown_b) = a["step"], b["step"]
    assert [torch.equal(*pair) for pair in zip(grown_a, grown_b)] == [
        False,
        True,
    ]  # averaged once, at the end
    for result in (grads_a, grads_b):
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, atol=1e-10, rtol=1e-8, msg=name)
