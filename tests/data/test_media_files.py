"""From names to files: spellings, and everything a name can lead to that is no file to read."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import ImageError, VideoError
from m3router.data.images import open_image
from m3router.data.media_files import _listed_once, file_digest, file_in, find_file, open_file
from m3router.data.videos import open_video

NFC, NFD = (unicodedata.normalize(form, "Caf\u00e9 \u00c5ngstr\u00f6m") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("disk", "asked"), [(NFC, NFD), (NFD, NFC)])
def test_composed_and_decomposed_names_are_equal(tmp_path, disk, asked):
    folder = tmp_path / disk / "plain" / disk
    folder.mkdir(parents=True)
    Image.new("RGB", (2, 2), "red").save(folder / f"{disk}.png")
    name = f"{asked}/plain/{asked}/{asked}.png"
    found = file_in(tmp_path, name)
    assert found == folder / f"{disk}.png"
    assert open_image(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)
    assert file_digest(tmp_path / name) == hashlib.sha256(found.read_bytes()).hexdigest()


def test_the_exact_name_comes_first(tmp_path):
    for name, colour in ((NFC, "red"), (NFD, "blue")):
        Image.new("RGB", (2, 2), colour).save(tmp_path / f"{name}.png")
    assert open_image(tmp_path / f"{NFC}.png").getpixel((0, 0)) == (255, 0, 0)
    assert open_image(tmp_path / f"{NFD}.png").getpixel((0, 0)) == (0, 0, 255)


def test_a_half_composed_name_is_found_and_a_new_file_is_noticed(tmp_path):
    mixed = "\u00e9e\u0301.png"
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / mixed)
    Image.new("RGB", (2, 2)).save(tmp_path / unicodedata.normalize("NFD", mixed))
    assert open_image(tmp_path / mixed).size == (2, 2)
    assert open_image(tmp_path / unicodedata.normalize("NFC", mixed)).size == (2, 2)


def test_a_folder_is_listed_once_for_many_missing_names(tmp_path):
    for number in range(200):
        (tmp_path / f"{number}\u00e9.png").touch()
    os.utime(tmp_path, (1, 1))
    before = _listed_once.cache_info().misses
    for number in range(200, 400):
        assert find_file(tmp_path / f"{number}\u00e9.png").name == f"{number}\u00e9.png"
    assert _listed_once.cache_info().misses == before + 1


def test_other_names_are_left_as_they_are(tmp_path):
    (tmp_path / "CAFE.png").touch()
    (tmp_path / "\ufb01le.png").touch()  # a ligature is equal in NFKC only
    for name in ("cafe.png", "Caf\u00e9.png", "file.png", "none/\u00e9/\u00e9.png"):
        assert find_file(tmp_path / name) == tmp_path / name
    assert find_file(Path("\u00e9.png")) == Path("\u00e9.png")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1))
def test_a_missing_name_comes_back_unchanged(name):
    path = Path("/nowhere") / name
    assert find_file(path) == path


def strange(folder: Path) -> dict[str, str]:
    """Names in a folder that cannot be read, with the cause."""
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket"))
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "none")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "memory").symlink_to("/proc/self/mem")
    (folder / "text").write_text("text")
    return {
        "folder": "it is a folder",
        ".": "it is a folder",
        "folder/..": "it is a folder",
        "empty": "the file is empty",
        "memory": "the file is empty",
        "pipe": "it is a named pipe",
        "socket": "it is a socket",
        "loop": "leads back to itself",
        "loop/a": "leads back to itself",
        "dangling": "a symbolic link to a file that does not exist",
        "device": "it is a device",
        "none": "no such file",
        "text/a": "no such file",
        "x" * 300: "too long",
        "\u00e9" * 200: "too long",
        "a\ud800": "cannot be read",
        "nul\0": "NUL",
    }


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path):
    for name, cause in strange(tmp_path).items():
        path = tmp_path / name
        for read, kind, error in (
            (open_image, "Image", ImageError),
            (open_video, "Video", VideoError),
            (file_digest, "Image", ImageError),
        ):
            with pytest.raises(error, match=cause) as caught:
                read(path)
            assert str(caught.value).startswith(f"{kind} {path} cannot be read: ")


@pytest.mark.parametrize("name", ["", " ", "../a.png", "/etc/passwd", "a/../../b", "C:\\a", "a\0"])
def test_a_path_outside_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ImageError, match="cannot be used: it "):
        file_in(tmp_path, name)


READ = """
import os
import sys
from pathlib import Path
import av
from PIL import Image
from m3router.data.errors import ImageError
from m3router.data.media_files import file_digest
from m3router.data.videos import open_media
Image.init()
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for name in sys.argv[1:]:
    for read in (open_media, file_digest):
        try:
            read(Path(name))
        except ImageError as error:
            print(error)
"""


def test_files_of_others_are_told():
    """As another user where this one may read everything."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "closed").mkdir()
        Image.new("RGB", (2, 2)).save(folder / "a.png")
        (folder / "a.mp4").write_bytes(b"x")
        paths = [folder / "a.png", folder / "a.mp4", folder / "closed" / "b.png"]
        for path in (*paths[:2], folder / "closed"):
            path.chmod(0)
        root = str(Path(__file__).resolve().parents[2])
        told = subprocess.run(
            [sys.executable, "-c", READ, *map(str, paths)],
            env=os.environ | {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            cwd=root,
        )
        (folder / "closed").chmod(0o700)
    assert told.stderr == ""
    lines = told.stdout.splitlines()
    assert len(lines) == 6 and all(line.endswith("permission denied.") for line in lines)


def test_videos_are_found_by_either_spelling(tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        open_video(tmp_path / f"{NFC}.mp4")
    (tmp_path / f"{NFD}.mp4").touch()
    with pytest.raises(VideoError, match="the file is empty"):
        open_video(tmp_path / f"{NFC}.mp4")


def test_an_image_in_place_of_its_name_is_told_briefly(tmp_path: Path) -> None:
    url, bare = "data:image/png;base64," + "iVBO" * 50_000, "iVBO" * 50_000
    with pytest.raises(ImageError, match="is a data URL") as told:
        file_in(tmp_path, url)
    assert len(str(told.value)) < 400
    with pytest.raises(ImageError, match="too long") as told:
        open_file(file_in(tmp_path, bare))
    assert "characters)" in str(told.value) and len(str(told.value)) < 400
