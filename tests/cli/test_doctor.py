from __future__ import annotations

from pathlib import Path

import pytest
import torch

from upscale import __version__
from upscale.cli import main
from upscale.device import resolve_device, resolve_precision
from upscale.options import Precision


def test_doctor_says_what_is_used_and_where_networks_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    device = resolve_device("auto")
    assert said["upscale"] == __version__
    assert said["pytorch"] == torch.__version__
    assert said["device"].startswith(str(device))
    assert said["precision"] == resolve_precision(Precision.AUTO, device).value
    assert float(said["speed"].split()[0]) > 0
    assert said["networks"].startswith(str(tmp_path / "weights"))
