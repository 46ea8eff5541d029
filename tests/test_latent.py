"""Latent diffusion: an autoencoder of one's own, its codec, and trainings of two stages."""

import json
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from alphabar.codecs.image import ImageCodec
from alphabar.codecs.latent import LatentCodec, measured_codec
from alphabar.data.dataset import cache_root, prepare
from alphabar.data.sources import open_source
from alphabar.errors import AlphabarError, UsageError
from alphabar.export.export import export_to
from alphabar.export.hub import model_files
from alphabar.files import DamagedFile, pack_json, read_folder, write_folder
from alphabar.messages import Message
from alphabar.methods.registry import METHODS
from alphabar.metrics.reconstruction import psnr, ssim
from alphabar.networks.autoencoder import Autoencoder
from alphabar.progress import last
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.reporting.comparison import compare
from alphabar.reporting.report import write_report
from alphabar.reporting.report_figures import make_report_figures
from alphabar.restoration.degradation import parse_degradation
from alphabar.restoration.operators.base import ROUNDING_STD
from alphabar.restoration.operators.registry import OPERATORS, build_operator
from alphabar.restoration.restore import restore
from alphabar.restoration.settings import restoration_settings
from alphabar.runs.model import CODEC, codec_of, load_model
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.sampling.sample import sample
from alphabar.sampling.settings import sampling_settings
from alphabar.training.launch import launch
from alphabar.training.signals import signals_of
from refusals import refused

SETTINGS = ["data.size=16", "data.codec.widths=[8,8]", "network.widths=[8,16]", "network.head_dim=16"]
SETTINGS += ["batch=8", "monitor.samples=2", "monitor.steps=2", "monitor.levels=2", "monitor.distance=0"]
AUTOENCODER = ["data.size=16", "network.widths=[8,8]", "monitor.samples=2", "monitor.distance=0"]


def launched(data, **options):
    chosen = {"recipe": "latent", "images": 32, "settings": SETTINGS, "runtime": Runtime()}
    return last(launch(str(data), **chosen | options))


def weights_of(path):
    return load_model(path, "cpu").fingerprint


@pytest.fixture(scope="module")
def trained(picture_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "trained"
    launched(picture_folder, run=path)
    return path


@pytest.fixture(scope="module")
def dataset(picture_folder):
    return last(prepare(open_source(str(picture_folder)), ImageCodec(16)))


def test_the_autoencoder_counts_in_the_cost_of_a_run(trained, tmp_path):
    """Against the same run without the folder of its first stage, as with an autoencoder that was given."""
    whole, alone = (shutil.copytree(trained, tmp_path / name) for name in ("whole", "alone"))
    shutil.rmtree(Run(alone).first_stage)
    for run, seconds in ((Run(whole), 40.0), (Run(Run(whole).first_stage), 20.0), (Run(alone), 40.0)):
        run.log.append("train", 32, seconds=seconds)
    Run(whole).log.append("distance", 32, kid=0.1)
    entries = last(compare([whole, alone])).entries
    costs = [entry.cost for entry in entries]
    assert (costs[0].train_seconds, costs[1].train_seconds) == (60.0, 40.0)
    assert [point for curve in entries[0].distances.values() for point in curve] == [(60.0, 0.1)]
    inner = Run(Run(whole).first_stage).recipe
    autoencoder = METHODS[inner.method["name"]].training_flops(inner)
    assert costs[0].train_flop - costs[1].train_flop == pytest.approx(32 * autoencoder)
    model = load_model(whole, "cpu")
    parts = (model.denoiser.network, model.codec.network())
    assert costs[0].parameters == sum(p.numel() for part in parts for p in part.parameters())


def test_reports_name_the_autoencoder_and_its_decoder(trained, tmp_path):
    run = Run(shutil.copytree(trained, tmp_path / "run"))
    run.log.append("train", 32, seconds=40.0)
    inner = Run(run.first_stage)
    inner.log.append("train", 32, seconds=20.0)
    measured = {
        "frechet": 400.0,
        "kid": 0.2,
        "kid_error": 0.03,
        "kid_baseline": 0.01,
        "frechet_baseline": 390.0,
    }
    about = {"features": "lite0_96", "n": 32, "n_reference": 43, "reference": "pictures"}
    inner.log.append("distance", 32, **about, **measured)
    last(make_report_figures(run))
    html = write_report(run.path, language="en").read_text(encoding="utf-8")
    assert "1m00s" in html and "of which 20s for the autoencoder" in html
    assert "GFLOP to decode a sample" in html
    about = "The distance above is that of reconstructed pictures"
    assert about in write_report(inner.path, language="en").read_text(encoding="utf-8")
    inner.log.rewind(0)  # without any distance
    assert about not in write_report(inner.path, language="en").read_text(encoding="utf-8")


def test_shapes_need_no_weights_and_encoding_does():
    codec = LatentCodec((16, 24), 3, latent=5, widths=(8, 8, 8))
    assert codec.shape == (5, 2, 3) and codec.item_shape == (16, 24, 3) and codec.bounds is None
    for call in (lambda: codec.encode(torch.zeros(1, 16, 24, 3, dtype=torch.uint8)), codec.weights):
        with pytest.raises(UsageError, match="needs a trained autoencoder"):
            call()
    with pytest.raises(UsageError, match="multiples of 8"):
        LatentCodec(20, 3, widths=(8, 8, 8))


def test_latents_are_standardised_whatever_the_encoder_makes():
    torch.manual_seed(0)
    network = Autoencoder(channels=3, widths=(8, 8)).eval()
    network.standardise.running_mean.fill_(3.0)
    network.standardise.running_var.fill_(0.01)
    pictures = torch.randint(0, 256, (40, 16, 16, 3), dtype=torch.uint8)
    codec = LatentCodec(16, 3, widths=(8, 8))
    measured_codec(codec, network, ImageCodec(16).encode(pictures).split(7))
    z = codec.encode(pictures)
    assert z.shape == (40, 4, 4, 4) and z.dtype is torch.float32
    assert z.mean((0, 2, 3)).abs().max() < 1e-4 and (z.std((0, 2, 3)) - 1).abs().max() < 1e-3
    # The scale is undone by decoding: latents come back to what the network itself reconstructs.
    direct = network(ImageCodec(16).encode(pictures), torch.zeros(40))
    assert torch.allclose(codec.picture_signals(z), direct, atol=1e-4)
    other = LatentCodec(16, 3, widths=(8, 8))
    other.load(codec.weights())
    assert torch.equal(other.encode(pictures), z)
    with pytest.raises(UsageError, match="another autoencoder"):
        LatentCodec(16, 3, latent=8, widths=(8, 8)).load(codec.weights())


def test_a_channel_that_does_not_vary_is_refused():
    network = Autoencoder(channels=3, widths=(8, 8)).eval()
    network.encoder[-1].weight.data[2] = 0
    with pytest.raises(UsageError, match="Channel 2"):
        measured_codec(LatentCodec(16, 3, widths=(8, 8)), network, [torch.rand(4, 3, 16, 16)])


def test_both_stages_are_in_one_run_and_one_model(trained):
    run = Run(trained)
    assert run.recipe.name == "latent" and Run(run.first_stage).recipe.method["name"] == "autoencoder"
    kinds = {record["kind"] for record in Run(run.first_stage).log.records()}
    assert "reconstruction" in kinds
    model, folder = load_model(trained, "cpu"), load_model(run.model_folder, "cpu")
    assert model.shape == (4, 4, 4) and model.codec.item_shape == (16, 16, 3)
    made = [last(sample(m, 3, sampling_settings(m, steps=2), precision="fp32")) for m in (model, folder)]
    assert made[0].shape == (3, 16, 16, 3) and torch.equal(*made)
    assert CODEC in model_files(model)


def test_a_model_without_its_autoencoder_is_refused(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/codec")
    with pytest.raises(AlphabarError, match="without its autoencoder"):
        load_model(tmp_path / "run", "cpu")


MOMENTS = {"the first stage": (False, 16), "between them": (True, 0), "the second stage": (True, 16)}
"""Where a training is stopped: whether encoding has begun, and at how many images."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_that_is_stopped_in_either_stage_goes_on_to_the_same_bits(
    trained, picture_folder, tmp_path, moment
):
    stop = threading.Event()
    chosen = {"recipe": "latent", "images": 32, "settings": SETTINGS, "runtime": Runtime()}
    encoding = False
    for record in launch(str(picture_folder), run=tmp_path / "run", stop=stop, **chosen):
        encoding = encoding or record.stage == "encoding"
        if (encoding, getattr(record, "images", 0)) == MOMENTS[moment]:
            stop.set()
        if getattr(record, "loss", None):  # each stage has a name of its own, and so a time that is left
            assert ("autoencoder" in record.stage) != encoding
    assert stop.is_set() and record.result.stopped
    assert ("its autoencoder is kept" in record.result.reason) == (moment != "the second stage")
    assert ("autoencoder" in record.stage) == (moment == "the first stage")
    launched(picture_folder, run=tmp_path / "run")
    assert weights_of(tmp_path / "run") == weights_of(trained)


def test_the_bar_of_a_training_of_pictures_begins_at_its_beginning(picture_folder, tmp_path):
    records = launch(str(picture_folder), run=tmp_path / "run", recipe="autoencoder", images=8,
                     settings=AUTOENCODER, runtime=Runtime())  # fmt: skip
    shares = [record.done / record.total for record in records if record.stage == "training"]
    assert shares[0] == 0 and shares == sorted(shares)


def test_measuring_the_latents_is_stopped_too(trained, picture_folder, tmp_path, monkeypatch):
    stop, run = threading.Event(), Run(tmp_path / "run")

    def measured(*arguments):
        stop.set()
        return measured_codec(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("alphabar.training.first_stage.measured_codec", measured)
        chosen = {"recipe": "latent", "images": 32, "settings": SETTINGS, "runtime": Runtime()}
        *_, record = launch(str(picture_folder), run=run.path, stop=stop, **chosen)
    assert record.result.stopped and not run.codec.exists() and not run.checkpoints.folders()
    launched(picture_folder, run=run.path)
    assert weights_of(run.path) == weights_of(trained)


def test_what_is_advised_for_few_pictures_can_be_followed(picture_folder, tmp_path):
    """Augmentation is of the diffusion model, and no advice for an autoencoder."""
    advised, alone = [], []
    options = {"recipe": "latent", "images": 8, "runtime": Runtime()}
    for record in launch(
        str(picture_folder), run=tmp_path / "a", settings=[*SETTINGS, "data.augment=0.15"], **options
    ):
        advised.append(record.message)
    assert any("data.augment=0.15" in (told or "") for told in advised)
    assert Run(tmp_path / "a").recipe.data.augment == 0.15
    options |= {"recipe": "autoencoder", "settings": AUTOENCODER, "run": tmp_path / "b"}
    alone = [record.message for record in launch(str(picture_folder), **options)]
    assert not any("data.augment" in (told or "") for told in alone)


@pytest.mark.parametrize("setting", ["latent=1000", "blocks=-1", "widths=[0]"])
def test_settings_of_the_autoencoder_are_not_told_as_those_of_the_other_network(setting):
    with pytest.raises(UsageError) as told:
        with_settings(named_recipe("latent"), [f"data.codec.{setting}"])
    assert "network." not in str(told.value) and f"{setting.partition('=')[0]} = " in str(told.value)


def test_finetuning_and_distilling_keep_the_autoencoder(trained, picture_folder, tmp_path):
    for name, origin in (("finetuned", {"finetune": trained}), ("distilled", {"distill": trained})):
        path = tmp_path / name
        launched(picture_folder, run=path, recipe=None, settings=[], **origin)
        assert not Run(path).first_stage.exists()
        own, theirs = (codec_of(Run(p)).weights() for p in (path, trained))
        assert own.keys() == theirs.keys() and all(torch.equal(own[k], theirs[k]) for k in own)


def test_where_the_autoencoder_is_lost_the_diffusion_model_does_not_go_on(trained, picture_folder, tmp_path):
    """Neither one that has been trained nor one that begins with weights for the latents of another."""
    runs = {"trained": trained, "finetuned": tmp_path / "finetuned"}
    launched(picture_folder, run=runs["finetuned"], recipe=None, settings=[], finetune=trained, images=8)
    shutil.rmtree(runs["finetuned"] / "checkpoints")
    for name, path in runs.items():
        copy = tmp_path / f"{name} copy"
        shutil.copytree(path, copy, ignore=shutil.ignore_patterns("codec", "autoencoder"))
        with pytest.raises(AlphabarError, match="without its autoencoder"):
            launched(picture_folder, run=copy, recipe=None, settings=[], images=48)
        assert not (copy / "autoencoder").exists() and not (copy / "codec").exists()


def test_the_autoencoder_is_part_of_the_time_once(trained, picture_folder, tmp_path):
    """Also where a kill came after it and before the first checkpoint of the diffusion model."""
    run = Run(tmp_path / "run")
    shutil.copytree(trained, run.path, ignore=shutil.ignore_patterns("checkpoints", "preparation.json"))
    inner = Run(trained).first_stage
    shutil.copytree(inner / "checkpoints", run.first_stage / "checkpoints")
    newest, _ = Run(run.first_stage).checkpoints.newest()
    long = {**newest.files, "state.json": pack_json({**newest.state, "seconds": 1000.0})}
    Run(run.first_stage).checkpoints.save(newest.images + 4, long)
    told = [
        record.message.identifier
        for record in launch(str(picture_folder), run=run.path, images=32, budget=10_000.0, runtime=Runtime())
        if isinstance(record.message, Message)
    ]
    assert 1000 < run.preparation < 1100
    assert "training.preparation_of_latents" in told and "training.preparation" not in told
    before = run.preparation
    launched(picture_folder, run=run.path, recipe=None, settings=[], images=48)
    assert run.preparation == before


@pytest.fixture(scope="module")
def autoencoder(picture_folder, tmp_path_factory):
    """One of six latents."""
    path = tmp_path_factory.mktemp("runs") / "autoencoder"
    launched(picture_folder, run=path, recipe="autoencoder", settings=[*AUTOENCODER, "network.latent=6"])
    return path


def test_a_given_autoencoder_decides_the_latents(trained, autoencoder, picture_folder, tmp_path):
    own = [s for s in SETTINGS if not s.startswith("data.codec")]
    launched(picture_folder, run=tmp_path / "run", autoencoder=autoencoder, settings=own)
    assert load_model(tmp_path / "run", "cpu").shape == (6, 4, 4)
    shutil.copytree(trained, tmp_path / "alone", ignore=shutil.ignore_patterns("autoencoder"))
    for wrong, options, said in (
        (tmp_path / "alone", {}, "no autoencoder"),
        (trained, {}, f"--autoencoder {trained / 'autoencoder'}"),
        (autoencoder, {"settings": [*SETTINGS, "data.size=32"]}, r"16×16×3.*32×32×3"),
        (autoencoder, {"recipe": "lean", "settings": ["data.size=16"]}, "add --recipe latent"),
        (autoencoder, {"settings": [*SETTINGS, "data.codec.latent=8"]}, r"data\.codec\.latent = 6, not 8"),
        (
            autoencoder,
            {"settings": [*SETTINGS, "data.codec.widths=[8,16]"], "budget": 1.0},
            r"widths = \[8, 8\]",
        ),
        (autoencoder, {"recipe": None, "finetune": trained, "settings": []}, "its own autoencoder"),
        (autoencoder, {"recipe": None, "distill": trained, "settings": []}, "its own autoencoder"),
    ):
        with pytest.raises(UsageError, match=said):
            launched(picture_folder, run=tmp_path / "other", autoencoder=wrong, **options)
    assert not (tmp_path / "other").exists()


def test_a_given_autoencoder_decides_the_size_where_none_is_named(autoencoder, picture_folder, tmp_path):
    own = [s for s in SETTINGS if not s.startswith("data")]
    launched(picture_folder, run=tmp_path / "run", autoencoder=autoencoder, settings=own, images=8)
    assert Run(tmp_path / "run").recipe.data.size == 16
    recipe = with_settings(named_recipe("latent"), [*SETTINGS, "data.size=32"])
    with pytest.raises(UsageError, match="32×32×3"):  # a whole recipe names its size
        launched(picture_folder, run=tmp_path / "no", recipe=recipe, settings=[], autoencoder=autoencoder)


def test_after_planning_the_latents_are_still_those_of_the_autoencoder(autoencoder, picture_folder, tmp_path):
    """``data.codec=latent`` alone names a codec, not its settings."""
    own = [s for s in SETTINGS if not s.startswith("data.codec")]
    options = {"recipe": None, "settings": [*own, "data.codec=latent"], "budget": 1.0, "images": 8}
    launched(picture_folder, run=tmp_path / "run", autoencoder=autoencoder, **options)
    assert Run(tmp_path / "run").recipe.data.codec["latent"] == 6


def test_a_run_continues_with_its_own_autoencoder_only(trained, picture_folder, tmp_path):
    other, run, inner = tmp_path / "other", tmp_path / "run", Run(trained).first_stage
    launched(picture_folder, run=other, recipe="autoencoder", settings=AUTOENCODER, images=8)
    shutil.copytree(trained, run)
    written = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    with pytest.raises(UsageError, match="another autoencoder"):
        launched(picture_folder, run=run, autoencoder=other, images=48)
    assert written == {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert launched(picture_folder, run=run, autoencoder=inner, images=40).images == 40


def test_all_seeds_have_the_given_autoencoder(call, autoencoder, picture_folder, tmp_path):
    settings = [part for s in SETTINGS if not s.startswith("data") for part in ("--set", s)]
    options = ("--recipe", "latent", "--autoencoder", autoencoder, "--images", 8, "--runtime", "plain")
    code, _, err = call("train", picture_folder, "--run", tmp_path / "run", "--seeds", 2, *options, *settings)
    assert code == 0, err
    first, second = (codec_of(Run(tmp_path / f"run-seed{seed}")).weights() for seed in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("setting", ["data.channels=1", "data.codec.widths=[8,16]", "data.codec.latent=8"])
@pytest.mark.parametrize("origin", ["finetune", "distill"])
def test_what_the_autoencoder_of_a_model_does_not_have_is_refused(
    trained, picture_folder, tmp_path, setting, origin
):
    key = setting.partition("=")[0]
    with pytest.raises(UsageError, match=rf"keeps its autoencoder.*{key} = "):
        launched(picture_folder, run=tmp_path / "run", recipe=None, settings=[setting], **{origin: trained})
    assert not (tmp_path / "run").exists()


def test_an_autoencoder_generates_nothing_and_says_what_it_is_for(trained):
    with pytest.raises(UsageError, match="--recipe latent --autoencoder"):
        sampling_settings(load_model(Run(trained).first_stage, "cpu"))


def test_stored_latents_are_those_of_the_codec_and_damage_is_made_good(trained, dataset):
    codec = codec_of(Run(trained))
    rows = np.array([4, 0, 7])
    encoded = codec.encode(torch.from_numpy(dataset.items[rows]))
    stored = last(signals_of(dataset, codec))
    assert torch.allclose(stored(rows), encoded, atol=4e-3)
    mirrored = torch.tensor([True, False, True])
    assert torch.equal(stored(rows, mirrored)[0], stored(rows)[0].flip(2))
    assert torch.equal(stored(rows, mirrored)[1], stored(rows)[1])
    for file in (cache_root() / "latents").glob("*/latents.npy"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    with pytest.warns(DamagedFile):
        again = last(signals_of(dataset, codec))
    assert torch.equal(again(rows), stored(rows))


def test_known_pixels_come_back_untouched(trained, tmp_path):
    """What a mask keeps, to the last digit; and what a mean of pixels says, without noise."""
    model = load_model(trained, "cpu")
    torch.manual_seed(0)
    x0 = torch.rand(2, 3, 16, 16) * 1.6 - 0.8
    for spec in ("box:4,4,12,12", "area_downsample:4"):
        operator = parse_degradation(spec).operator((3, 16, 16))
        y = operator.A(x0)
        x = last(restore(model, y, operator, precision="fp32"))
        assert x.shape == (1, 2, 3, 16, 16)
        assert torch.allclose(operator.A(x[0]), y, atol=1e-5)


def test_noise_is_no_part_of_the_answer(trained):
    """DDNM would copy it into the picture and refuses; the default solver weighs it."""
    model = load_model(trained, "cpu")
    degradation = parse_degradation("blur:1.5+noise:0.1")
    operator = degradation.operator((3, 16, 16))
    y = operator.A(torch.zeros(1, 3, 16, 16)) + 0.1 * torch.randn(1, 3, 16, 16)
    assert restoration_settings(model, operator, 0.1).solver["name"] == "diffpir"
    with pytest.raises(UsageError, match="noise"):
        last(restore(model, y, operator, 0.1, settings=restoration_settings(
            model, operator, 0.1, solver="ddnm"), precision="fp32"))  # fmt: skip
    assert (
        restoration_settings(model, parse_degradation("jpeg:10").operator((3, 16, 16)), 0.0).solver["name"]
        == "ddnm"
    )


LINEAR = [name for name in OPERATORS if build_operator(name, (3, 16, 16)).linear]


@pytest.mark.parametrize("name", LINEAR)
def test_a_restored_picture_agrees_with_what_is_known_of_it(trained, name):
    """Within the noise, with the noise that rounding makes too: what the decoder cannot say, y says."""
    model, operator = load_model(trained, "cpu"), build_operator(name, (3, 16, 16))
    torch.manual_seed(0)
    measured = operator.A(torch.rand(2, 3, 16, 16) * 1.6 - 0.8)
    for sigma_y, bound in ((0.0, 1e-4), (ROUNDING_STD, 3 * ROUNDING_STD), (0.05, 3 * 0.05)):
        y = measured + sigma_y * torch.randn_like(measured)
        settings = restoration_settings(model, operator, sigma_y, steps=4)
        x = last(restore(model, y, operator, sigma_y, settings=settings, precision="fp32"))[0]
        # What a mask hides is no part of y.
        assert operator.A(operator.project(x, y) - x).square().mean().sqrt() < bound


def test_noise_is_weighed_against_the_error_of_the_decoder(trained):
    """With little noise y decides a picture, with much what is decoded: it stays further from y."""
    model, operator = load_model(trained, "cpu"), build_operator("denoise", (3, 16, 16))
    y = torch.full((1, 3, 16, 16), 0.5)

    def residual(sigma_y):
        settings = restoration_settings(model, operator, sigma_y, steps=2)
        x = last(restore(model, y, operator, sigma_y, settings=settings, precision="fp32"))[0]
        return (operator.A(x) - y).abs().mean()

    assert residual(1e-4) < 1e-3 < residual(0.1) < residual(1.0)


def test_solvers_that_a_decoder_rules_out_say_so(trained):
    model, operator = load_model(trained, "cpu"), build_operator("box", (3, 16, 16))
    y = torch.zeros(1, 3, 16, 16)
    for solver in ("mmps", "ddrm", "pigdm", "perturb_and_map", "direct"):
        settings = restoration_settings(model, operator, 0.1, solver=solver, steps=2)
        with pytest.raises(UsageError, match=r"decoder.*diffpir"):
            last(restore(model, y, operator, 0.1, settings=settings, precision="fp32"))


def test_restoring_says_that_models_of_pixels_are_more_exact(trained, tmp_path, call):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (16, 16), (90, 120, 200)).save(picture)
    command = ("restore", trained, picture, "--degradation", "blur:1", "--steps", "2", "--yes")
    for language, said in (("en", "lose none"), ("es", "no pierden ninguno")):
        code, out, err = call(*command, "--out", tmp_path / language, language=language)
        assert code == 0 and said in out + err


def test_other_sizes_are_refused(trained):
    operator = parse_degradation("box:4,4,12,12").operator((3, 32, 32))
    with pytest.raises(UsageError, match=r"latents.*16×16.*32×32.*resize.*cars64"):
        restore(load_model(trained, "cpu"), torch.zeros(1, 3, 32, 32), operator)


def test_sizes_to_choose_suit_autoencoder_and_network(picture_folder, tmp_path):
    """SETTINGS: latents of every 4 pixels, and a U-Net of two resolutions."""
    for size, said in (("18", "16 / 24"), ("20", "16 / 24"), ("[16,28]", "24 / 32")):
        with pytest.raises(UsageError, match=f"multiples of 8.*{said}"):
            launched(picture_folder, run=tmp_path / "run", settings=[*SETTINGS, f"data.size={size}"])


def test_psnr_and_ssim():
    torch.manual_seed(0)
    x0 = torch.rand(3, 3, 24, 24) * 1.8 - 0.9
    assert psnr(x0 + 0.2, x0) == pytest.approx([20.0] * 3, abs=1e-4)  # an error of a tenth of the range
    assert ssim(x0, x0) == pytest.approx([1.0] * 3)
    # Of two constant pictures only the first factor is left: (2ab + c) / (a² + b² + c), in [0, 1].
    a, b, c = 0.25, 0.75, 0.01**2
    flat = [torch.full((1, 1, 16, 16), 2 * level - 1) for level in (a, b)]
    assert ssim(*flat).item() == pytest.approx((2 * a * b + c) / (a**2 + b**2 + c), rel=1e-5)
    assert (ssim(x0 + 0.3 * torch.randn_like(x0), x0) < 0.9).all()


def test_grey_and_transparent_pictures(tmp_path):
    folder = tmp_path / "grey"
    folder.mkdir()
    for i in range(12):
        levels = np.random.Generator(np.random.PCG64(i)).integers(0, 256, (20, 20), np.uint8)
        Image.fromarray(levels).save(folder / f"{i}.png")
    launched(folder, run=tmp_path / "run", images=8)
    model = load_model(tmp_path / "run", "cpu")
    assert model.codec.item_shape == (16, 16, 1)
    made = last(sample(model, 2, sampling_settings(model, steps=2), precision="fp32"))
    assert made.shape == (2, 16, 16, 1)


def test_a_grey_autoencoder_takes_pictures_with_colour_on_request_only(picture_folder, tmp_path):
    grey = {"recipe": "autoencoder", "settings": [*AUTOENCODER, "data.channels=1"], "images": 8}
    launched(picture_folder, run=tmp_path / "grey", **grey)
    options = {"run": tmp_path / "run", "autoencoder": tmp_path / "grey", "images": 8}
    with pytest.raises(UsageError, match=r"grey pictures.*data\.channels=1"):
        launched(picture_folder, **options)
    assert not (tmp_path / "run").exists()
    launched(picture_folder, **options, settings=[*SETTINGS, "data.channels=1"])
    assert load_model(tmp_path / "run", "cpu").codec.item_shape == (16, 16, 1)


@pytest.mark.parametrize("target", ["onnx", "openvino", "hub"])
def test_an_export_holds_the_decoder(trained, tmp_path, target):
    for module in {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino",)}.get(target, ()):
        pytest.importorskip(module, reason="the extra [export]")
    report = last(export_to(load_model(trained, "cpu"), target, tmp_path / "out"))
    assert report.largest <= 1


def test_an_exported_decoder_computes_in_float32_in_every_precision(trained, tmp_path):
    pytest.importorskip("openvino", reason="the extra [export]")
    last(export_to(load_model(trained, "cpu"), "openvino", tmp_path / "out", precision="fp16"))
    engines = json.loads((tmp_path / "out" / "sampling.json").read_text())["engines"]
    assert engines["decoder"] == {"INFERENCE_PRECISION_HINT": "f32"} != engines["network"]


def test_pictures_that_are_not_held_out_are_not_called_so(picture_folder, tmp_path):
    options = {"recipe": "autoencoder", "images": 8, "run": tmp_path / "run", "runtime": Runtime()}
    records = launch(str(picture_folder), settings=[*AUTOENCODER, "data.held_out=0"], **options)
    (told,) = [str(r.message) for r in records if r.message and "PSNR" in r.message]
    assert "training pictures, since none are held out" in told
    write_report(tmp_path / "run")
    assert "training pictures, since none are held out" in (tmp_path / "run" / "report.html").read_text()


def test_diffusers_has_no_place_for_latents(trained, tmp_path):
    with pytest.raises(UsageError, match=r"model of latents .* choose --to onnx"):
        last(export_to(load_model(trained, "cpu"), "diffusers", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_latents_of_an_odd_number_of_positions(picture_folder, tmp_path):
    launched(picture_folder, run=tmp_path / "run", images=8, settings=[*SETTINGS, "data.size=[20,24]",
             "network.widths=[16]", "data.codec.latent=2"])  # fmt: skip
    assert load_model(tmp_path / "run", "cpu").shape == (2, 5, 6)


def test_the_error_of_an_autoencoder_is_that_of_what_it_decodes():
    """An autoencoder that gives every value back has none; one that mirrors the picture, a known one."""
    network = Autoencoder(channels=1, latent=4, widths=(4,), patch=2)
    network.encoder, network.decoder = torch.nn.PixelUnshuffle(2), torch.nn.PixelShuffle(2)
    network.standardise = torch.nn.Identity()
    recipe = named_recipe("autoencoder")
    exact = {"denoiser": SimpleNamespace(network=network), "recipe": recipe, "runtime": Runtime()}
    x0 = torch.linspace(-1, 1, 8).expand(2, 1, 8, 8).contiguous()
    method = METHODS.build({"name": "autoencoder", "noise": 0.0, "equivariance": 0.0}, **exact)
    assert torch.allclose(method.losses(x0, torch.zeros(2), torch.zeros_like(x0), None), torch.zeros(2))
    noisy = METHODS.build({"name": "autoencoder", "noise": 0.5, "equivariance": 0.0, "scales": 1}, **exact)
    losses = noisy.losses(x0, torch.zeros(2), torch.ones_like(x0), None)
    assert torch.allclose(losses, torch.full((2,), 0.5))
    # Latents of half the size here are means over pixels four apart, not the latents of the small picture.
    smaller = METHODS.build({"name": "autoencoder", "noise": 0.0, "equivariance": 1.0}, **exact)
    assert (smaller.losses(x0, torch.zeros(2), torch.zeros_like(x0), None) > 0.1).all()


def test_the_autoencoder_of_another_run_is_refused(trained, picture_folder, tmp_path):
    """One of the same shapes would decode to other pictures without a word."""
    other, run = tmp_path / "other", tmp_path / "run"
    launched(picture_folder, run=other, settings=[*SETTINGS, "seed=1"], images=8)
    shutil.copytree(trained, run)
    shutil.rmtree(run / "codec")
    shutil.copytree(other / "codec", run / "codec")
    with refused("runs.other_codec", AlphabarError, path=run, codec=run / "codec"):
        load_model(run, "cpu")
    with refused("runs.other_codec", AlphabarError, path=run):
        launched(picture_folder, run=run, recipe=None, settings=[], images=48)
    shutil.rmtree(run / "codec")
    shutil.copytree(trained / "codec", run / "codec")
    assert weights_of(run) == weights_of(trained)


def test_weights_of_another_autoencoder_name_their_model(trained, tmp_path):
    model = tmp_path / "model"
    files = read_folder(trained / "model")
    write_folder(model, {**files, CODEC: files["model.safetensors"]})
    with refused("recipes.in_file", path=model):
        load_model(model, "cpu")
