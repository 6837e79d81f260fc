"""A run that is killed again and again ends with the bits of a run never stopped, and leaves nothing behind."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.processes import start_python
from tests.support.resuming import assert_same_bits, rows

TRAINING = """
import os, signal, sys
import torch; torch.set_num_threads(1)
from pathlib import Path
from boxwright.config.recipe import CheckpointConfig, ValidationConfig
from boxwright.io import files
from boxwright.training.loop import train
from tests.support.tiny_detector import tiny_recipe
from tests.support.toys import toy_index

here, folder, write = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
put_in_place, count = files.put_in_place, 0

def kill_in_write(temporary, path, **options):
    global count
    count += 1
    if count == write:  # the temporary file is written, and not yet in its place
        os.kill(os.getpid(), signal.SIGKILL)
    put_in_place(temporary, path, **options)

files.put_in_place = kill_in_write
recipe = tiny_recipe(40, log_every=5, checkpoint=CheckpointConfig(every=4, unit="steps", keep=2),
                     validation=ValidationConfig(every=20, unit="steps"))
train_index, val_index = toy_index(here / "a", 11), toy_index(here / "b", 4, seed=1)
print("ready", flush=True)
train(recipe, train_index, val_index, folder, device="cpu", log="quiet", resume=(folder / "last.train").exists())
"""
KILLS = 10


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_ten_kills_change_no_bit_and_leave_no_file(tmp_path: Path) -> None:
    """Half of the kills come at random times, half within a write, in an order from a seed."""
    rng = random.Random(0)
    straight, broken = tmp_path / "straight", tmp_path / "broken"

    def run(folder: Path, write: int = -1, seconds: float | None = None) -> int:
        with start_python("-c", TRAINING, str(tmp_path), str(folder), str(write), stdout=-1) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            started = time.monotonic()
            if seconds is not None:
                time.sleep(seconds)
                child.kill()
            code = child.wait()
            lasted.append(time.monotonic() - started)
            return code

    lasted: list[float] = []
    assert run(straight) == 0
    whole = lasted[0]
    kills: list[tuple[int, float | None]] = [(rng.randrange(2, 14), None) for _ in range(KILLS // 2)]
    kills += [(-1, rng.uniform(0.05, 0.3) * whole) for _ in range(KILLS - len(kills))]
    rng.shuffle(kills)
    killed = 0
    for write, seconds in kills:
        killed += run(broken, write, seconds) == -signal.SIGKILL
        if broken.exists() and not (broken / "last.train").exists():  # killed before its first checkpoint: begin again
            for path in broken.iterdir():
                path.unlink()
    assert killed >= KILLS // 2
    assert run(broken) == 0
    assert_same_bits(straight, broken)
    assert rows(straight) == rows(broken)
    assert (straight / "best.safetensors").read_bytes() == (broken / "best.safetensors").read_bytes()
    assert sorted(path.name for path in broken.iterdir()) == sorted(path.name for path in straight.iterdir())
    assert not list(tmp_path.rglob(".*")), "no temporary file and no lock is left"
