from __future__ import annotations

from pathlib import Path

import pytest
import torch

from upscale import __version__, device
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
    chosen = resolve_device("auto")
    assert said["upscale"] == __version__
    assert said["pytorch"] == torch.__version__
    assert said["device"].startswith(str(chosen))
    assert said["precision"] == resolve_precision(Precision.AUTO, chosen).value
    assert float(said["speed"].split()[0]) > 0
    assert said["networks"].startswith(str(tmp_path / "weights"))
    assert said["names"].startswith(str(tmp_path / "weights.toml"))


def test_doctor_tells_of_the_library_that_would_make_it_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_gains_by_ncnn", lambda: True)
    cpu = torch.device("cpu")
    for there in (True, False):
        monkeypatch.setattr(device, "_has_ncnn", lambda there=there: there)
        assert device.winograd_pays(cpu) is there
        assert any("pip install ncnn" in remark for remark in device.advice(cpu)) is not there
    assert not device.winograd_pays(torch.device("meta"))
