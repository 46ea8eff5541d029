import errno
import os
import time
from contextlib import nullcontext

import pytest
import torch

from alphabar.errors import AlphabarError
from alphabar.files import Damaged, is_locked, locked, read_folder, write_file, write_folder, writing_folder
from alphabar.tensor_files import pack_optimizer, pack_tensors, unpack_optimizer, unpack_tensors

FILES = {"a.bin": b"first" * 100, "b.json": b"{}"}


def test_round_trip(tmp_path):
    write_folder(tmp_path / "x", FILES)
    assert read_folder(tmp_path / "x") == FILES
    write_folder(tmp_path / "x", {"a.bin": b"second"})
    assert read_folder(tmp_path / "x") == {"a.bin": b"second"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("place", [0, 250, 499])
def test_one_flipped_bit_is_found(tmp_path, place):
    write_folder(tmp_path / "x", FILES)
    data = bytearray((tmp_path / "x" / "a.bin").read_bytes())
    data[place] ^= 1
    (tmp_path / "x" / "a.bin").write_bytes(data)
    with pytest.raises(Damaged, match=r"a\.bin is damaged"):
        read_folder(tmp_path / "x")


@pytest.mark.parametrize("name", ["a.bin", "MANIFEST.json"])
def test_a_missing_or_short_file_is_found(tmp_path, name):
    write_folder(tmp_path / "x", FILES)
    (tmp_path / "x" / name).write_bytes((tmp_path / "x" / name).read_bytes()[:-3])
    with pytest.raises(Damaged):
        read_folder(tmp_path / "x")
    (tmp_path / "x" / name).unlink()
    with pytest.raises(Damaged, match="missing"):
        read_folder(tmp_path / "x")


def test_a_full_disk_leaves_the_old_folder(tmp_path, monkeypatch):
    write_folder(tmp_path / "x", FILES)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AlphabarError, match=r"No space left.*intact"):
        write_folder(tmp_path / "x", {"a.bin": b"new"})
    assert read_folder(tmp_path / "x") == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_a_kill_are_cleared_after_a_day(tmp_path):
    for name, age in (("old", 2 * 86_400), ("young", 60)):
        folder = tmp_path / f".writing-{name}"
        folder.mkdir()
        (folder / "half").write_bytes(b"")
        os.utime(folder, (time.time() - age,) * 2)
    write_folder(tmp_path / "x", FILES)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".writing-young", "x"]


class TestWritingFolder:
    def test_the_name_is_given_at_the_end(self, tmp_path):
        with writing_folder(tmp_path / "x") as folder:
            (folder / "a").write_text("whole")
            assert not (tmp_path / "x").exists()
        assert (tmp_path / "x" / "a").read_text() == "whole"
        assert [p.name for p in tmp_path.iterdir()] == ["x"]

    def test_an_error_leaves_nothing(self, tmp_path):
        with pytest.raises(ValueError), writing_folder(tmp_path / "x") as folder:
            (folder / "a").write_text("half")
            raise ValueError
        with pytest.raises(AlphabarError, match=r"write .*x: No space"), writing_folder(tmp_path / "x"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert not list(tmp_path.iterdir())

    def test_a_file_inside_is_named_where_it_was_to_be(self, tmp_path, monkeypatch):
        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(AlphabarError) as caught, writing_folder(tmp_path / "x") as folder:
            write_file(folder / "a", b"half")
        assert str(caught.value) == f"Cannot write {tmp_path}/x/a: No space left on device."
        assert caught.value.in_language("es").startswith(f"No se puede escribir {tmp_path}/x/a: ")

    @pytest.mark.parametrize(("existing", "kept"), [("refuse", "old"), ("keep", "old"), ("replace", "new")])
    def test_what_is_there_already(self, tmp_path, existing, kept):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "a").write_text("old")
        refused = pytest.raises(AlphabarError, match="not empty") if existing == "refuse" else nullcontext()
        with refused, writing_folder(tmp_path / "x", existing=existing) as folder:
            (folder / "a").write_text("new")
        assert (tmp_path / "x" / "a").read_text() == kept
        assert [p.name for p in tmp_path.iterdir()] == ["x"]

    def test_an_empty_folder_is_taken(self, tmp_path):
        (tmp_path / "x").mkdir()
        with writing_folder(tmp_path / "x") as folder:
            (folder / "a").write_text("new")
        assert (tmp_path / "x" / "a").read_text() == "new"


def test_a_lock_is_held_by_one_and_asking_for_it_changes_nothing(tmp_path):
    path = tmp_path / ".lock"
    assert not is_locked(path) and not path.exists()
    with locked(path, AlphabarError("refused")):
        assert is_locked(path)
        with pytest.raises(AlphabarError, match="refused"), locked(path, AlphabarError("refused")):
            pass
        assert is_locked(path)
    assert not is_locked(path)


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(AlphabarError) as refusal,
        locked(tmp_path / "file" / ".lock", AlphabarError("refused")),
    ):
        pass
    assert refusal.value.message.identifier == "files.cannot_write"


def test_optimizer_state_goes_on_bit_for_bit():
    def steps(net, optimizer, n):
        for i in range(n):
            loss = net(torch.full((2, 3), float(i + 1))).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    torch.manual_seed(0)
    a = torch.nn.Linear(3, 2)
    b = torch.nn.Linear(3, 2)
    adam_a, adam_b = (torch.optim.Adam(n.parameters(), lr=0.1) for n in (a, b))
    steps(a, adam_a, 3)
    b.load_state_dict(unpack_tensors(pack_tensors(a.state_dict())))
    unpack_optimizer(pack_optimizer(adam_a), adam_b)
    steps(a, adam_a, 2)
    steps(b, adam_b, 2)
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)
