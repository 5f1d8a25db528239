"""The gallery shows every demo, with its command, its time, an animation where there is one, in small files."""

import re

import pytest
from located import ROOT

import demos.__main__ as command
from docs.gallery import LIMIT, main, smaller_film, wanted

PAGE = (ROOT / "docs/gallery.md").read_text("utf-8")
GALLERY = ROOT / "docs/images/gallery"


def test_every_demo_is_shown_with_its_command_and_its_time():
    names = list(command.find(command.FOLDER))
    assert (
        re.findall(r"^\| \[.*?\]\(#.*?\) \| `python -m demos (\w+)` \| \d+ s.*? \| \d+ s \|$", PAGE, re.MULTILINE)
        == names_in_order()
    )
    assert sorted(names_in_order()) == names


def names_in_order():
    return re.findall(r"^```sh\npython -m demos (\w+)\n```$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", names_in_order())
def test_the_pictures_that_a_demo_draws_are_shown(name):
    """All that its script names, but its digest for the README and what only an option draws."""
    script = (ROOT / f"demos/{name}.py").read_text("utf-8")
    drawn = set(re.findall(r'"(\w+\.(?:png|gif))"', script)) - {f"{name}.png"}
    assert {path.partition("/")[2] for path in wanted(PAGE) if path.startswith(f"{name}/")} == drawn


def test_the_files_are_those_of_the_page_and_small():
    files = {path.relative_to(GALLERY).as_posix(): path.stat().st_size for path in GALLERY.rglob("*") if path.is_file()}
    assert sorted(files) == sorted(wanted(PAGE)) and len(set(wanted(PAGE))) == len(wanted(PAGE))
    assert max(files.values()) < LIMIT


def test_a_film_keeps_its_first_and_last_frame_and_its_length(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="the pictures are made smaller by Pillow")
    frames = [image.new("L", (8, 8), 60 * k) for k in range(4)]
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=[100, 100, 100, 900])
    smaller_film(tmp_path / "in.gif", tmp_path / "out.gif")
    seen = []
    with image.open(tmp_path / "out.gif") as film:
        for k in range(film.n_frames):
            film.seek(k)
            seen.append((film.size, film.convert("L").getpixel((0, 0)), film.info["duration"]))
    assert seen == [((4, 4), 0, 200), ((4, 4), 120, 200), ((4, 4), 180, 900)]


def test_a_picture_that_a_run_lacks_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(tmp_path)
