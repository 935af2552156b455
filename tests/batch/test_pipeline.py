"""Batches: nothing twice, nothing half, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags
from PIL import Image as PILImage

from tests.conftest import killed_at, picture
from upscale.batch import pipeline
from upscale.batch.journal import Entry, Journal, Source
from upscale.batch.pipeline import Done, Ended, Failed, Skipped
from upscale.batch.plan import Job, Naming, plan
from upscale.batch.results import Settings, Written, encode
from upscale.engine import Upscaler
from upscale.errors import DiskFull, OutputExists
from upscale.files import part_prefix
from upscale.images import LARGE, Image, Metadata, Provenance, decode, read_image, write_image
from upscale.images import write as write_module
from upscale.images.exif import open_exif
from upscale.models import build
from upscale.options import Measure, Precision, Target, Tiling

X2 = Settings(target=Target.parse("2"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, of 2x2 pixels more each, and a file that is none."""
    source = tmp_path / "in"
    source.mkdir()
    for index in range(3):
        PILImage.fromarray(picture(8 + 2 * index, 8)).save(source / f"{index}.png")
    (source / "bad.png").write_text("text")
    return source


def upscaler() -> Upscaler:
    return Upscaler([build({"arch": "bicubic"}, "test")], torch.device("cpu"), Precision.FP32, Tiling())


def jobs_of(folder: Path, settings: Settings = X2, *, force: bool = False) -> list[Job]:
    return plan([str(folder)], folder.with_name("out"), settings.target, Naming(), force=force)


def run(
    jobs: Sequence[Job], settings: Settings = X2, *, writers: int = 2, retry_failed: bool = False, redo: bool = False
) -> list[Ended]:
    ended: list[Ended] = []
    pipeline.run(
        jobs,
        [upscaler()],
        settings,
        on_tile=lambda job, done, total: None,
        on_end=ended.append,
        writers=writers,
        retry_failed=retry_failed,
        redo=redo,
    )
    return ended


def kinds(ended: Sequence[Ended]) -> list[type]:
    return [type(each) for each in ended]


def test_results_come_in_the_order_of_the_jobs_and_a_failure_is_its_own(folder: Path) -> None:
    ended = run(jobs_of(folder))
    assert [each.job.source.name for each in ended] == ["0.png", "1.png", "2.png", "bad.png"]
    assert kinds(ended) == [Done, Done, Done, Failed]
    for index in range(3):
        with PILImage.open(folder.with_name("out") / f"{index}.png") as result:
            assert result.size == (16, 16 + 4 * index)


def test_a_second_run_does_only_what_changed(folder: Path) -> None:
    run(jobs_of(folder))
    ended = run(jobs_of(folder))
    assert kinds(ended) == [Skipped, Skipped, Skipped, Failed]
    assert isinstance(ended[3], Failed)
    assert ended[3].earlier
    assert "not an image" in ended[3].error.message
    PILImage.fromarray(picture(8, 8, seed=5)).save(folder / "0.png")  # new bytes under an old name
    (folder.with_name("out") / "1.png").unlink()
    assert kinds(run(jobs_of(folder))) == [Done, Done, Skipped, Failed]
    assert kinds(run(jobs_of(folder), replace(X2, strip=True))) == [Done, Done, Done, Failed]
    assert kinds(run(jobs_of(folder, force=True), replace(X2, strip=True), redo=True)) == [Done, Done, Done, Failed]


def test_touching_a_source_does_not_make_it_new(folder: Path) -> None:
    run(jobs_of(folder))
    os.utime(folder / "0.png", (1, 1))
    assert kinds(run(jobs_of(folder)))[0] is Skipped


def test_frames_that_the_format_cannot_hold_are_not_enlarged(folder: Path) -> None:
    frames = [PILImage.fromarray(picture(8, 8, seed)) for seed in range(3)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:], duration=50)
    job = replace(jobs_of(folder)[-1], output=folder.with_name("out") / "moving.jpg")
    assert job.source.name == "moving.png"
    (ended,) = run([job])
    assert isinstance(ended, Done)
    assert ended.result is not None
    assert ended.result.tiles == 1
    assert "JPEG cannot hold an animation; only the first of 3 is written" in ended.notices


def test_retry_failed_does_nothing_else(folder: Path) -> None:
    (folder / "bad.png").unlink()
    PILImage.fromarray(picture(8, 8)).save(folder / "bad.png")
    good = (folder / "bad.png").read_bytes()
    (folder / "bad.png").write_bytes(good[:60])
    run(jobs_of(folder))
    (folder.with_name("out") / "0.png").unlink()
    for again in (False, True):
        ended = run(jobs_of(folder, force=again), retry_failed=True, redo=again)
        assert kinds(ended) == [Skipped, Skipped, Skipped, Failed]
        assert isinstance(ended[3], Failed)
        assert not ended[3].earlier
    assert not (folder.with_name("out") / "0.png").exists()


def test_retry_failed_does_what_was_never_noted(folder: Path) -> None:
    run(jobs_of(folder)[1:])
    assert kinds(run(jobs_of(folder), retry_failed=True)) == [Done, Skipped, Skipped, Failed]


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Permission denied")])
def test_retry_failed_does_what_failed_for_a_while(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(data: bytes, name: str) -> Image:
        raise error

    run(jobs_of(folder))
    other = replace(X2, strip=True)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "decode", failing)
        assert kinds(run(jobs_of(folder)[:1], other)) == [Failed]
    assert kinds(run(jobs_of(folder), other, retry_failed=True)) == [Done, Skipped, Skipped, Failed]


def test_retry_failed_with_another_format_leaves_what_was_done(folder: Path) -> None:
    PILImage.new("RGB", (9000, 2)).save(folder / "wide.webp")
    assert kinds(run(jobs_of(folder))) == [Done, Done, Done, Failed, Failed]
    jobs = plan([str(folder)], folder.with_name("out"), X2.target, Naming(suffix=".tif"))
    assert kinds(run(jobs, retry_failed=True)) == [Skipped, Skipped, Skipped, Failed, Done]
    assert sorted(path.name for path in folder.with_name("out").glob("[!.]*")) == [
        "0.png",
        "1.png",
        "2.png",
        "wide.tif",
    ]


def test_retry_failed_leaves_a_result_whose_name_another_picture_has_now(folder: Path, tmp_path: Path) -> None:
    one, out = tmp_path / "one", tmp_path / "one_out"
    one.mkdir()
    PILImage.fromarray(picture(8, 8)).save(one / "a.jpg")
    naming = Naming(suffix=".png")
    assert kinds(run(plan([str(one)], out, X2.target, naming))) == [Done]
    before = (out / "a.png").read_bytes()
    PILImage.fromarray(picture(9, 9)).save(one / "a.png")
    jobs = plan([str(one)], out, X2.target, naming)
    assert [job.output.name for job in jobs] == ["a.jpg.png", "a.png"]
    assert kinds(run(jobs, retry_failed=True)) == [Skipped, Skipped]
    assert (out / "a.png").read_bytes() == before


def test_retry_failed_knows_a_folder_by_another_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(jobs_of(folder))
    monkeypatch.chdir(folder)
    jobs = plan([f"../{folder.name}"], folder.with_name("out"), X2.target, Naming(suffix=".tif"))
    assert kinds(run(jobs, retry_failed=True)) == [Skipped, Skipped, Skipped, Failed]


def test_a_result_that_was_changed_is_left_and_the_others_are_done(folder: Path) -> None:
    out = folder.with_name("out")
    run(jobs_of(folder))
    (out / "1.png").write_bytes(b"edited")
    (out / "2.png").unlink()
    ended = run(jobs_of(folder))
    assert kinds(ended) == [Skipped, Skipped, Done, Failed]
    assert [isinstance(end, Skipped) and end.kept for end in ended] == [False, True, False, False]
    assert (out / "1.png").read_bytes() == b"edited"
    run(jobs_of(folder, force=True), redo=True)
    assert read_image(out / "1.png").pixels.shape == (20, 16, 3)


def test_a_file_that_appears_after_planning_is_left(folder: Path) -> None:
    jobs, out = jobs_of(folder), folder.with_name("out")
    out.mkdir()
    (out / "1.png").write_bytes(b"somebody's")
    assert kinds(run(jobs)) == [Done, Skipped, Done, Failed]
    assert (out / "1.png").read_bytes() == b"somebody's"
    with pytest.raises(OutputExists, match=r"1\.png: exists already"):
        jobs_of(folder)


@contextmanager
def elsewhere(out: Path, expression: str) -> Iterator[subprocess.Popen[str]]:
    """Yield another process that did what ``expression`` says with its ``journal`` of ``out``, and lives on."""
    script = (
        "import sys; from pathlib import Path; from upscale.batch import journal as module;"
        f"out = Path(sys.argv[1]); journal = module.Journal(out); print({expression}, flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        yield other


def test_what_another_run_works_on_is_left_to_it(folder: Path) -> None:
    out = folder.with_name("out")
    with elsewhere(out, "journal.claim(out / '0.png')") as other:
        journal = Journal(out)
        assert not journal.claim(out / "0.png")
        assert journal.claim(out / "1.png")
        journal.close()
        ended: list[Ended] = []

        def on_end(each: Ended) -> None:
            ended.append(each)
            if len(ended) == 3:  # all but the claimed one: now the other process dies
                other.kill()

        pipeline.run(jobs_of(folder), [upscaler()], X2, on_tile=lambda job, done, total: None, on_end=on_end)
    assert [each.job.source.name for each in ended] == ["1.png", "2.png", "bad.png", "0.png"]
    assert isinstance(ended[-1], Done)


def test_copies_say_nothing_of_the_pace(folder: Path) -> None:
    journal = Journal(folder.with_name("out"))
    entry = journal.entry(journal.root / "0.png", "done", Source.of(folder / "0.png"), "")
    journal.entries = {
        str(index): replace(entry, pixels=2_000_000, seconds=seconds) for index, seconds in enumerate((0, 0, 0, 10.0))
    }
    assert journal.pace() == 5


def test_lines_of_several_processes_are_written_one_after_the_other(folder: Path) -> None:
    out = folder.with_name("out")
    journal = Journal(out)
    entry = journal.entry(out / "0.png", "done", Source.of(folder / "0.png"), "")
    with elsewhere(out, "module._lock(journal._open()[1], module._APPENDING)") as other:
        writer = threading.Thread(target=journal.note, args=(entry,))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        other.kill()
    writer.join(30)
    reader = Journal(out)
    reader.refresh()
    assert reader.find(out / "0.png") == entry


def test_a_killed_run_is_finished_by_the_next(folder: Path) -> None:
    for index in range(3, 9):
        PILImage.fromarray(picture(64, 64, seed=index)).save(folder / f"{index}.png")
    out = folder.with_name("out")
    for count in (1, 3, 0):
        command = killed_at("done", count, str(folder), "-o", str(out), "-m", "bicubic", "-x", "4")
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        assert done.returncode == (-signal.SIGKILL if count else 1)
    assert sorted(path.name for path in out.iterdir()) == [".upscale", *(f"{index}.png" for index in range(9))]
    notes = [json.loads(line) for line in (out / ".upscale" / "journal.jsonl").read_text().splitlines()]
    finished = [note["output"] for note in notes if note["status"] == "done"]
    assert len(finished) == len(set(finished)) == 9


def test_a_line_that_a_kill_cut_short_is_skipped(folder: Path) -> None:
    run(jobs_of(folder))
    path = folder.with_name("out") / ".upscale" / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"output": "2.png", "sta')
    PILImage.fromarray(picture(8, 8, seed=5)).save(folder / "0.png")
    assert kinds(run(jobs_of(folder))) == [Done, Skipped, Skipped, Failed]
    assert kinds(run(jobs_of(folder))) == [Skipped, Skipped, Skipped, Failed]


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    out = folder.with_name("out")
    out.mkdir()
    journal = Journal(out)
    journal.note(journal.entry(out / "0.png", "begun", Source.of(folder / "0.png"), ""))
    journal.close()
    stale = out / f"{part_prefix(out / '0.png')}01234567.part.png"
    other = out / f"{part_prefix(out / 'x.png')}01234567.part.png"  # of a process that may be alive
    stale.write_bytes(b"half")
    other.write_bytes(b"half")
    run(jobs_of(folder))
    assert not stale.exists()
    assert other.exists()


def test_processes_that_share_a_folder_do_each_picture_once(folder: Path) -> None:
    for index in range(3, 12):
        PILImage.fromarray(picture(64, 64, seed=index)).save(folder / f"{index}.png")
    out = folder.with_name("out")
    command = [sys.executable, "-m", "upscale", str(folder), "-o", str(out), "-m", "bicubic", "-x", "4", "--json"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    done: list[str] = []
    for worker in workers:
        events = [json.loads(line) for line in worker.communicate()[0].splitlines()]
        done += [Path(event["output"]).name for event in events if event["event"] == "done"]
        assert worker.returncode == 1  # bad.png
    assert sorted(done) == sorted(f"{index}.png" for index in range(12))


def test_a_full_disk_stops_the_run_and_is_not_held_against_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setitem(write_module._WRITERS, "PNG", full)
        with pytest.raises(DiskFull):
            run(jobs_of(folder))
    assert kinds(run(jobs_of(folder))) == [Done, Done, Done, Failed]


def test_a_full_disk_is_seen_at_once_also_while_an_earlier_picture_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3, 12):
        PILImage.fromarray(picture(8, 8, seed=index)).save(folder / f"{index:02}.png")
    original = write_module._WRITERS["PNG"]
    last = folder.with_name("out") / "11.png"

    def one_slow_one_full(path: Path, *rest: Any) -> None:
        if path.name.startswith(part_prefix(Path("0.png"))):
            for _ in range(50):
                if last.exists():
                    break
                time.sleep(0.02)
        elif path.name.startswith(part_prefix(Path("03.png"))):
            raise OSError(28, os.strerror(28))
        original(path, *rest)

    monkeypatch.setitem(write_module._WRITERS, "PNG", one_slow_one_full)
    jobs = sorted(jobs_of(folder), key=lambda job: job.source.name != "0.png")
    with pytest.raises(DiskFull):
        run(jobs)
    assert (last.parent / "0.png").exists()
    assert not last.exists()


def test_time_of_modification_is_kept(folder: Path) -> None:
    os.utime(folder / "0.png", (1_000_000, 2_000_000))
    run(jobs_of(folder))
    assert (folder.with_name("out") / "0.png").stat().st_mtime == 2_000_000


def test_what_cannot_be_enlarged_so_far_keeps_no_other_back(folder: Path) -> None:
    PILImage.fromarray(picture(2, 4)).save(folder / "0.png")
    ended = run(jobs_of(folder, settings := Settings(target=Target.parse("100", Measure.LONG))), settings)
    assert kinds(ended) == [Done, Done, Done, Failed]
    PILImage.fromarray(picture(2, 3)).save(folder / "0.png")
    PILImage.fromarray(picture(1, 9000)).save(folder / "1.webp")
    ended = run(jobs_of(folder, settings := Settings(target=Target.parse("97", Measure.LONG))), settings)
    assert kinds(ended) == [Failed, Done, Done, Done, Failed]
    assert isinstance(ended[0], Failed)
    assert "the most is 32" in ended[0].error.message


@pytest.mark.parametrize("when", ["read", "encode"])
def test_a_source_that_goes_away_is_its_own_matter(folder: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    owner = Source if when == "read" else pipeline
    original = getattr(owner, when)

    def losing(first: Source | Job, *rest: Any) -> Any:
        source = first.path if isinstance(first, Source) else first.source
        if source.name == "1.png":
            source.unlink()
        return original(first, *rest)

    jobs = jobs_of(folder)
    monkeypatch.setattr(owner, when, losing)
    assert kinds(run(jobs)) == [Done, Failed if when == "read" else Done, Done, Failed]


@pytest.mark.parametrize("when", ["decode", "upscale", "encode"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_picture_that_does_not_fit_into_memory_is_its_own_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch, when: str, error: Exception
) -> None:
    owner = Upscaler if when == "upscale" else pipeline
    original = getattr(owner, when)
    calls = 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, when, failing)
        ended = run(jobs_of(folder), writers=1)  # two would encode in any order
    assert kinds(ended) == [Done, Failed, Done, Failed]
    assert isinstance(ended[1], Failed)
    assert ended[1].error.message.endswith("1.png: not enough memory for it")
    assert kinds(run(jobs_of(folder))) == [Skipped, Done, Skipped, Failed]


def test_a_source_replaced_while_it_is_worked_on_is_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PILImage.fromarray(picture(8, 8)).save(folder / "0.bmp")
    times = (folder / "0.bmp").stat()
    original = encode

    def replaced(job: Job, *rest: Any) -> Any:
        if job.source.name == "0.bmp":  # of the same size and date
            PILImage.fromarray(picture(8, 8, seed=7)).save(job.source)
            os.utime(job.source, ns=(times.st_atime_ns, times.st_mtime_ns))
        return original(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "encode", replaced)
        run(jobs_of(folder))
    assert kinds(run(jobs_of(folder)))[0] is Done
    result = read_image(folder.with_name("out") / "0.bmp").pixels
    assert np.array_equal(result, upscaler().upscale(read_image(folder / "0.bmp"), X2.target).image.pixels)


def test_large_pictures_are_copied_or_left_out(folder: Path) -> None:
    settings = Settings(target=Target.parse("10", Measure.HEIGHT))
    ended = run(jobs_of(folder, settings), settings)
    assert [getattr(each, "size", None) for each in ended] == [(10, 10), (10, 8), (12, 8), None]
    assert (folder.with_name("out") / "2.png").read_bytes() == (folder / "2.png").read_bytes()
    other = replace(settings, skip_large=True)
    assert kinds(run(jobs_of(folder, other), other))[:3] == [Done, Skipped, Skipped]


def test_pages_are_copied_only_if_all_are_large_enough(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    large, little = (Image(pixels=picture(height, 8)) for height in (12, 6))
    write_image(folder / "a.tif", replace(large, following=(little,)))
    write_image(folder / "b.tif", replace(large, following=(large,)))
    settings = Settings(target=Target.parse("10", Measure.HEIGHT), skip_large=True)
    assert kinds(run(jobs_of(folder, settings), settings)) == [Done, Skipped]
    result = read_image(folder.with_name("out") / "a.tif")
    assert [frame.pixels.shape[0] for frame in result.frames] == [12, 10]


def test_provenance_is_noted_unless_stripped(folder: Path) -> None:
    made = Provenance(tool="upscale 1", model="bicubic", weights=(), settings="x2")
    run(jobs_of(folder), replace(X2, provenance=made))
    out = folder.with_name("out") / "0.png"
    assert b'upscale:Model="bicubic"' in (read_image(out).metadata.xmp or b"")
    run(jobs_of(folder), replace(X2, provenance=made, strip=True))
    assert read_image(out).metadata.xmp is None


def test_no_more_than_a_few_pictures_are_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3, 20):
        PILImage.fromarray(picture(8, 8)).save(folder / f"{index}.png")
    (folder / "bad.png").unlink()
    lock = threading.Lock()
    held, most = 0, 0

    def decoding(data: bytes, name: str) -> Image:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return decode(data, name)

    def encoding(*args: Any) -> Written:
        nonlocal held
        time.sleep(0.02)  # as if a disk were slower than the network
        written = encode(*args)
        with lock:  # here, not once it is reported: an end waits for those before it, its pixels do not
            held -= 1
        return written

    monkeypatch.setattr(pipeline, "decode", decoding)
    monkeypatch.setattr(pipeline, "encode", encoding)
    assert kinds(run(jobs_of(folder), X2)) == [Done] * 20
    assert most <= pipeline.READ_AHEAD + 1 + 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_very_large_results_are_the_same_written_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, mode: str
) -> None:
    PILImage.fromarray(picture(150, 70)).convert(mode).save(tmp_path / f"a{suffix}", dpi=(300, 300))
    results = []
    for large in (LARGE, 0):
        monkeypatch.setattr(pipeline, "LARGE", large)
        output = tmp_path / f"{large}{suffix}"
        target = Target.parse("2.5")
        (ended,) = run(plan([str(tmp_path / f"a{suffix}")], output, target, Naming()), Settings(target=target))
        assert isinstance(ended, Done)
        results.append(read_image(output))
    whole, streamed = results
    np.testing.assert_array_equal(streamed.pixels, whole.pixels)
    assert streamed.grayscale == whole.grayscale == (mode == "L")
    assert streamed.metadata == whole.metadata


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("under", [0, 1], ids=["black", "white"])
@pytest.mark.parametrize("softness", [0.01, 1, 8])  # pixels
def test_a_disc_on_nothing_has_no_ring(
    tmp_path: Path, softness: float, under: int, dtype: type[np.unsignedinteger]
) -> None:
    levels = np.iinfo(dtype).max
    colour = np.array((200, 60, 40)) * (levels // 255)
    y, x = np.mgrid[0:40, 0:40]
    coverage = ((14 - np.hypot(y - 19.5, x - 19.5)) / softness + 0.5).clip(0, 1)
    alpha = np.rint(coverage * levels).astype(dtype)
    pixels = np.where(alpha[..., None] > 0, colour, under * levels).astype(dtype)
    write_image(tmp_path / "disc.png", Image(pixels=pixels, alpha=alpha))
    run(plan([str(tmp_path / "disc.png")], None, X2.target, Naming()))
    image = read_image(tmp_path / "disc_x2.png")
    assert image.alpha is not None
    edge = image.pixels[image.alpha > 0].astype(int)
    assert np.abs(edge - colour).max() <= 2 * (levels // 255)
    assert image.alpha.mean() == pytest.approx(alpha.mean(), rel=0.01)


def test_a_result_of_another_picture_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name / "p.png" for name in "abc")
    for height, path in ((8, first), (20, second)):
        path.parent.mkdir()
        PILImage.fromarray(picture(height, 8)).save(path)
    third.parent.mkdir()

    def planned(source: Path, *, force: bool = False) -> list[Job]:
        return plan([str(source)], tmp_path / "out", X2.target, Naming(), force=force)

    run(planned(first))
    for other in (second, second.parent):
        with pytest.raises(OutputExists, match=r"p\.png: exists already, made from .*a.p\.png"):
            planned(other)
    assert len(planned(second, force=True)) == 1
    third.write_bytes(first.read_bytes())
    assert kinds(run(planned(third))) == [Skipped]  # a copy
    PILImage.fromarray(picture(16, 8)).save(first)
    assert kinds(run(planned(first))) == [Done]  # the same, changed
    second.unlink()
    second.symlink_to("nothing.png")
    assert kinds(run(planned(second.parent))) == [Failed]  # a link to what is gone
    first.rename(third)
    assert kinds(run(planned(third))) == [Skipped]  # the same, moved


def test_names_that_are_told_apart_anew_keep_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    PILImage.fromarray(picture(8, 8)).save(tmp_path / "in" / "a.jpg")

    def planned() -> list[Job]:
        return plan([str(tmp_path / "in")], tmp_path / "out", X2.target, Naming(suffix=".png"))

    assert kinds(run(planned())) == [Done]
    PILImage.fromarray(picture(9, 8)).save(tmp_path / "in" / "a.png")  # now a.png is its result, not that of a.jpg
    assert kinds(run(planned())) == [Done, Done]
    assert read_image(tmp_path / "out" / "a.png").pixels.shape[0] == 18
    assert read_image(tmp_path / "out" / "a.jpg.png").pixels.shape[0] == 16


def test_a_result_is_done_also_where_its_time_cannot_be_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("upscale.batch.results.os.utime", refuse)
    assert kinds(run(jobs_of(folder))) == [Done, Done, Done, Failed]


def test_a_failure_that_cannot_be_noted_is_told_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = Journal.note

    def full(journal: Journal, entry: Entry) -> None:
        if entry.status == "failed":
            raise OSError(28, "No space left on device")
        note(journal, entry)

    monkeypatch.setattr(Journal, "note", full)
    assert kinds(run(jobs_of(folder))) == [Done, Done, Done, Failed]
    monkeypatch.undo()
    ended = run(jobs_of(folder))
    assert kinds(ended) == [Skipped, Skipped, Skipped, Failed]
    assert isinstance(ended[3], Failed)
    assert not ended[3].earlier


def test_half_a_line_is_read_once_it_is_whole(folder: Path) -> None:
    out = folder.with_name("out")
    journal = Journal(out)
    entry = journal.entry(out / "0.png", "done", Source.of(folder / "0.png"), "")
    journal.note(entry)
    journal.close()
    path = out / ".upscale" / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])  # as another process is writing it
    reader = Journal.read(out)
    assert reader.find(out / "0.png") is None
    path.write_bytes(whole)
    reader.refresh()
    assert reader.find(out / "0.png") == entry


def test_a_result_that_a_killed_run_wrote_but_did_not_note_is_made_again(folder: Path) -> None:
    out = folder.with_name("out")
    out.mkdir()
    journal = Journal(out)
    journal.note(journal.entry(out / "0.png", "begun", Source.of(folder / "0.png"), ""))
    journal.close()
    (out / "0.png").write_bytes(b"perhaps whole")
    assert kinds(run(jobs_of(folder))) == [Done, Done, Done, Failed]


def test_what_is_begun_is_noted_before_it_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[str] = []
    note = Journal.note

    def noting(self: Journal, entry: Entry) -> None:
        statuses.append(entry.status)
        note(self, entry)

    def encoding(job: Job, *of: Any) -> Written:
        statuses.append("written")
        return encode(job, *of)

    monkeypatch.setattr(Journal, "note", noting)
    monkeypatch.setattr(pipeline, "encode", encoding)
    run(jobs_of(folder)[:1])
    assert statuses == ["begun", "written", "done"]


@pytest.mark.parametrize("name", ["[0].png", "0.png"])
def test_what_a_killed_process_left_is_removed_whatever_its_name(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    PILImage.fromarray(picture(8, 8)).save(tmp_path / name)
    journal = Journal(out)
    journal.note(journal.entry(out / name, "begun", Source.of(tmp_path / name), ""))
    journal.close()
    stale = out / f"{part_prefix(out / name)}01234567.part.png"
    stale.write_bytes(b"half")
    run(plan([str(tmp_path / name)], out, X2.target, Naming()))
    assert not stale.exists()


def test_lines_that_say_more_or_other_things_than_is_known_are_left_out(folder: Path) -> None:
    run(jobs_of(folder))
    path = folder.with_name("out") / ".upscale" / "journal.jsonl"
    lines = path.read_bytes().splitlines()
    later = lines[-1][:-1] + b', "of_a_later_version": 1}'
    path.write_bytes(path.read_bytes() + later + b"\n[1]\n7\n")
    assert kinds(run(jobs_of(folder))) == [Skipped, Skipped, Skipped, Failed]


def test_what_its_format_cannot_hold_is_not_enlarged_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PILImage.new("RGB", (9000, 2)).save(folder / "wide.webp")
    monkeypatch.setattr(Upscaler, "upscale", lambda *_: pytest.fail("enlarged for nothing"))
    (ended,) = run([job for job in jobs_of(folder) if job.source.name == "wide.webp"])
    assert isinstance(ended, Failed)
    assert "more than the 16383 pixels" in ended.error.message


def test_several_devices_stop_after_a_tile_when_interrupted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, edge in (("a", 8), ("b", 640)):
        PILImage.fromarray(picture(edge, edge)).save(tmp_path / "in" / f"{name}.png")
    small = Upscaler([build({"arch": "bicubic"}, "test")], torch.device("cpu"), Precision.FP32, Tiling(size=64))
    tiles: list[tuple[int, int]] = []
    begun = threading.Event()

    def on_tile(job: Job, done: int, total: int) -> None:
        if job.source.name == "b.png":
            tiles.append((done, total))
            begun.set()
            time.sleep(0.02)

    def on_end(each: Ended) -> None:
        begun.wait(60)
        raise KeyboardInterrupt

    jobs = plan([str(tmp_path / "in")], tmp_path / "out", X2.target, Naming())
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(jobs, [upscaler(), small], X2, on_tile=on_tile, on_end=on_end)
    assert tiles[-1][0] < tiles[-1][1] // 2


def test_a_large_picture_becomes_the_format_that_its_name_says(folder: Path) -> None:
    settings = Settings(target=Target.parse("10", Measure.HEIGHT))
    jobs = plan([str(folder)], folder.with_name("out"), settings.target, Naming(suffix=".jpg"))
    assert kinds(run(jobs, settings))[2] is Done
    with PILImage.open(folder.with_name("out") / "2.jpg") as opened:
        assert (opened.format, opened.size) == ("JPEG", (8, 12))


def secret(image: Image) -> Image:
    exif = PILImage.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    return replace(image, metadata=Metadata(exif=data))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("height", ["10", "24"])  # large enough already, and enlarged
def test_strip_leaves_nothing_of_any_page(tmp_path: Path, suffix: str, height: str) -> None:
    page = secret(Image(pixels=picture(12, 8)))
    write_image(tmp_path / f"a{suffix}", replace(page, following=(page,) if suffix == ".tif" else ()))
    settings = Settings(target=Target.parse(height, Measure.HEIGHT), strip=True)
    output = tmp_path / f"b{suffix}"
    run(plan([str(tmp_path / f"a{suffix}")], output, settings.target, Naming()), settings)
    result = read_image(output)
    assert len(result.frames) == (2 if suffix == ".tif" else 1)
    for frame in result.frames:
        assert ExifTags.Base.Artist not in open_exif(frame.metadata.exif)
    assert b"somebody" not in output.read_bytes()


@pytest.mark.parametrize("strip", [False, True])
def test_very_large_results_are_signed_or_stripped_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strip: bool
) -> None:
    monkeypatch.setattr(pipeline, "LARGE", 0)
    write_image(tmp_path / "a.png", secret(Image(pixels=picture(12, 8))))
    made = Provenance(tool="upscale 1", model="bicubic", weights=(), settings="x2")
    settings = replace(X2, provenance=made, strip=strip)
    run(plan([str(tmp_path / "a.png")], tmp_path / "b.png", X2.target, Naming()), settings)
    data = (tmp_path / "b.png").read_bytes()
    assert (b"somebody" in data) == (b'upscale:Model="bicubic"' in data) == (not strip)
