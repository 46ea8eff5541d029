"""Runs side by side: equal protocols only, rankings only where seeds bear them, pictures from the models."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from alphabar.codecs.image import ImageCodec
from alphabar.diffusion.initial_noise import fit_gaussian
from alphabar.errors import AlphabarError, UsageError
from alphabar.files import pack_json, write_document
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.reporting.comparison import PROTOCOL, Comparison, Cost, Entry, compare, comparison_tables
from alphabar.reporting.comparison_page import comparison_rows, write_comparison
from alphabar.runs.model import build_denoiser, load_model
from alphabar.runs.run import Run
from alphabar.tensor_files import pack_tensors

TINY = [
    "data.size=16", "network.widths=[16,32]", "network.attention=0",
    "sampling.steps=2",
]  # fmt: skip


def evaluation(frechet: float, **protocol: object) -> dict:
    """What `evaluate` stores, as far as a comparison reads it."""
    return {
        "sampler": {"name": "ddim", "eta": 0.0},
        "timesteps": {"name": "uniform"},
        "steps": 7,
        "seconds_per_sample": 0.25,
        "extractor": "lite0",
        "protocol": "224 px",
        "reference": "1000 pictures of toycars (12345678)",
        "n": 500,
        "reference_n": 1000,
        "metrics": [
            {"key": "frechet", "name": "Fréchet distance (lite0)", "value": frechet, "better": "lower",
             "error": None, "baseline": 8.0, "interval": None},
            {"key": "kid", "name": "kernel distance (lite0)", "value": frechet / 500, "better": "lower",
             "error": 0.01, "baseline": 0.0, "interval": [frechet / 500 - 0.02, frechet / 500 + 0.02]},
            {"key": "recall", "name": "recall (lite0)", "value": 0.4, "better": "higher", "error": None,
             "baseline": 0.8, "interval": None},
        ],
        "warnings": [],
        "memorization": {"copies": 3, "n": 500, "sentence": "3 of 500 samples are as near as a copy."},
    } | protocol  # fmt: skip


def make_run(path: Path, *settings: str, images: int = 96, evaluated: tuple[dict, ...] = ()) -> Path:
    recipe = with_settings(named_recipe("ddpm"), [*TINY, *settings])
    run = Run(path)
    run.create(recipe)
    network = build_denoiser(recipe).network
    statistics = fit_gaussian([torch.rand(20, 3, 16, 16)], ImageCodec(16))
    weights = pack_tensors(network.state_dict())
    files = {"model.safetensors": weights, "statistics.safetensors": pack_tensors(statistics._asdict())}
    run.checkpoints.save(images, {**files, "state.json": pack_json({})})
    for i in (1, 2, 3):
        run.log.append("train", images * i // 3, seconds=40.0 * i, loss=1.0)
        run.log.append("distance", images * i // 3, features="lite0_96", n=8, n_reference=90, kid=1.0 / i)
    run.log.append("train", 10 * images, seconds=9999.0, loss=0.1)  # after the checkpoint: not this model's
    write_document(path / "environment.json", {"data": {"fingerprint": "f"}})
    if evaluated:
        (path / "evaluation.json").write_bytes(pack_json(list(evaluated)))
    return path


def compared(*runs: Path) -> Comparison:
    *_, record = compare(runs)
    assert record.result is not None and record.done == record.total == len(runs)
    return record.result


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("compare")
    older = evaluation(999.0)
    other = evaluation(5.0, n=400)
    return (
        make_run(root / "plain", evaluated=(older, evaluation(200.0), other)),
        make_run(root / "wide", "network.widths=[32,64]", evaluated=(evaluation(150.0),)),
    )


@pytest.fixture(scope="module")
def comparison(two) -> Comparison:
    return compared(*two)


def test_costs_are_those_of_the_model(comparison, two):
    model = load_model(two[0])
    plain, wide = (e.cost for e in comparison.entries)
    assert plain.parameters == sum(p.numel() for p in model.denoiser.parameters()) < wide.parameters
    assert (plain.images, plain.train_seconds, plain.sample_seconds) == (96, 120.0, 0.25)
    assert plain.evaluations == 7  # of DDIM in 7 steps, as it was evaluated
    assert plain.train_flop / plain.sample_flop == pytest.approx(3 * 96 / 7)


def test_the_evaluations_of_guidance_count_and_conditions_do_not_matter(tmp_path):
    guidance = [{"name": "classifier_free", "scale": 2.0}]
    guided = evaluation(90.0, conditions="as the data", guidance=guidance, guidance_interval=None)
    runs = [make_run(tmp_path / name, evaluated=(guided,)) for name in ("a", "b")]
    assert [entry.cost.evaluations for entry in compared(*runs).entries] == [14, 14]


def test_each_protocol_has_a_table_of_its_own(comparison):
    first, second = comparison.tables
    assert [t.protocol["n"] for t in (first, second)] == [500, 400]
    name, row = first.metrics["frechet"]
    assert name == "Fréchet distance (lite0)" and [m["value"] for m in row] == [200.0, 150.0]
    assert [m and m["value"] for m in second.metrics["frechet"][1]] == [5.0, None]
    assert any("evaluated by 2 protocols" in note for note in comparison.notes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("extractor", "lite0_96"),
        ("protocol", "96 px"),
        ("reference", "others"),
        ("n", 501),
        ("reference_n", 999),
    ],
)
def test_whatever_differs_in_the_protocol_keeps_numbers_apart(key, value):
    entries = [entry("a", evaluation(1.0)), entry("b", evaluation(2.0, **{key: value}))]
    assert [sum(m is not None for m in t.metrics["frechet"][1]) for t in comparison_tables(entries)] == [1, 1]


def entry(name: str, evaluated: dict, settings: str = "s", images: int = 100) -> Entry:
    from PIL import Image

    cost = Cost(images, 1.0, None, 10, 5, 1.0, None)
    picture = Image.new("RGBA", (8, 8))
    key = tuple(evaluated[k] for k in PROTOCOL)
    return Entry(name, Path(name), settings, settings, cost, {key: evaluated}, {}, picture, picture)


def ranking(*values: tuple[str, float], images: tuple[int, ...] = ()) -> str:
    entries = [
        entry(f"{i}", evaluation(value), settings, images[i] if images else 100)
        for i, (settings, value) in enumerate(values)
    ]
    (table,) = comparison_tables(entries)
    return table.ranking[0]


def test_one_run_of_each_is_never_ranked():
    told = ranking(("a", 1.0), ("b", 100.0))
    assert "it takes 3 seeds of each recipe, and these have fewer: a (1), b (1)" in told


def test_three_seeds_of_each_are_ranked_where_they_differ():
    a, b = [("a", v) for v in (10.0, 11.0, 12.0)], [("b", v) for v in (20.0, 21.0, 22.0)]
    assert "a is better than b" in ranking(*a, *b)
    close = [("b", v) for v in (9.0, 12.0, 14.0)]
    assert ranking(*a, *close).endswith("a and b are not distinguishable")
    assert "not distinguishable: it takes 3 seeds" in ranking(*a, *b[:2])
    assert ranking(*a).endswith("all evaluated runs are repeats of one recipe")


def test_seeds_that_do_not_differ_tell_no_spread():
    a, b = [("a", 0.0)] * 3, [("b", 1 / 6409)] * 3
    assert ranking(*a, *b).endswith("a and b are not distinguishable")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "a is better than b" in ranking(*a, *[("b", v) for v in (0.9, 1.0, 1.1)])


def test_runs_at_other_moments_are_no_repeats():
    values = [("a", v) for v in (10.0, 11.0, 12.0, 1.0, 2.0, 3.0)]
    told = ranking(*values, images=(100, 101, 99, 1000, 990, 1000))
    assert "3 is better than 0" in told  # named by the first of each, since both have one recipe


def test_the_training_monitor_makes_no_other_recipe(tmp_path):
    a = make_run(tmp_path / "a", evaluated=(evaluation(1.0),))
    b = make_run(
        tmp_path / "b", "seed=1", "monitor.share=0", "monitor.levels=0", evaluated=(evaluation(2.0),)
    )
    assert "all evaluated runs are repeats of one recipe" in compared(a, b).tables[0].ranking[0]


def test_more_pairs_make_a_ranking_harder():
    """p of one pair is 0.03: enough alone, not among three."""
    a, b = [("a", v) for v in (10.0, 11.0, 12.0)], [("b", v) for v in (12.6, 13.6, 14.6)]
    assert "a is better than b" in ranking(*a, *b)
    assert "a is better than b" not in ranking(*a, *b, *[("c", v) for v in (11.0, 12.0, 13.5)])


def test_the_page_is_whole_and_shows_every_run(comparison, tmp_path):
    from test_reporting import Page

    html = write_comparison(comparison, tmp_path / "c.html").read_text(encoding="utf-8")
    page = Page(html)
    assert html.count("data:image/png;base64,") == 4 and sum(tag == "svg" for tag, _ in page.tags) == 1
    assert "plain and wide" in page.text and "not distinguishable" in page.text
    assert "200 (real 8)" in page.text and "0.4 [0.38, 0.42]" in page.text
    assert "The kernel distance (lite0_96) along the training" in page.text
    assert "8 samples against 90 training images" in page.text and "on another scale than the" in page.text
    assert "{{" not in html and "//" not in html.replace("data:image", "").split("base64,")[0]


def test_the_page_speaks_spanish_and_has_its_files_beside_it(comparison, tmp_path):
    html = write_comparison(comparison, tmp_path / "c.html", "es").read_text(encoding="utf-8")
    assert '<html lang="es">' in html and "plain y wide" in html and "(reales 8)" in html
    assert "segundos por muestra" in html and "se comparan solo entre entrenamientos de una misma" in html
    files = {path.name for path in (tmp_path / "c_files").iterdir()}
    assert {
        "runs.csv",
        "metrics.csv",
        "learning.csv",
        "learning.svg",
        "table-1.tex",
        "samples-2.png",
    } <= files
    lines = (tmp_path / "c_files" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("run,key,name,value") and len(lines) == 10
    with pytest.raises(UsageError, match=r"must end in \.html"):
        write_comparison(comparison, tmp_path / "c")


def test_even_one_curve_is_labelled(two, tmp_path):
    other = make_run(tmp_path / "other")
    (other / "log.jsonl").write_text("")
    html = write_comparison(compared(two[0], other), tmp_path / "c.html").read_text(encoding="utf-8")
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert ">plain</text>" in svg and "real images (baseline)" in svg
    assert "Not measured in this way: other." in html


def test_the_printed_tables_have_a_column_for_each_run(comparison):
    (title, (head, *costs)), (_, (_, *metrics)), _ = comparison_rows(comparison)
    assert title == "Cost" and head == ("", "plain", "wide") and all(len(row) == 3 for row in costs + metrics)
    assert ("recall (lite0), higher is better", "0.4 (real 0.8)", "0.4 (real 0.8)") in metrics
    assert ("copies of training images", "3 of 500", "3 of 500") in metrics


def test_json_holds_everything_but_pictures(comparison):
    told = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [run["name"] for run in told["runs"]] == ["plain", "wide"]
    assert told["tables"][0]["metrics"]["recall"][0]["value"] == 0.4
    assert np.isfinite(told["runs"][0]["train_flop"])


def test_learning_curves_run_over_wall_clock(comparison):
    (curve,) = comparison.entries[0].distances.values()
    assert curve == [(40.0, 1.0), (80.0, 0.5), (120.0, 1 / 3)]


def test_mistakes_are_told(two, tmp_path):
    with pytest.raises(UsageError, match="two or more different runs"):
        compare([two[0]])
    with pytest.raises(UsageError, match="two or more different runs"):
        compare([two[0], two[0] / "."])
    with pytest.raises(AlphabarError, match="is not a run folder"):
        compare([two[0], tmp_path])


def test_a_run_that_is_not_evaluated_says_what_to_run_and_names_stay_apart(two, tmp_path):
    other = make_run(tmp_path / "plain")
    result = compared(two[0], other)
    assert any(f"alphabar evaluate {other} --against DATA" in note for note in result.notes)
    names = [e.name for e in result.entries]
    assert len(set(names)) == 2 and all(name.endswith("/plain") for name in names)
    assert result.tables[0].metrics["frechet"][1][1] is None


@pytest.mark.parametrize("damage", ["[{", "null", "[" * 99_999, '[{"metrics": 3}]', "\udcff", "[3]"])
def test_damaged_evaluations_and_logs_are_said_and_the_rest_is_compared(two, tmp_path, damage):
    other = make_run(tmp_path / "other", evaluated=(evaluation(5.0),))
    whole = json.loads((other / "evaluation.json").read_bytes())
    text = damage if damage != "[3]" else json.dumps([3, *whole])
    (other / "evaluation.json").write_bytes(text.encode(errors="surrogateescape"))
    with open(other / "log.jsonl", "a") as file:
        file.write('{"kind": "train"\n')
    result = compared(two[0], other)
    said = [note.identifier for note in result.notes]
    assert "evaluation.damaged_record" in said or "evaluation.damaged_entries" in said
    assert "runs.log_damaged" in said
    assert len(result.entries[1].evaluations) == (damage == "[3]")
    comparison_rows(result)
