import functools
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from objcentric.data import frames
from objcentric.errors import UserError
from tests.data import videos

SIZE = (16, 48)  # of the store; a third and a half of the images'


def image(number):
    """One that tells its number, with edges everywhere."""
    noise = np.random.default_rng(number).integers(0, 256, (videos.HEIGHT, videos.WIDTH, 3), np.uint8)
    noise[0] = number
    return noise


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two folders of images, one longer than a worker takes at a time, and a cache of them."""
    folder = tmp_path_factory.mktemp("world")
    long = videos.save_folder(folder / "long", [image(number) for number in range(1, 71)])
    (long / "000070.png").rename(long / "000080.png")
    short = videos.save_folder(folder / "short", [image(number)[:24] for number in (1, 2)])
    return types.SimpleNamespace(long=long, short=short, cache=str(folder / "cache"))


@pytest.fixture(scope="module")
def prepared(world):
    return frames.prepare([world.long, world.short, world.long], SIZE, cache_dir=world.cache)


@pytest.fixture
def once(monkeypatch):
    """From here on nothing may be decoded."""
    monkeypatch.setattr(frames, "_decode", lambda *arguments: pytest.fail("frames were decoded"))


def by_hand(frame, size, mode="RGB"):
    return np.asarray(Image.fromarray(frame).convert(mode).resize(size[::-1], Image.Resampling.BOX))


def test_frames_are_those_of_the_video(prepared):
    long, short, again = prepared
    np.testing.assert_array_equal(long.numbers, [*range(1, 70), 80])
    assert (long.height, long.width, short.height, short.width) == (48, 96, 24, 96)
    assert (long.pixels.shape, short.pixels.shape) == ((70, *SIZE, 3), (2, *SIZE, 3))
    np.testing.assert_array_equal(long.pixels, [by_hand(image(number), SIZE) for number in range(1, 71)])
    np.testing.assert_array_equal(short.pixels, [by_hand(image(number)[:24], SIZE) for number in (1, 2)])
    np.testing.assert_array_equal(again.pixels, long.pixels)


def test_frames_are_not_in_memory(prepared):
    for one in prepared:
        assert isinstance(one.pixels, np.memmap) and one.pixels.mode == "r" and one.pixels.dtype == np.uint8
    with pytest.raises(ValueError):
        prepared[0].pixels[0] = 0


def test_resizing_takes_the_mean():
    frame = image(3)
    mean = frame.reshape(16, 3, 48, 2, 3).mean((1, 3))
    np.testing.assert_allclose(frames.resize(frame, (16, 48, 3)), mean, atol=1.01)
    np.testing.assert_array_equal(frames.resize(frame, (48, 96, 3)), frame)
    grey = frames.resize(frame, (16, 48, 1))
    np.testing.assert_array_equal(grey[..., 0], by_hand(frame, SIZE, "L"))
    np.testing.assert_allclose(grey[..., 0], mean @ [0.299, 0.587, 0.114], atol=1.6)
    larger = frames.resize(np.array([[[0] * 3, [200] * 3]], np.uint8), (1, 8, 3))
    np.testing.assert_array_equal(larger[0, :, 0], [0, 0, 25, 75, 125, 175, 200, 200])


def test_nothing_is_decoded_twice(world, prepared, once):
    same = frames.prepare([world.long, world.short], SIZE, cache_dir=world.cache)
    for first, again in zip(prepared[:2], same, strict=True):
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size, grey", [((16, 47), False), (SIZE, True)])
def test_other_settings_are_other_frames(world, prepared, once, size, grey):
    with pytest.raises(pytest.fail.Exception, match="were decoded"):
        frames.prepare([world.short], size, grey=grey, cache_dir=world.cache)


def test_other_files_are_decoded_and_grey(world, tmp_path):
    folder = shutil.copytree(world.short, tmp_path / "a")
    (one,) = frames.prepare([folder], SIZE, grey=True, cache_dir=str(tmp_path))
    np.testing.assert_array_equal(one.pixels[..., 0], [by_hand(image(number)[:24], SIZE, "L") for number in (1, 2)])
    (folder / "000002.png").unlink()
    (other,) = frames.prepare([folder], SIZE, grey=True, cache_dir=str(tmp_path))
    np.testing.assert_array_equal(other.pixels, one.pixels[:1])


def test_files_of_videos(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'objcentric[video]'")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 48))
    for shade in range(0, 140, 2):
        writer.write(np.full((48, 96, 3), shade, np.uint8))
    writer.release()
    (one,) = frames.prepare([tmp_path / "a.avi"], SIZE, grey=True, cache_dir=str(tmp_path))
    np.testing.assert_array_equal(one.numbers, range(1, 71))
    np.testing.assert_allclose(one.pixels.mean((1, 2, 3)), range(0, 140, 2), atol=2)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "cannot read .*000065.png, it may be cut off"),
        (lambda file: Image.new("RGB", (96, 47)).save(file), "frame 65 is 96x47, not 96x48 as the first one"),
    ],
)
def test_errors_of_workers(world, tmp_path, spoil, message):
    folder = shutil.copytree(world.long, tmp_path / "a")
    spoil(folder / "000065.png")
    with pytest.raises(UserError, match=message) as error:
        frames.prepare([world.short, folder], SIZE, cache_dir=str(tmp_path / "cache"))
    assert "\n" not in str(error.value)
    left = [path.name for path in (tmp_path / "cache" / "frames").iterdir()]
    assert all(name.startswith("short") for name in left)  # what was complete is kept, and nothing else


def test_a_video_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no .*nowhere: give a video"):
        frames.prepare([tmp_path / "nowhere"], SIZE, cache_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["frames.npy", "about.json"])
@pytest.mark.parametrize("spoil", [lambda file: os.truncate(file, file.stat().st_size - 9), lambda file: file.unlink()])
def test_damaged_stores(world, prepared, tmp_path, name, spoil):
    shutil.copytree(world.cache, tmp_path / "cache")
    (folder,) = (tmp_path / "cache" / "frames").glob("long*")
    spoil(folder / name)
    with pytest.raises(UserError, match=f"prepared data in {folder} are damaged .*delete that folder") as error:
        frames.prepare([world.long], SIZE, cache_dir=str(tmp_path / "cache"))
    assert "\n" not in str(error.value)


def test_frames_of_another_shape_are_damage(world, prepared, tmp_path):
    shutil.copytree(world.cache, tmp_path / "cache")
    (folder,) = (tmp_path / "cache" / "frames").glob("long*")
    np.save(folder / "frames.npy", prepared[0].pixels[:69])
    with pytest.raises(UserError, match="are damaged .*shape"):
        frames.prepare([world.long], SIZE, cache_dir=str(tmp_path / "cache"))


def test_a_disk_that_takes_no_more(world, tmp_path):
    source = frames.video.open(world.short)
    with pytest.raises(UserError, match="cannot write .*name another folder by data.cache_dir"):
        frames._write(tmp_path / "a" / "frames.npy", 128, source, range(2), (*SIZE, 3))


def test_a_worker_that_is_ended(world, tmp_path, monkeypatch):
    die = functools.partial(os.execlp, "false")  # in place of opening a video, the process becomes another program
    monkeypatch.setattr(frames, "video", types.SimpleNamespace(open=die))
    with pytest.raises(UserError, match="a process that decodes frames was ended") as error:
        frames.prepare([world.short], SIZE, cache_dir=str(tmp_path))
    assert "\n" not in str(error.value)


def test_another_process_may_be_faster(tmp_path):
    aside, folder = tmp_path / "aside", tmp_path / "there"
    for path in (aside, folder):
        path.mkdir()
        (path / "file").touch()
    frames._move(aside, folder)
    with pytest.raises(UserError, match="cannot write"):
        frames._move(aside, tmp_path / "nowhere" / "there")


def test_workers_import_little():
    script = "import sys, objcentric.data.frames; sys.exit('jax' in sys.modules or 'ml_collections' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0
