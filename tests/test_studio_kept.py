"""What a session of the studio holds: its history as files, and pages left for the other language."""

import itertools
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from alphabar.errors import AlphabarError
from alphabar.messages import message
from alphabar.progress import Progress

pytest.importorskip("gradio", reason="the studio needs Gradio, the extra [studio]")


def test_a_generation_takes_no_memory_and_says_when_its_files_are_gone(tmp_path):
    from alphabar.studio.generated import Generated

    said = message("studio.generated", n=64, seconds="1.0", seed=7)
    names = tuple(f"m-7-{i:03d}.png" for i in range(64))
    done = Generated("m", (64, 7), names, tmp_path / "folder" / "m-7.zip", said)
    done.archive.parent.mkdir()
    done.write({name: name.encode() * 1000 for name in names}, torch.zeros((64, 8, 8, 3), dtype=torch.uint8))
    assert done.thumbnail.is_file()
    assert done.file(3) == names[3].encode() * 1000
    assert done.grid().count("<a ") == 64 and f'download="{names[63]}"' in done.grid()
    assert len(pickle.dumps(tuple(done))) < 4000  # a state of the session, of which there are many
    whole = {file: file.read_bytes() for file in (done.previews, done.archive)}
    for file, damaged in itertools.product(whole, (b"", b"x", whole[done.archive][:-30])):
        file.write_bytes(damaged)
        assert_removed(done.grid)
        file.write_bytes(whole[file])
    done.archive.write_bytes(whole[done.archive].replace(b"m-7-000.pngm", b"m-7-000.pngn", 1))
    assert_removed(lambda: done.file(0))
    shutil.rmtree(done.archive.parent)
    for read in (done.grid, lambda: done.file(0)):
        assert_removed(read)


def assert_removed(read):
    with pytest.raises(AlphabarError) as failed:
        read()
    assert failed.value.message.identifier == "studio.samples_removed"


def test_pages_that_were_left_are_bounded_and_known_by_their_ticket_alone():
    from alphabar.studio.languages import MOST_KEPT, Left, LeftPages

    left = LeftPages()
    tickets = [left.put(Left("m", (i,))) for i in range(MOST_KEPT + 1)]
    assert len(set(tickets)) == len(tickets)
    assert left.take(tickets[0]) is None and left.take("") is None and left.take("guess") is None
    assert left.take(tickets[-1]).values == (MOST_KEPT,)
    assert left.take(tickets[-1]) is None


def test_both_languages_have_the_same_controls(tmp_path):
    """Values are handed over by their places."""
    from alphabar.studio.app import build_page
    from alphabar.studio.jobs import TrainingJobs
    from alphabar.studio.models import ModelStore

    models = ModelStore(tmp_path)
    blocks = build_page(models, TrainingJobs(models), Path(tmp_path))
    arrivals = [fn for fn in blocks.fns.values() if fn.name == "appear"]
    leaving = [fn for fn in blocks.fns.values() if fn.name == "leave"]
    assert len(arrivals) == len(leaving) == 2
    for pair in (arrivals, leaving):
        kinds = [[type(part) for part in (*fn.inputs, *fn.outputs)] for fn in pair]
        assert kinds[0] == kinds[1] and len(kinds[0]) > 40


def test_a_page_is_shown_no_more_than_it_can_draw_and_always_the_end(monkeypatch):
    from alphabar.studio import page

    clock = itertools.count(100.0, 0.01)
    monkeypatch.setattr(page.time, "monotonic", lambda: next(clock))
    shown = list(page.paced(Progress("", i, 300, result="done" if i == 300 else None) for i in range(1, 301)))
    assert shown[0].done == 1 and shown[-1].result == "done"
    assert 3 < len(shown) < 30
    few = [Progress("", 1, 2), Progress("", 2, 2, result=[])]
    assert list(page.paced(few)) == few
