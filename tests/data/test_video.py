import pickle
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from objcentric.data import video
from objcentric.errors import UserError
from tests.data import videos


@pytest.fixture(scope="module")
def cv2():
    return pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'objcentric[video]'")


@pytest.fixture
def frames():
    """Twelve frames 48x32 whose red says which they are, green and blue where a pixel is."""
    out = np.zeros((12, 32, 48, 3), np.uint8)
    out[..., 0] = 20 * np.arange(12)[:, None, None]
    out[..., 1], out[..., 2] = 4 * np.arange(32)[:, None], 4 * np.arange(48)
    return out


@pytest.fixture
def avi(cv2, frames, tmp_path):
    file = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (48, 32))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return file


def assert_near(a, b):
    np.testing.assert_allclose(np.int32(a), np.int32(b), atol=12)  # JPEG


def test_a_file(avi, frames):
    opened = video.open(avi)
    assert (opened.num_frames, opened.height, opened.width, opened.rate) == (12, 32, 48, 10)
    np.testing.assert_array_equal(opened.numbers, np.arange(1, 13))
    for _ in range(2):  # it can be gone through again
        assert_near(list(opened), frames)
    assert_near(list(opened.frames([1, 4, 5, 11])), frames[[1, 4, 5, 11]])
    assert next(iter(opened)).dtype == np.uint8


def test_a_folder_is_ordered_by_number(frames, tmp_path):
    folder = videos.save_folder(tmp_path / "a", frames, "cam2_{}.png")
    (folder / "cam2_12.png").rename(folder / "cam2_30.PNG")
    (folder / "notes.txt").write_text("no frame")
    (folder / "._cam2_1.png").write_text("what some systems leave behind")
    opened = video.open(str(folder))
    assert (opened.num_frames, opened.height, opened.width, opened.rate) == (12, 32, 48, None)
    np.testing.assert_array_equal(opened.numbers, [*range(1, 12), 30])
    np.testing.assert_array_equal(list(opened), frames)
    np.testing.assert_array_equal(list(opened.frames([0, 9, 11])), frames[[0, 9, 11]])


def test_grey_images_and_those_with_a_palette_become_colour(frames, tmp_path):
    folder = videos.save_folder(tmp_path / "a", frames[:1])
    Image.fromarray(frames[1, ..., 1]).save(folder / "2.png")
    Image.fromarray(frames[2]).convert("P").save(folder / "3.png")
    _, grey, palette = video.open(folder)
    np.testing.assert_array_equal(grey, np.repeat(frames[1, ..., 1:2], 3, -1))
    assert palette.shape == (32, 48, 3)


def test_frames_are_read_when_they_are_asked_for(frames, tmp_path):
    folder = videos.save_folder(tmp_path / "a", frames)
    opened = video.open(folder)
    (folder / "000008.png").write_bytes(b"damaged")
    reading = iter(opened)
    np.testing.assert_array_equal([next(reading) for _ in range(7)], frames[:7])
    with pytest.raises(UserError, match="cannot read .*000008.png"):
        next(reading)
    assert len(list(opened.frames([6, 8]))) == 2


def test_other_processes_can_read(avi, frames, tmp_path):
    folder = videos.save_folder(tmp_path / "a", frames)
    for path in (avi, folder):
        assert_near(list(pickle.loads(pickle.dumps(video.open(path)))), frames)


@pytest.mark.parametrize("indices", [[3, 2], [1, 1], [-1, 0], [12]])
def test_indices_that_do_not_rise_or_do_not_exist(frames, tmp_path, indices):
    opened = video.open(videos.save_folder(tmp_path / "a", frames))
    with pytest.raises(ValueError, match="must rise, within 0 to 11"):
        list(opened.frames(indices))
    assert list(opened.frames([])) == []


def test_a_sequence_of_motchallenge_may_lack_frames(frames, tmp_path):
    folder = videos.save_mot(tmp_path / "a", frames, np.zeros((12, 0, 4), int))
    (folder / "img1" / "000002.png").unlink()
    opened = video.open(folder)
    np.testing.assert_array_equal(opened.numbers, [1, *range(3, 13)])
    np.testing.assert_array_equal(list(opened), frames[[0, *range(2, 12)]])


def test_a_sequence_whose_frames_were_scaled(frames, tmp_path):
    folder = videos.save_mot(tmp_path / "a", frames, np.zeros((12, 0, 4), int))
    file = folder / "seqinfo.ini"
    file.write_text(file.read_text().replace("imWidth=48", "imWidth=96"))
    with pytest.raises(UserError, match="frames are 48x32, seqinfo.ini says 96x32"):
        video.open(folder)


def test_a_sequence_without_frames(frames, tmp_path):
    folder = videos.save_mot(tmp_path / "a", frames, np.zeros((12, 0, 4), int))
    shutil.rmtree(folder / "img1")
    with pytest.raises(UserError, match="there is no folder .*img1"):
        video.open(folder)


def test_images_of_several_sizes(frames, tmp_path):
    folder = videos.save_folder(tmp_path / "a", frames[:3])
    Image.fromarray(frames[2, :, :40]).save(folder / "000003.png")
    with pytest.raises(UserError, match="frame 3 is 40x32, not 48x32 as the first one") as error:
        list(video.open(folder))
    assert "\n" not in str(error.value)


def test_folders_that_are_no_video(frames, tmp_path):
    with pytest.raises(UserError, match="there is no .*missing"):
        video.open(tmp_path / "missing")
    folder = tmp_path / "a"
    folder.mkdir()
    with pytest.raises(UserError, match="holds no images"):
        video.open(folder)
    Image.fromarray(frames[0]).save(folder / "1.png")
    Image.fromarray(frames[0]).save(folder / "01.jpg")
    with pytest.raises(UserError, match="01.jpg and 1.png have one number"):
        video.open(folder)
    Image.fromarray(frames[0]).save(folder / "first.png")
    (folder / "01.jpg").unlink()
    with pytest.raises(UserError, match="first.png has no number in its name"):
        video.open(folder)


def test_images_of_16_bits(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        video.open(tmp_path)


def test_files_that_are_no_video(cv2, avi, frames, tmp_path):
    content = avi.read_bytes()
    for name, bad, message in (
        ("junk.avi", b"0" * 1000, "it holds no frame that OpenCV can read"),
        ("empty.mp4", b"", "it holds no frame that OpenCV can read"),
        ("notes.txt", b"some text\n" * 100, "it is text"),
        ("cut.avi", content[: int(0.8 * len(content))], r"it ends after \d+ of 12 frames"),
    ):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(UserError, match=f"cannot use .*{name}: {message}") as error:
            video.open(tmp_path / name)
        assert "\n" not in str(error.value)
    Image.fromarray(frames[0]).save(tmp_path / "000001.png")
    with pytest.raises(UserError, match="is one image: give the folder"):
        video.open(tmp_path / "000001.png")


def test_a_file_that_became_shorter(avi):
    opened = video.open(avi)
    avi.write_bytes(avi.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"it ends after \d+ of 12 frames"):
        list(opened)


@pytest.mark.parametrize("ending", ["gif", "mp4", "avi"])
def test_a_video_that_was_written_is_read(frames, tmp_path, ending):
    if ending != "gif":
        pytest.importorskip("cv2")
    path = tmp_path / f"own.{ending}"
    with video.writer(path, 10.0) as write:
        for frame in frames:
            write(frame)
    if ending == "gif":
        with Image.open(path) as image:
            assert image.n_frames == len(frames) and image.info["duration"] == 100
            first = np.asarray(image.convert("RGB"))
    else:
        opened = video.open(path)
        assert opened.num_frames == len(frames)
        first = next(iter(opened))
    assert np.mean(np.abs(first.astype(float) - frames[0])) < 12


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(UserError, match="name it .mp4, .avi or .gif"), video.writer(tmp_path / "own.webm", 10.0):
        pass


def test_without_opencv_images_are_read_and_videos_name_the_extra(frames, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert video.open(videos.save_folder(tmp_path / "a", frames)).num_frames == 12
    (tmp_path / "a.avi").write_bytes(b"")
    with pytest.raises(UserError, match=r"pip install 'objcentric\[video\]'"):
        video.open(tmp_path / "a.avi")


def test_real_clip(cv2, data_dir):
    file = data_dir / "kth" / "person01_jogging_d1_uncomp.avi"
    if not file.is_file():
        pytest.skip(f"real data: there is no {file}")
    opened = video.open(file)
    assert (opened.num_frames, opened.height, opened.width) == (415, 120, 160)
    first, last = opened.frames([0, 414])
    assert first.std() > 5 and (first != last).any()
