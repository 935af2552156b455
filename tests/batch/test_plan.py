from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as PILImage

from tests.conftest import picture
from upscale.batch.journal import Journal, Source, output_state
from upscale.batch.plan import Naming, Refused, plan
from upscale.errors import InputError, OutputExists, UnsupportedFormat, UsageError
from upscale.options import Measure, Target

X2 = Target.parse("2")


def save(path: Path, height: int = 12, width: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(picture(height, width)).save(path)
    return path


def test_beside_the_source_the_factor_is_in_the_name(tmp_path: Path) -> None:
    source = save(tmp_path / "a.jpg")
    (job,) = plan([str(source)], None, X2, Naming())
    assert (job.output, job.root, job.size) == (tmp_path / "a_x2.jpg", None, (12, 10))


def test_a_folder_keeps_its_tree_and_names(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "sub" / "b.tga")
    save(tmp_path / "in" / ".hidden.png")
    jobs = plan([str(tmp_path / "in")], None, X2, Naming())
    assert [job.output for job in jobs] == [tmp_path / "in_x2" / "a.png", tmp_path / "in_x2" / "sub" / "b.png"]
    assert {job.root for job in jobs} == {tmp_path / "in_x2"}
    flat = plan([str(tmp_path / "in")], None, X2, Naming(), recursive=False)
    assert [job.source.name for job in flat] == ["a.png"]


@pytest.mark.parametrize(
    ("template", "target", "name"),
    [
        ("{stem}_{scale}x{ext}", X2, "a_2x.png"),
        ("{stem}-{width}x{height}", X2, "a-20x24.png"),
        ("{model}_{stem}.webp", X2, "net_a.webp"),
        ("{stem}_{scale}", Target.parse("100", Measure.LONG), "a_100l.png"),
    ],
)
def test_templates(tmp_path: Path, template: str, target: Target, name: str) -> None:
    source = save(tmp_path / "a.png")
    (job,) = plan([str(source)], tmp_path / "out", target, Naming(template=template, model="dir/net.pth"))
    assert job.output == tmp_path / "out" / name


def test_the_format_is_what_the_template_says_not_what_fills_it(tmp_path: Path) -> None:
    source = str(save(tmp_path / "photo.jpg.png"))
    for suffix, name in ((None, "photo.jpg.png"), (".webp", "photo.jpg.webp")):
        (job,) = plan([source], tmp_path / "out", X2, Naming(template="{stem}", suffix=suffix))
        assert job.output.name == name
    with pytest.raises(UsageError, match=r"--format webp: --name '\{stem\}\.jpg' is that of another format"):
        Naming(template="{stem}.jpg", suffix=".webp")
    (job,) = plan([source], tmp_path / "out", X2, Naming(template="{stem}.jpeg", suffix=".jpg"))
    assert job.output.name == "photo.jpg.jpeg"


@pytest.mark.parametrize("template", ["{what}", "{stem", "{0}", "sub/{stem}", "..", "{stem.x}", "{stem.__class__}"])
def test_impossible_templates(template: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        Naming(template=template)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("compact", "a_compact.png"),
        ("some/where/net.v2.pth", "a_net.v2.png"),
        ("a:0.7,b:0.3", "a_a-0.7-b-0.3.png"),
        ("compact+wiener", "a_compact+wiener.png"),
    ],
)
def test_models_in_names_are_names_on_every_system(tmp_path: Path, model: str, name: str) -> None:
    (job,) = plan([str(save(tmp_path / "a.png"))], None, X2, Naming(template="{stem}_{model}{ext}", model=model))
    assert job.output.name == name


def test_names_that_differ_in_case_only_are_one_where_the_system_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [str(save(tmp_path / "1" / "IMG.png")), str(save(tmp_path / "2" / "img.png"))]
    assert len(plan(sources, tmp_path / "out", X2, Naming())) == 2
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(OutputExists, match="and so would"):
        plan(sources, tmp_path / "out", X2, Naming())


def test_a_picture_that_is_named_twice_is_one(tmp_path: Path) -> None:
    source = save(tmp_path / "in" / "a.png")
    assert len(plan([str(source.parent), str(source)], tmp_path / "out", X2, Naming())) == 1


def test_an_empty_input_is_not_the_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="an input is empty"):
        plan([""], None, X2, Naming())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for output in (None, tmp_path / "b.png"):
        with pytest.raises(InputError, match=r"pipe\.png: is a pipe") as caught:
            plan([str(tmp_path / "pipe.png")], output, X2, Naming())
        assert "upscale -" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "hint"), [("b.jgp", ".jpg"), ("b.tga", ".png"), ("b.TIFFF", ".tiff"), ("b.pdf", ".png")]
)
def test_a_misspelt_file_is_no_folder(tmp_path: Path, name: str, hint: str) -> None:
    source = save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=f"{name}: cannot write") as caught:
        plan([str(source)], tmp_path / name, X2, Naming())
    assert hint in str(caught.value.hint)
    (tmp_path / name).mkdir()
    (job,) = plan([str(source)], tmp_path / name, X2, Naming())
    assert job.output == tmp_path / name / "a.png"


def test_results_in_the_folder_of_the_pictures_are_no_pictures_to_enlarge(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    source = save(folder / "a.png")
    naming = Naming(template="{stem}@2x{ext}")
    (job,) = plan([str(folder)], folder, X2, naming)
    save(job.output)
    journal = Journal(folder)
    journal.note(
        replace(journal.entry(job.output, "done", Source.of(source), ""), output_state=output_state(job.output) or ())
    )
    assert plan([str(folder)], folder, X2, naming) == [job]


@pytest.mark.parametrize("name", ["v1.2", "out.x4", "2026.11", "out.d"])
def test_folders_may_have_dots(tmp_path: Path, name: str) -> None:
    (job,) = plan([str(save(tmp_path / "a.png"))], tmp_path / name, X2, Naming())
    assert job.output == tmp_path / name / "a.png"


def test_a_format_that_is_not_that_of_the_file_is_refused(tmp_path: Path) -> None:
    source = str(save(tmp_path / "a.png"))
    with pytest.raises(UsageError, match=r"--format jpg: --output names a \.png file"):
        plan([source], tmp_path / "b.png", X2, Naming(suffix=".jpg"))
    (job,) = plan([source], tmp_path / "b.jpeg", X2, Naming(suffix=".jpg"))
    assert job.output == tmp_path / "b.jpeg"


def test_two_sources_of_one_result_are_refused_and_the_others_are_not(tmp_path: Path) -> None:
    names = ("one/a.png", "two/a.png", "two/b.png")
    sources = [str(save(tmp_path / name)) for name in names]
    with pytest.raises(OutputExists, match=r"one/a\.png: would become .*out/a\.png, and so would .*two/a\.png"):
        plan(sources, tmp_path / "out", X2, Naming())
    refused: list[Refused] = []
    (job,) = plan(sources, tmp_path / "out", X2, Naming(), refused=refused)
    assert job.output.name == "b.png"
    assert [each.name for each in refused] == sources[:2]


def test_a_result_of_someone_else_keeps_no_other_back(tmp_path: Path) -> None:
    sources = [str(save(tmp_path / name)) for name in ("a.png", "b.png")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").touch()
    refused: list[Refused] = []
    (job,) = plan(sources, tmp_path / "out", X2, Naming(), refused=refused)
    assert job.source.name == "b.png"
    assert [(each.name, each.error.message) for each in refused] == [
        (sources[0], f"{tmp_path / 'out' / 'a.png'}: exists already")
    ]


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(OutputExists, match="is an input"):
        plan([str(tmp_path)], tmp_path, X2, Naming(), force=True)


def test_limits_of_formats_are_found_before_work(tmp_path: Path) -> None:
    source = save(tmp_path / "wide.png", 1, 1000)
    with pytest.raises(UnsupportedFormat, match="17000x17 is more than the 16383 pixels that WEBP holds"):
        plan([str(source)], None, Target.parse("17"), Naming(suffix=".webp"))


def test_in_a_folder_what_changes_its_format_gives_way(tmp_path: Path) -> None:
    for name in ("a.png", "a.tga", "b.tga", "c.jpg", "c.webp"):
        save(tmp_path / "in" / name)
    jobs = plan([str(tmp_path / "in")], None, X2, Naming())
    assert [job.output.name for job in jobs] == ["a.png", "a.tga.png", "b.png", "c.jpg", "c.webp"]
    jobs = plan([str(tmp_path / "in")], None, X2, Naming(suffix=".png"))
    assert [job.output.name for job in jobs] == ["a.png", "a.tga.png", "b.png", "c.jpg.png", "c.webp.png"]


@pytest.mark.parametrize(
    ("output", "template", "names"),
    [
        (None, None, ["a_x2.png", "a.jpg_x2.png"]),
        ("out", None, ["a.png", "a.jpg.png"]),
        ("out", "{stem}_big{ext}", ["a_big.png", "a.jpg_big.png"]),
        ("out", "{stem}_big.png", ["a_big.png", "a.jpg_big.png"]),
        ("out", "big", []),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["files", "folder"])
def test_names_are_told_apart_where_there_is_room_for_it(
    tmp_path: Path, output: str | None, template: str | None, names: list[str], whole: bool
) -> None:
    sources = [str(save(tmp_path / "in" / name)) for name in ("a.png", "a.jpg")]
    if whole and output is None:
        names = ["a.png", "a.jpg.png"]
    refused: list[Refused] = []
    inputs = [str(tmp_path / "in")] if whole else sources
    folder = None if output is None else tmp_path / output
    jobs = plan(inputs, folder, X2, Naming(template=template, suffix=".png"), refused=refused)
    assert sorted(job.output.name for job in jobs) == sorted(names)
    assert len(refused) == 2 - len(names)


def test_results_of_a_link_to_a_folder_lie_beside_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "real" / "a.png")
    (tmp_path / "place").mkdir()
    try:
        (tmp_path / "place" / "photos").symlink_to(tmp_path / "real", target_is_directory=True)
    except OSError:
        pytest.skip("links need rights here")
    monkeypatch.chdir(tmp_path / "place")
    (job,) = plan(["photos"], None, X2, Naming())
    assert job.output == Path("photos_x2/a.png")
    monkeypatch.chdir("photos")
    (job,) = plan(["."], None, X2, Naming())
    assert job.output == tmp_path / "real_x2" / "a.png"


def test_beside_the_root_of_all_folders_there_is_none() -> None:
    root = Path.cwd().anchor
    with pytest.raises(InputError, match="no folder beside it") as caught:
        plan([root], None, X2, Naming())
    assert "--output" in str(caught.value.hint)


def test_in_a_folder_one_that_is_too_much_has_no_size(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", 4, 4)
    save(tmp_path / "in" / "b.png", 100, 50)
    wide = Target.parse("400", Measure.LONG)
    jobs = plan([str(tmp_path / "in")], None, wide, Naming())
    assert [job.result_size(wide) for job in jobs] == [None, (400, 200)]


def test_the_limit_of_enlargement_is_found_before_work(tmp_path: Path) -> None:
    source = save(tmp_path / "small.png")
    with pytest.raises(InputError, match="enlarged 1000 times"):
        plan([str(source)], None, Target.parse("10000", Measure.WIDTH), Naming())


def test_a_name_that_is_too_long_keeps_no_other_back(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / f"{'b' * 251}.png")
    jobs = plan([str(tmp_path / "in")], tmp_path / "out", X2, Naming(suffix=".webp"))
    assert len(jobs) == 2
    refused: list[Refused] = []
    jobs = plan([f"{'c' * 300}.png", str(tmp_path / "in" / "a.png")], None, X2, Naming(), refused=refused)
    assert [job.source.name for job in jobs] == ["a.png"]
    assert "too long" in str(refused[0].error)
