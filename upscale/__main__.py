"""Run the program as ``python -m upscale``."""

from upscale.cli import main

if __name__ == "__main__":
    main()
