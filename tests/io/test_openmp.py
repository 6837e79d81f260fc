"""OpenMP threads wait without spinning in every process of Boxwright, unless the user has set how they wait.

Children tell it themselves: GCC's runtime prints its settings when it is loaded (``OMP_DISPLAY_ENV``), also how often a
waiting thread looks for work before it sleeps, which is 300,000 times by default and never when it does not spin.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import python_environment

BIN = Path(sys.executable).parent
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PYTHON = [sys.executable, "-c", "import boxwright, torch"]

WORKERS = """
import sys, time
import boxwright
import torch
from boxwright.data.loading.workers import Workers

class Waits(torch.utils.data.Dataset):
    def __getitem__(self, number):
        torch.set_num_threads(2)
        large = torch.ones(2_000_000)
        waited = 0.0
        for _ in range(5):
            large + large
            before = time.process_time()
            time.sleep(0.02)
            waited += time.process_time() - before
        return waited

if __name__ == "__main__":
    loader = Workers(Waits(), 1, False, 2, sys.argv[1])
    print(next(iter(loader.start([0]))))
    loader.stop()
"""


def start(words: list[str | Path], **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which the user has set nothing but ``changes``."""
    clean = {name: value for name, value in python_environment().items() if name not in SETTINGS}
    environment = clean | {"OMP_DISPLAY_ENV": "verbose"} | changes
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


def spins(done: subprocess.CompletedProcess[str]) -> list[int]:
    """Return the looks for work of a waiting thread, of each process that loaded GCC's runtime."""
    found = [int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)]
    if not found:
        pytest.skip("this PyTorch has another OpenMP runtime than GCC's")
    return found


@pytest.mark.parametrize(
    "words",
    [[BIN / "boxwright", "env"], [sys.executable, "-m", "boxwright", "env"], PYTHON],
    ids=["command", "module", "import"],
)
def test_threads_wait_without_spinning(words: list[str | Path]) -> None:
    assert set(spins(start(words))) == {0}


def test_the_processes_of_torchrun_wait_without_spinning() -> None:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "boxwright", "env"]
    launcher, *ours = spins(start([sys.executable, *words]))
    assert launcher > 0
    assert ours
    assert set(ours) == {0}


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [("OMP_WAIT_POLICY", "ACTIVE", 30_000_000_000), ("GOMP_SPINCOUNT", "77", 77), ("KMP_BLOCKTIME", "200", 300_000)],
)
def test_a_setting_of_the_user_stays(name: str, value: str, count: int) -> None:
    code = "import os, boxwright, torch; print([os.environ.get(n) for n in ('OMP_WAIT_POLICY', '" + name + "')])"
    done = start([sys.executable, "-c", code], **{name: value})
    assert set(spins(done)) == {count}
    assert done.stdout.strip() == str([value if name == "OMP_WAIT_POLICY" else None, value])


def test_after_torch_nothing_is_set() -> None:
    """It would have no effect, and ``boxwright env`` would tell otherwise."""
    done = start([sys.executable, "-c", "import os, torch, boxwright; print('OMP_WAIT_POLICY' in os.environ)"])
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_workers_wait_without_spinning(method: str, tmp_path: Path) -> None:
    """The processor time that a worker takes while it sleeps; that of spinning threads is some 20 ms."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = start([sys.executable, script, method])
    spins(done)
    assert float(done.stdout) < 0.005


def test_env_tells_who_has_set_it() -> None:
    facts = json.loads(start([sys.executable, "-m", "boxwright", "env", "--json"]).stdout)
    assert facts["set_by_boxwright"] == {"OMP_WAIT_POLICY": "PASSIVE"}
    assert facts["variables"]["OMP_WAIT_POLICY"] == "PASSIVE"
    ours = start([sys.executable, "-m", "boxwright", "env"]).stdout
    assert re.search(r"OMP_WAIT_POLICY +PASSIVE \(set by Boxwright\)\n", ours)
    theirs = start([sys.executable, "-m", "boxwright", "env"], OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="9").stdout
    assert re.search(r"OMP_WAIT_POLICY +ACTIVE\n", theirs)
    assert re.search(r"GOMP_SPINCOUNT +9\n", theirs)
