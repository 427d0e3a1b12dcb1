"""What each stage of the chain takes: most memory, cores, and how long, each a command of its own. No bar: requests follow from it.

Memory is the peak resident size of the stage's largest process (the kernel's own account), cores are CPU seconds over seconds: on a
machine that others use too, the seconds say less than the CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = (
    ("sample",),
    ("plan",),
    ("ingest",),
    ("pack",),
    ("benchmarks",),
    ("probe-set",),
    ("parent",),
    ("pretrain",),
    ("score",),
    ("report",),
)


def run(stage: tuple[str, ...], environ: dict[str, str], log: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds, MiB.

    Raises:
        SystemExit: the stage failed; the end of its output.
    """
    start = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "caco_assets.cli", *stage], env=environ, stdout=stream, stderr=stream)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(stage)}: {log.read_text()[-2000:]}")
    return time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--quick", action="store_true", help="no pretraining and what follows it")
    parser.add_argument("--set", nargs="*", default=[], help="settings as variables: CACO_PRETRAINING__EPOCHS=1 …")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = dict(each.split("=", 1) for each in given.set)
        environ = {**os.environ, **overrides, "CACO_HOME": folder, "CACO_PROFILE": given.profile, "CACO_REAL": f"{folder}/none"}
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, profile {given.profile} {' '.join(given.set)}"
        )
        print("| stage | most memory | CPU | cores busy | wall |\n|---|---|---|---|---|")
        for stage in STAGES[: 7 if given.quick else None]:
            seconds, used, memory = run(stage, environ, Path(folder) / "log")
            print(f"| {' '.join(stage)} | {memory:.0f} MiB | {used:.1f} s | {used / seconds:.1f} | {seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
