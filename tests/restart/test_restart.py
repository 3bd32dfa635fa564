"""A training killed with SIGKILL, also in the middle of a save, and resumed from Orbax ends equal in every bit."""

import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.restart import training

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 300  # for some seconds of training: on a busy machine too, only what hangs takes as long

# Before step 13 the save at 12 has begun, and that waits for the first one, at 6, to end.
FIRST_STEP_TO_KILL = 2 * training.SAVE_STEPS + 1

# After the moment, at random. On a machine with nothing else to do, a save takes 0.04 to 0.05 s.
MOST_DELAY_SECONDS = {"step": 0.1, "saving": 0.06, "restoring": 0.5}


class Worker:
    """A training in a process of its own, whose lines are read as they come, and of which one save may never end."""

    def __init__(self, home: Path, unending_save: int | None = None):
        home.mkdir(exist_ok=True)
        self.checkpoints, self.result, self.log = home / "checkpoints", home / "result.pickle", home / "log"
        self.lines: list[list[str]] = []
        program = [sys.executable, "-m", "tests.restart.training", str(self.checkpoints), str(self.result)]
        program += [] if unending_save is None else [str(unending_save)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        with self.log.open("a") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            self.process = subprocess.Popen(program, cwd=ROOT, env=environment, text=True, **pipes)
        self.timer = threading.Timer(TIMEOUT_SECONDS, self.process.terminate)  # its pipe ends, and with it any wait
        self.timer.daemon = True
        self.timer.start()

    def read(self) -> Iterator[list[str]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # a kill may have cut the last one short
                self.lines.append(line.split())
                yield self.lines[-1]

    def wait_for(self, word: str, step: int) -> None:
        """Read until it says `word` of `step` or later."""
        for what, at, *_ in self.read():
            if what == word and int(at) >= step:
                return
        self.process.wait()
        raise AssertionError(f"no {word!r} of step {step}: {self.report()}")

    def permit_the_last_step(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def finish(self) -> training.LeafBytes:
        list(self.read())
        assert self.process.wait() == 0, self.report()
        return pickle.loads(self.result.read_bytes())

    def close(self) -> None:
        self.timer.cancel()
        self.process.kill()
        self.process.communicate()

    def report(self) -> str:
        return f"exit status {self.process.returncode}, said {self.lines[-3:]}\n{self.log.read_text()[-3000:]}"

    def steps(self) -> dict[int, list[str]]:
        """What was said after each step: a digest of the whole state, the scale, and the number of skipped steps."""
        return {int(at): rest for what, at, *rest in self.lines if what == "step"}

    def last(self, word: str) -> int:
        return max((int(at) for what, at, *_ in self.lines if what == word), default=0)

    def finished_saves(self) -> list[int]:
        return sorted(int(path.name) for path in self.checkpoints.glob("*") if path.name.isdigit())

    def unfinished_saves(self) -> set[tuple[int, int, int]]:
        """The steps, inodes and times of the temporary directories, which Orbax renames when a save is complete."""
        found = set()
        for path in self.checkpoints.glob("*.orbax-checkpoint-tmp*"):
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                stat = path.stat()
                found.add((int(path.name.partition(".")[0]), stat.st_ino, stat.st_ctime_ns))
        return found


class Kill(NamedTuple):
    moment: str
    restored: int
    step: int
    during_save: bool
    saved: list[int]


def kill(worker: Worker, moment: str, step: int, delay_seconds: float) -> Kill:
    """Kill a worker at a moment. A new temporary directory proves that this was during a save."""
    before, begun = worker.unfinished_saves(), set[int]()  # an earlier kill may have left some

    def look() -> None:
        begun.update(at for at, *_ in worker.unfinished_saves() - before)

    worker.wait_for(moment, step)
    while moment == "saving" and step not in begun:
        assert worker.process.poll() is None, worker.report()
        time.sleep(0.001)
        look()
    time.sleep(delay_seconds)
    worker.process.kill()
    list(worker.read())  # what it said before it died
    assert worker.process.wait() == -signal.SIGKILL, worker.report()
    saved = worker.finished_saves()
    assert saved, "killed before the first checkpoint"
    assert worker.last("step") < training.LAST_STEP, "killed after the last step"
    assert not worker.result.exists()
    look()
    return Kill(moment, worker.last("restoring"), worker.last("step"), bool(begun - set(saved)), saved)


def check_restarts(home: Path, moments: list[str], seed: int) -> list[Kill]:
    """Kill a training at the moments, one after the other, and compare it and its end with an undisturbed one."""
    chance, kills = random.Random(seed), []
    with contextlib.ExitStack() as stack:
        undisturbed = Worker(home / "undisturbed")
        workers = [undisturbed]
        stack.callback(lambda: [worker.close() for worker in workers])
        undisturbed.permit_the_last_step()
        part = (training.LAST_STEP - training.SAVE_STEPS - FIRST_STEP_TO_KILL) / len(moments)
        saved = 0
        for index, moment in enumerate(moments):
            # The training may be far ahead of its lines. A save that never ends stops it, at the next save at most.
            step = max(FIRST_STEP_TO_KILL + int((index + chance.random()) * part), saved + 1)
            save = -(-step // training.SAVE_STEPS) * training.SAVE_STEPS
            workers.append(Worker(home / "killed", save))
            at = {"step": step, "saving": save, "restoring": saved}[moment]
            kills.append(kill(workers[-1], moment, at, chance.uniform(0, MOST_DELAY_SECONDS[moment])))
            saved = max(kills[-1].saved)
        workers.append(Worker(home / "killed"))
        workers[-1].permit_the_last_step()
        end, expected_end = workers[-1].finish(), undisturbed.finish()

    expected = undisturbed.steps()
    assert sorted(expected) == list(range(1, training.LAST_STEP + 1))
    assert len({scale for _, scale, _ in expected.values()}) >= 3  # it grows and shrinks, or this would show little
    assert int(expected[training.LAST_STEP][-1]) > training.LAST_STEP // 13  # more were skipped than have an infinity

    assert all(each.during_save for each in kills if each.moment == "saving"), kills
    assert [worker.last("restoring") for worker in workers[1:]] == [0, *(max(each.saved) for each in kills)]
    different_steps = [
        (worker.last("restoring"), [step for step, said in worker.steps().items() if said != expected[step]])
        for worker in workers[1:]
    ]
    assert end.keys() == expected_end.keys()
    different_leaves = [path for path in end if end[path] != expected_end[path]]
    assert (different_leaves, [each for each in different_steps if each[1]]) == ([], [])
    return kills


def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    kills = check_restarts(tmp_path, ["saving", "step"], seed=0)
    print(*kills, sep="\n")


@pytest.mark.slow
def test_a_training_killed_twenty_four_times_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """Kill 24 times, after the first checkpoint and before the last step, 12 times during a save at least.

    `python -m pytest -s -m slow tests/restart`, the last time with Python 3.11, JAX 0.10.2 and Orbax 0.12.8 on two
    cores: 24 kills, of which 19 during a save; every step and the end equal; 50 s.
    """
    kills = check_restarts(tmp_path, ["saving", "step", "saving", "restoring", "step", "saving"] * 4, seed=1)
    print(*kills, sep="\n")
    print(f"{len(kills)} kills, {sum(each.during_save for each in kills)} during a save")
