import errno
import os

import pytest
import torch

from alphabar import files as checkpoint
from alphabar.errors import AlphabarError
from alphabar.files import Damaged, read_folder, write_folder
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

    def full(path, data):
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "_write_flushed", full)
    with pytest.raises(AlphabarError, match=r"No space left.*intact"):
        write_folder(tmp_path / "x", {"a.bin": b"new"})
    assert read_folder(tmp_path / "x") == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_a_kill_are_cleared(tmp_path):
    (tmp_path / ".writing-x").mkdir()
    (tmp_path / ".writing-x" / "half").write_bytes(b"")
    write_folder(tmp_path / "x", FILES)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


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
