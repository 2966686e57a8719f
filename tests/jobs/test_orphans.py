"""A worker does not outlive a run that was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RUN = """
import os, sys, time
from pathlib import Path
from lottolab import jobs
from lottolab.runs import staging

@staging.stage("test_orphans.waits")
def waits(*, folder, x):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)
    return {"x": x}

if __name__ == "__main__":
    jobs.compute([(waits, {"folder": sys.argv[1], "x": x}) for x in range(2)])
"""


def until(true, seconds):
    limit = time.monotonic() + seconds
    while not true() and time.monotonic() < limit:
        time.sleep(0.05)
    return true()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_workers_end_when_their_run_is_killed(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    (marks := tmp_path / "marks").mkdir()
    own = {"LOTTOLAB_STORE": str(tmp_path / "store"), "LOTTOLAB_JOBS": "2"}
    # Nothing that outlives the run may hold a pipe of the tests.
    null = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(marks)],
        **null,
        stderr=subprocess.DEVNULL,
        env=os.environ | own,
        start_new_session=True,
    )
    pids: list[int] = []
    try:
        assert until(lambda: len(list(marks.iterdir())) == 2, 300)
        pids = [int(path.name) for path in Path(marks).iterdir()]
        assert all(psutil.Process(pid).parent().pid == run.pid for pid in pids)
        run.kill()
        run.wait()
        assert until(lambda: not any(map(psutil.pid_exists, pids)), 60)
    finally:
        for pid in [run.pid, *pids]:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
