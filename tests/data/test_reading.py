from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigain.data import BadImageWarning, load
from bigain.images import BadImageError, read_image, to_rgb


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def whole() -> bytes:
    return png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        whole()[:200],
        whole()[:-200],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    ],
    ids=["empty", "text", "header only", "cut short", "a format that starts a program"],
)
def test_what_is_no_image_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImageError, match=r"holiday\.jpg must be a readable image: ."):
        read_image(path, str(path))
    with pytest.raises(BadImageError, match="row 7 must be a readable image"):
        read_image(content, "row 7")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"gone must be a readable image, not missing"):
        read_image(tmp_path / "gone.png", "gone")


def test_an_image_larger_than_is_safe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImageError, match=r"bomb must be a readable image: .*exceeds limit"):
        read_image(whole(), "bomb")


def test_bytes_and_file_decode_alike_and_may_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(whole())
    image = read_image(tmp_path / "a.png", "a")
    np.testing.assert_array_equal(image, read_image(whole(), "a"))
    assert image.flags.writeable


def test_greyscale_of_16_bits_keeps_its_upper_8() -> None:
    levels = np.array([[0, 255, 256], [0x1234, 40_000, 65_535]], dtype=np.uint16)
    image = read_image(png(Image.fromarray(levels)), "a")
    np.testing.assert_array_equal(image, np.repeat((levels // 256).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_greyscale_without_a_known_range_is_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match="greyscale must have 8 or 16 bits, not 32"):
        to_rgb(Image.fromarray(np.ones((2, 2), dtype)))


def test_an_animation_gives_its_first_frame() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (3, 3), (level, level, level)) for level in (255, 0)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert read_image(buffer.getvalue(), "a").min() == 255


def test_a_pipe_a_folder_a_device_and_a_socket_are_refused_by_name_instead_of_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to(os.devnull)
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        for kind in ("pipe", "folder", "device", "socket"):
            path = tmp_path / f"{kind}.png"
            with pytest.raises(BadImageError, match=rf"{kind}\.png must be a readable image, not a {kind}"):
                read_image(path, str(path))


def test_a_name_that_cannot_be_looked_up_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"long must be a readable image"):
        read_image(tmp_path / ("x" * 5_000), "long")


def test_a_pipe_among_a_folders_images_is_skipped_or_named_but_never_waited_for(save_image, tmp_path: Path) -> None:
    save_image("animals/cat/a.png")
    os.mkfifo(tmp_path / "animals/cat/x.png")
    data = load(tmp_path / "animals", image_size=16)
    with pytest.raises(BadImageError, match=r"cat/x\.png must be a readable image, not a pipe"):
        list(data)
    with pytest.warns(BadImageWarning, match=r"cat/x\.png"):
        assert [item.id for item in load(tmp_path / "animals", image_size=16, on_bad_image="skip")] == ["cat/a.png"]
