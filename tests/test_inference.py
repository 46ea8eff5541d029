"""The inference runtime: what is chosen agrees with float32, is remembered, and is repeated to the bit."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from alphabar.data.dataset import cache_root
from alphabar.diffusion.denoiser import NetworkDenoiser
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import DamagedFile, write_document
from alphabar.inference import agreement, choice, openvino
from alphabar.inference.agreement import disagreement, reference, relative_error
from alphabar.inference.choice import choose_runtime
from alphabar.inference.engines import runtime_of, with_runtime
from alphabar.inference.openvino import compile_openvino, installed, stored_openvino
from alphabar.inference.recorded import as_described, batch_of, choose_or_repeat, describe_runtime
from alphabar.inference.runtime import PLAIN, InferenceRuntime, check_precision, read_runtime
from alphabar.inference.timings import Timing, read_timings, write_timings
from alphabar.progress import last
from alphabar.reporting import report_figures
from alphabar.runs.model import load_model
from alphabar.runtime import compiled
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings

BF16 = InferenceRuntime("torch", "bf16", True)
OTHER = InferenceRuntime("torch", "fp32", True)  # than the plain one, and on every machine
WAYS = [OTHER, BF16]
OPENVINO = pytest.param(  # converting a network of this size takes 8 s
    InferenceRuntime("openvino"),
    marks=[pytest.mark.slow, pytest.mark.skipif(not installed(), reason="OpenVINO is not installed")],
)


@pytest.fixture(scope="module")
def model():
    return load_model("cars64", "cpu")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHABAR_CACHE", str(tmp_path / "cache"))


def coarse(model, k):
    """The model as if its network predicted means over squares of k×k pixels, and the rest itself."""
    own = model.denoiser
    return replace(model, denoiser=NetworkDenoiser(own.network, own.parameterization, own.schedule, k))


def evaluated(model, identity=None):
    """D at three noise levels, with the middle attention perturbed in the last row."""
    x = torch.randn(3, *model.shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    cond = torch.stack([model.vocabulary.row(dict(labels)) for labels in model.label_frequencies[:3]])
    cond[1] = torch.nan
    with torch.no_grad(), model.attention.identity_attention(torch.tensor([False, False, True])):
        return model.denoiser(x, t, cond)


@pytest.mark.parametrize("runtime", [*WAYS, OPENVINO], ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("k", [1, 4])
def test_engines_agree_with_float32_guidance_included(model, runtime, k):
    model = coarse(model, k)
    apart = relative_error(evaluated(with_runtime(model, runtime)), evaluated(model))
    assert apart < (0.02 if runtime.precision == "bf16" else 1e-5)


def test_the_plain_way_is_the_network_to_the_bit_and_engines_leave_it_so(model):
    before = evaluated(model)
    for runtime in WAYS:
        evaluated(with_runtime(model, runtime))
    assert torch.equal(evaluated(with_runtime(model, PLAIN)), before)
    assert torch.equal(evaluated(model), before)


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="OpenVINO is not installed")
def test_what_openvino_cannot_do_the_network_does(model):
    fast = with_runtime(model, InferenceRuntime("openvino"))
    x, t = torch.randn(1, *model.shape), torch.full((1,), 0.5, dtype=torch.float64)
    gradients = []
    for each in (model, fast):
        at = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(each.denoiser(at, t).square().sum(), at)[0])
    assert torch.equal(*gradients)
    with torch.no_grad(), fast.attention.record_attention() as maps:
        fast.denoiser(x, t)
    assert len(maps) == 1


@pytest.mark.slow
def test_the_gate_accepts_bf16_and_refuses_a_wrong_network(model, monkeypatch):
    monkeypatch.setattr(agreement, "PICTURES", 1)
    right = reference(model)
    assert disagreement(with_runtime(model, BF16), model, right, BF16, gradients=True) is None
    wrong = with_runtime(model, BF16)
    engine = wrong.denoiser._engine
    wrong.denoiser._engine = lambda *inputs: 1.05 * engine(*inputs)
    refused = disagreement(wrong, model, right, BF16, gradients=False)
    assert refused and "2 %" in refused


def test_the_gate_compares_with_pictures_of_the_model_itself(model, monkeypatch):
    monkeypatch.setattr(agreement, "PICTURES", 1)
    own = coarse(model, 4)
    assert disagreement(own, own, reference(own), PLAIN, gradients=False) is None


def test_the_gate_looks_at_the_output_where_the_denoised_signal_hides_its_error(model, monkeypatch):
    monkeypatch.setattr(agreement, "PICTURES", 1)
    right = reference(model)
    least = min(right.evaluations, key=lambda seen: seen.coeffs.c_out.abs().max())
    wrong = with_runtime(model, BF16)
    wrong.denoiser._engine = lambda *inputs: 1.03 * least.F
    D, D_right = (
        least.coeffs.c_skip.item() * least.x + least.coeffs.c_out.item() * F
        for F in (1.03 * least.F, least.F)
    )
    assert relative_error(D, D_right) < agreement.MOST_APART  # which would be accepted
    alone = right._replace(evaluations=[least])
    refused = disagreement(wrong, model, alone, BF16, gradients=False)
    assert refused and "3.0%" in refused
    wrong.denoiser._engine = lambda *inputs: torch.inf * least.F
    refused = disagreement(wrong, model, alone, BF16, gradients=False)
    assert refused and "not finite" in refused


class Wave(torch.nn.Module):
    """A network that is converted in a moment."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, c_noise, cond):
        return self.layer(x) * c_noise.reshape(-1, 1, 1, 1)


@pytest.mark.skipif(not installed(), reason="OpenVINO is not installed")
def test_a_converted_network_is_stored_and_a_damaged_one_converted_again(empty_cache, monkeypatch):
    network, conversions = Wave(), []
    convert = openvino.to_openvino
    monkeypatch.setattr(openvino, "to_openvino", lambda *given: conversions.append(1) or convert(*given))
    inputs = torch.randn(2, 3, 8, 8), torch.rand(2)

    def found():
        return compile_openvino(stored_openvino(network, (3, 8, 8), 0), "fp32")(*inputs)

    first = found()
    assert torch.allclose(first, network(*inputs, None), atol=1e-5)
    assert torch.equal(found(), first) and len(conversions) == 1
    (folder,) = (cache_root() / "openvino").iterdir()
    for name in ("network.xml", "network.bin"):
        file = folder / name
        file.write_bytes(file.read_bytes()[:-9] + b"something")
        assert torch.equal(found(), first)
    assert len(conversions) == 3
    with torch.no_grad():
        network.layer.weight.mul_(2)
    assert not torch.equal(found(), first) and len(conversions) == 4  # other weights are another network
    monkeypatch.setenv("ALPHABAR_CACHE", "/dev/null/cache")
    network.layer.reset_parameters()
    assert len(found()) == 2  # a cache that cannot be written only costs time


@pytest.mark.skipif(not installed(), reason="OpenVINO is not installed")
def test_the_cache_keeps_the_newest_converted_networks(empty_cache, monkeypatch):
    monkeypatch.setattr(openvino, "KEPT", 2)
    for _ in range(3):
        stored_openvino(network := Wave(), (3, 8, 8), 0)
    folders = [folder.name for folder in (cache_root() / "openvino").iterdir()]
    assert len(folders) == 2 and openvino._key(network, (3, 8, 8), 0) in folders


def test_a_short_job_measures_nothing_and_a_long_one_once(model, empty_cache, monkeypatch):
    measured = []

    seconds = {PLAIN: 1.0, BF16: 0.1}

    def measured_ones(job, tried):
        measured.append(tried)
        return [Timing(runtime, seconds.get(runtime, 2.0), 0.0, checked=True) for runtime in tried]
        yield

    monkeypatch.setattr(choice._Job, "_measured", measured_ones)
    monkeypatch.setattr(choice._Job, "_plain_seconds", lambda job: 1.0)
    monkeypatch.setattr(choice, "_EVALUATIONS", {})
    monkeypatch.setattr(choice, "has_compiler", lambda device: False)
    monkeypatch.setattr("alphabar.inference.runtime.precisions", lambda device: ["fp32", "bf16"])

    def chosen(evaluations, batch=4, **more):
        return runtime_of(last(choose_runtime(model, evaluations=evaluations, batch=batch, **more)))

    assert chosen(7) == PLAIN and not measured
    assert chosen(100_000) == BF16 and len(measured) == 1
    assert chosen(100_000) == BF16 and len(measured) == 1  # remembered
    assert chosen(100_000, precision="fp32") == PLAIN
    assert chosen(100_000, precision="bf16") == BF16
    (file,) = (cache_root() / "inference").iterdir()
    file.write_bytes(file.read_bytes().replace(b"0.1", b"0.2"))
    with pytest.warns(DamagedFile, match="made again"):
        assert chosen(100_000) == BF16
    assert len(measured) == 2  # damaged: measured again

    # Many short jobs are a long one, but a few samples after many, which may have been cancelled, are not.
    measured.clear()
    monkeypatch.setattr(choice, "_EVALUATIONS", {})
    shutil.rmtree(cache_root() / "inference")
    for _ in range(100):
        chosen(199, batch=64)
    assert len(measured) == 1
    assert chosen(7, batch=2) == PLAIN and len(measured) == 1


def test_compiling_is_measured_once_where_it_can_save_its_time(model, empty_cache, monkeypatch):
    measured, slower = [], 1.0
    fast = replace(BF16, compile=True)
    seconds = {PLAIN: 1.0, BF16: 0.1, fast: 0.05}

    def measured_ones(job, tried):
        measured.append(tried)
        return [
            Timing(runtime, slower * seconds.get(runtime, 2.0), 40.0 * runtime.compile, checked=True)
            for runtime in tried
        ]
        yield

    monkeypatch.setattr(choice._Job, "_measured", measured_ones)
    monkeypatch.setattr(choice._Job, "_plain_seconds", lambda job: 1.0)
    monkeypatch.setattr(choice, "has_compiler", lambda device: True)
    monkeypatch.setattr(choice, "built_runtimes", lambda model: {PLAIN})
    monkeypatch.setattr("alphabar.inference.runtime.precisions", lambda device: ["fp32", "bf16"])

    def chosen(evaluations, **more):
        monkeypatch.setattr(choice, "_EVALUATIONS", {})
        return runtime_of(last(choose_runtime(model, evaluations=evaluations, batch=4, **more)))

    assert chosen(800) == BF16 and len(measured) == 1  # 80 seconds in bf16, of which a third could be saved
    slower = 3.0  # as if something else ran now: what counts is how the two compare
    assert chosen(1_000) == fast and measured[1:] == [[BF16, fast]]
    assert chosen(1_000) == fast and len(measured) == 2  # remembered
    # Another process finds the code in the compiler's cache, in a quarter of the 40 seconds.
    assert chosen(250) == fast and chosen(205) == BF16
    assert chosen(1_000, precision="fp32") == PLAIN
    assert chosen(100_000, gradients=True) == BF16  # compiled code goes backward once through an evaluation


def test_a_short_job_in_a_precision_times_nothing_and_a_longer_one_that_precision_alone(
    model, empty_cache, monkeypatch
):
    measured, checked = [], []

    def measured_ones(job, tried):
        measured.append(tried)
        return [Timing(runtime, 1.0 + (runtime == BF16), 0.0) for runtime in tried]
        yield

    simple = InferenceRuntime("torch", "bf16")
    monkeypatch.setattr(choice._Job, "_measured", measured_ones)
    monkeypatch.setattr(choice._Job, "_plain_seconds", lambda job: 1.0)
    monkeypatch.setattr(choice, "reference", lambda model: None)
    monkeypatch.setattr(choice, "disagreement", lambda model, *rest: checked.append(runtime_of(model)))
    monkeypatch.setattr(choice, "has_compiler", lambda device: False)
    monkeypatch.setattr("alphabar.inference.openvino.installed", lambda: False)
    monkeypatch.setattr("alphabar.inference.runtime.precisions", lambda device: ["fp32", "bf16"])

    def chosen(evaluations, precision):
        monkeypatch.setattr(choice, "_EVALUATIONS", {})
        return runtime_of(last(choose_runtime(model, evaluations=evaluations, batch=4, precision=precision)))

    assert chosen(40, "bf16") == simple and checked == [simple] and not measured
    assert chosen(40, "bf16") == simple and len(checked) == 1  # remembered
    assert chosen(220, "bf16") == simple and not measured  # it would take longer than it can save
    assert chosen(100_000, "bf16") == simple and measured == [[PLAIN, simple, BF16]]
    assert chosen(100_000, "auto") == PLAIN and measured[1:] == [[PLAIN, OTHER, simple, BF16]]
    assert chosen(40, "bf16") == simple and len(measured) == 2


def test_what_measuring_has_built_does_not_make_its_own_choice_another(model, empty_cache, monkeypatch):
    def measured_ones(job, tried):
        for runtime in tried:
            evaluated(with_runtime(job.model, runtime))  # builds it
        # A way that is faster for a long job, and slower for this one where it must be built first.
        times = {PLAIN: (1.0, 0.0), BF16: (0.5, 1e4)}
        return [Timing(runtime, *times.get(runtime, (2.0, 0.0)), checked=True) for runtime in tried]
        yield

    monkeypatch.setattr(choice._Job, "_measured", measured_ones)
    monkeypatch.setattr(choice._Job, "_plain_seconds", lambda job: 1.0)
    monkeypatch.setattr(choice, "has_compiler", lambda device: False)
    monkeypatch.setattr("alphabar.inference.openvino.installed", lambda: False)
    monkeypatch.setattr("alphabar.inference.runtime.precisions", lambda device: ["fp32", "bf16"])
    network = deepcopy(model.denoiser)  # of which nothing is built yet
    fresh = replace(model, denoiser=network)

    def chosen():
        monkeypatch.setattr(choice, "_EVALUATIONS", {})
        return runtime_of(last(choose_runtime(fresh, evaluations=2_000, batch=4)))

    assert chosen() == PLAIN  # as in every process that finds the times
    assert chosen() == BF16  # this process has it ready


def test_an_early_snapshot_is_checked_for_jobs_that_evaluate_it_alone(model, empty_cache, monkeypatch):
    own, seen = replace(model, early=deepcopy(model.denoiser)), []
    monkeypatch.setattr(choice, "_EVALUATIONS", {})
    monkeypatch.setattr(choice, "reference", lambda model: seen.append(model.early))
    monkeypatch.setattr(choice, "disagreement", lambda *given: None)
    monkeypatch.setattr("alphabar.inference.runtime.precisions", lambda device: ["fp32", "bf16"])
    for guidance in ({"pag": 2.0}, {"autoguidance": 2.0}):
        settings = replace(sampling_settings(own, guidance=guidance, conditions=()), steps=1)
        last(sample(own, 1, settings, precision="bf16"))
    assert seen == [None, own.early]


@pytest.mark.slow
def test_code_is_compiled_for_many_batch_sizes(monkeypatch):
    network = compiled(torch.nn.Linear(3, 3))
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    for n in range(1, 12):
        assert network(torch.ones(n, 3)).shape == (n, 3)


def test_timings_are_read_back_or_not_at_all(tmp_path):
    timings = [Timing(PLAIN, 1.0, 0.5), Timing(BF16, 0.1, 0.0, checked=True)]
    write_timings(tmp_path / "a" / "t.json", timings)
    assert read_timings(tmp_path / "a" / "t.json") == timings
    for content in ("", "[]", "{}", '{"sha256": 1, "timings": 2}', '{"timings": [null]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.warns(DamagedFile):
            assert read_timings(tmp_path / "bad.json") == []
    assert read_timings(tmp_path / "none.json") == []


def test_precisions_that_are_not_there_are_refused(model):
    with pytest.raises(UsageError, match="precision"):
        check_precision("fp8", torch.device("cpu"))
    with pytest.raises(UsageError, match="mps"):
        check_precision("bf16", torch.device("mps"))
    with pytest.raises(UsageError):
        sample(model, 1, precision="fp8")
    for values in ({}, [], {**PLAIN.to_dict(), "engine": "x"}, {**PLAIN.to_dict(), "compile": 1}):
        with pytest.raises(UsageError):
            read_runtime(values)


def test_samples_are_repeated_to_the_bit_with_their_runtime_and_batch(model):
    settings = replace(sampling_settings(model, conditions=()), steps=3)
    fast = with_runtime(model, OTHER)
    four = last(sample(fast, 4, settings, batch=4))
    about = json.loads(json.dumps(describe_runtime(fast, 4)))
    batch = batch_of(about, 2, 4)
    again, _ = last(as_described(model, about))
    assert torch.equal(last(sample(again, len(batch), settings, first=batch.start))[2], four[2])
    assert runtime_of(again) == OTHER
    elsewhere = list(as_described(model, {**about, "machine": "another"}))
    assert "another" in elsewhere[0].message and elsewhere[-1].result
    assert batch_of({"batch": "x"}, 2, 4) == range(2, 3)
    assert batch_of({"batch": 10**9}, 2, 4) == range(2, 3)


def test_work_that_goes_on_computes_as_it_was_begun(model, tmp_path, monkeypatch):
    monkeypatch.setattr("alphabar.inference.runtime.precisions", lambda device: ["fp32", "bf16"])
    begun = tmp_path / "samples.json"
    about = {**describe_runtime(with_runtime(model, BF16), 16)}
    write_document(begun, {"runtime": about})
    resumed, same = last(choose_or_repeat(model, begun, evaluations=1, batch=16))
    assert runtime_of(resumed) == BF16 and same == about
    other, _ = last(choose_or_repeat(model, begun, evaluations=1, batch=16, precision="fp32"))
    assert runtime_of(other) == PLAIN


def test_reports_compute_in_float32_whatever_is_fastest(model, tmp_path, monkeypatch):
    monkeypatch.setattr(choice._Job, "choose", lambda job: pytest.fail("a report measures"))
    monkeypatch.setattr(report_figures, "SAMPLES", 1)
    *_, _ = report_figures._samples(model, tmp_path, {})
    assert (tmp_path / "samples.png").exists()


def test_a_missing_engine_is_one_sentence(model, monkeypatch):
    monkeypatch.setattr("alphabar.inference.openvino.installed", lambda: False)
    about = {**describe_runtime(model, 1), "engine": "openvino"}
    with pytest.raises(AlphabarError, match=r"alphabar\[fast\]"):
        last(as_described(model, about))


def test_the_command_says_what_was_used(call, tmp_path):
    code, _, err = call(
        "sample", "cars64", "-n", 1, "--steps", 2, "--precision", "fp32", "--out", tmp_path / "a"
    )
    assert code == 0, err
    about = json.loads((tmp_path / "a" / "samples.json").read_text())["runtime"]
    assert about["precision"] == "fp32" and about["engine"] == "torch" and about["batch"] == 16
    code, _, err = call("sample", "cars64", "-n", 1, "--precision", "fp8", "--out", tmp_path / "b")
    assert code == 2 and "precision" in err and not (tmp_path / "b").exists()
