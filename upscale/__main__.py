"""The program: ``upscale``, or ``python -m upscale``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback also while it is still being imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that spin for a millisecond at the end of each layer take the core from whom they wait for, where
        # something else is at work. PyTorch's OpenMP reads this when it is loaded.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        from upscale.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
