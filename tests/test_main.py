"""The program's first moments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_threads_do_not_spin_for_long_where_others_need_the_core() -> None:
    code = "import os, sys; sys.argv[1:] = ['--version']; from upscale.__main__ import main\ntry: main()\n"
    code += "except SystemExit: print(os.environ.get('GOMP_SPINCOUNT'))"
    for policy, expected in (({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, "None"), ({"GOMP_SPINCOUNT": "5"}, "5")):
        plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**plain, **policy}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[-1] == expected


def test_an_interruption_while_it_is_imported_ends_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "upscale", "--version"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
