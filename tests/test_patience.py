"""Trainings that end early, where the held-out error rises."""

import pytest

from alphabar.errors import UsageError
from alphabar.recipes.overrides import with_settings
from alphabar.recipes.presets import named_recipe
from alphabar.runs.run import Run
from alphabar.runtime import Runtime
from alphabar.training.launch import launch
from alphabar.training.monitor import TrainingMonitor, held_out_rise
from test_launch import TINY, launched

WATCHED = [*TINY, "monitor.share=0.9", "monitor.levels=2", "data.held_out=0.3"]


def curve(*points):
    """Records of (held-out error, training error), at 10, 20, … images."""
    records = [
        {"kind": "held_out", "images": 10 * (i + 1), "error": [e, e], "train_error": [t, t]}
        for i, (e, t) in enumerate(points)
    ]
    return [{"kind": "train", "images": 1}, *records]


def test_a_rise_is_counted_from_the_lowest_held_out_error():
    assert held_out_rise([]) is None and held_out_rise(curve((1.0, 1.0), (0.8, 0.8))) is None
    risen = curve((1.0, 1.0), (0.8, 0.8), (0.85, 0.7), (0.88, 0.6))
    once, twice = held_out_rise(risen[:-1]), held_out_rise(risen)
    assert (once.lowest, once.times, twice.lowest, twice.times) == (20, 1, 20, 2)
    assert twice.share == pytest.approx(0.1)
    # Less than 5 %, a training error that has risen as well, and a new lowest one: no rise.
    assert held_out_rise(curve((0.8, 0.8), (0.839, 0.7))) is None
    assert held_out_rise(curve((0.8, 0.8), (0.9, 0.81))) is None
    assert held_out_rise([*risen, *curve((0.7, 0.5))[1:]]) is None
    # Geometric means: a level with small errors counts as much as others.
    two = [{"kind": "held_out", "images": i, "error": [1.0, e], "train_error": [t] * 2} for i, e, t in
           ((1, 0.001, 1.0), (2, 0.0012, 0.5))]  # fmt: skip
    assert held_out_rise(two).share == pytest.approx(1.2**0.5 - 1)
    assert held_out_rise([{"kind": "held_out", "images": 1, "error": None, "train_error": [1.0]}]) is None


def test_patience_ends_a_training_and_the_same_command_keeps_to_it(picture_folder, tmp_path, monkeypatch):
    calls = []

    def rising(self, denoiser):
        calls.append(1)
        return {"levels": [0.0], "error": [1.0 + 0.1 * len(calls)], "train_error": [1.0 / len(calls)]}

    monkeypatch.setattr(TrainingMonitor, "error_by_level", rising)
    run = tmp_path / "run"
    options = {"run": run, "recipe": "lean", "images": 4000, "settings": [*WATCHED, "monitor.patience=2"]}
    result = launched(picture_folder, **options)
    assert result.reason.identifier == "training.ended_early" and 0 < result.images < 4000
    assert len(calls) == 3  # the lowest, and two above it
    assert Run(run).checkpoints.newest()[0].images == result.images and Run(run).model_folder.exists()
    again = launched(picture_folder, **options)
    assert (again.reason.identifier, again.images) == ("training.ended_early", result.images)
    on = result.images + 16
    options |= {"settings": [*WATCHED, "monitor.patience=0"], "images": on}
    assert launched(picture_folder, **options).images == on


def test_a_rise_is_said_while_training(picture_folder, tmp_path, monkeypatch):
    calls = []

    def rising(self, denoiser):
        calls.append(1)
        return {"levels": [0.0], "error": [1.0 + 0.1 * len(calls)], "train_error": [1.0 / len(calls)]}

    monkeypatch.setattr(TrainingMonitor, "error_by_level", rising)
    options = {"run": tmp_path / "run", "recipe": "lean", "images": 4000, "runtime": Runtime()}
    records = launch(str(picture_folder), settings=WATCHED, **options)
    text = _first(records, "training.held_out_risen")
    assert text.values["rise"] == pytest.approx(0.2 / 1.1) and len(calls) == 3
    assert "--patience 2" in text and "imágenes" in text.in_language("es")


def _first(records, identifier):
    for record in records:
        if record.message and record.message.identifier == identifier:
            records.close()
            return record.message
    return None


def test_patience_without_a_held_out_error_is_refused():
    for recipe, setting in (("lean", "data.held_out=0"), ("lean", "monitor.levels=0"), ("gan", "seed=1")):
        with pytest.raises(UsageError, match="--patience needs"):
            with_settings(named_recipe(recipe), [setting, "monitor.patience=2"])
