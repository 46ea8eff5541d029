"""The ladder of docs/results/ladder.md: a rung can be trained and judged as the library stands."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import alphabar
from alphabar.codecs.image import ImageCodec

FILE = Path(__file__).parents[1] / "benchmarks" / "ladder.py"


def test_a_rung_is_trained_judged_and_kept(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("ladder", FILE)
    ladder = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ladder", ladder)
    spec.loader.exec_module(ladder)
    metrics = [SimpleNamespace(key=key, value=0.5, error=0.1) for key in ("frechet", "kid")]
    judged = SimpleNamespace(result=SimpleNamespace(report=SimpleNamespace(metrics=metrics)))
    monkeypatch.setattr(alphabar, "evaluate", lambda *args, **kwargs: [judged])
    *_, prepared = alphabar.prepare(alphabar.open_source("toycars:100"), ImageCodec(16))
    rung = ladder.rungs(16, 1)[8]
    found = ladder.climb(prepared.result, rung, 32, 8, "toycars:100", tmp_path)
    assert found["images"] == 32 and found["kid"] == 0.5
    assert len(found["error"]) == len(found["sigma"]) and all(0 < e < 2 for e in found["error"])
    assert ladder.climb(prepared.result, rung, 64, 8, "toycars:100", tmp_path) == found
