"""Trackers at work on videos, from the folder of a run."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import objcentric
from experiments import hart
from objcentric import tracker
from objcentric.data import mot, video
from objcentric.errors import UserError
from objcentric.models import hart as model
from objcentric.nn.appearance import read_weights, write_weights
from objcentric.training import loop
from objcentric.training.restore import restore_run
from tests.experiments import videos


def hasty(experiment):
    """``experiment`` without what takes long after training."""
    return experiment._replace(figures=lambda *_: {}, evaluate=lambda *_, final: {"mean_iou": 0.0})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("runs") / "mohart", videos.make_data()
    config = videos.make_config(train__num_steps=2, curriculum__steps=(), curriculum__first_frames=5)
    loop.run(config, folder, lambda config: hasty(hart.build(config, data=data)))
    kept = functools.cache(lambda: restore_run(folder, functools.partial(tracker.skeleton, load=False)))

    def read(path, build):
        """As `restore_run`, which takes seconds: this run is read once."""
        return kept() if Path(path) == folder else restore_run(path, build)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracker, "restore_run", read)
        yield folder


FRAMES = videos.make_split(1, 3)["image"][0]
SIZES = {name: tuple(v) if isinstance(v, list | tuple) else v for name, v in videos.make_config().model.items()}
SIZES = {name: value for name, value in SIZES.items() if name not in ("tracker", "v1_weights")}
BOXES = videos.make_split(1, 3)["boxes"][0, 0, :2]


def test_it_agrees_with_the_model(run):
    tracked = objcentric.track(FRAMES, BOXES, run)
    restored = restore_run(run, tracker.skeleton)
    made, _ = tracker.make(restored.config, 2)
    follow = jax.jit(functools.partial(model.follow, made), static_argnums=1)
    seen = follow(restored.params["tracker"], None, FRAMES.astype(np.float32) / 255, BOXES, np.ones(2, np.float32))
    np.testing.assert_allclose(tracked.boxes, seen.boxes, atol=1e-3)
    assert tracked.boxes.shape == (5, 2, 4) and tracked.presence.shape == (5, 2)
    np.testing.assert_allclose(tracked.presence[1:], jax.nn.sigmoid(seen.presence[1:]), atol=1e-5)


def test_boxes_are_in_pixels_of_the_video_whatever_its_size(run):
    small = objcentric.track(FRAMES, BOXES, run)
    double = np.repeat(np.repeat(FRAMES, 2, 1), 2, 2)
    np.testing.assert_allclose(objcentric.track(double, 2 * BOXES, run).boxes, 2 * small.boxes, atol=1e-2)


def test_a_run_that_predicts_later_frames_does_not_track(monkeypatch):
    monkeypatch.setattr(tracker, "restore_run", lambda *_: SimpleNamespace(config=videos.make_toy()))
    with pytest.raises(UserError, match="toy predicts 1 frames ahead: give a run with task.ahead=0"):
        objcentric.track(FRAMES, BOXES, "runs/toy")


def test_corners_are_in_order(run, monkeypatch):
    """Whatever a tracker, which need not order them, says."""

    def make(config, num):
        made, canvas = model_of(config, num)

        def step(*arguments):
            state, seen = made.step(*arguments)
            return state, seen._replace(boxes=seen.boxes[:, [2, 1, 0, 3]])

        return made._replace(step=step), canvas

    model_of, right = tracker.make, objcentric.track(FRAMES, BOXES, run).boxes
    monkeypatch.setattr(tracker, "make", make)
    np.testing.assert_array_equal(objcentric.track(FRAMES, BOXES, run).boxes, right)
    assert (right[..., 2:] >= right[..., :2]).all()


def test_joint_relations_are_of_as_many_objects_as_in_training():
    config = videos.make_config(model__relation="mlp")
    with pytest.raises(UserError, match="model.relation='mlp' was made for 3 objects: give as many boxes"):
        tracker.make(config, 2)


@pytest.mark.parametrize(
    ("fields", "rate", "step"),
    [({}, 30, 1), ({"frame_step": 2}, None, 2), ({"max_rate": 25.0}, 30, 2), ({"max_rate": 25.0}, None, 1)],
)
def test_steps_are_those_of_training(tmp_path, fields, rate, step):
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "hart", "data": fields}))
    assert tracker.learnt_step(tmp_path, rate) == step


def test_any_number_of_objects(run):
    for num in (1, 2):
        assert objcentric.track(FRAMES, BOXES[:num], run).boxes.shape == (5, num, 4)


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([[0, 0, np.nan, 5]], "box 1 of 1, .* has a corner that is no number"),
        ([[0, 0, 5, 5], [3, 3, 3, 8]], "box 2 of 2, .* has no area"),
        ([[8, 3, 3, 8]], "has no area: y1 and x1 must be larger"),
        ([[30, 3, 35, 8]], "lies outside the frame, whose height and width are"),
        ([[5, 5, 5.5, 10]], "has less than a pixel in the frame, whose height and width are"),
        ([[1, 2, 3, 4], [1, 2]], "boxes are no array of numbers"),
        ([["a", 2, 3, 4]], "boxes are no array of numbers"),
        ([1, 2, 3, 4], r"boxes have shape \(4,\): give \[N, 4\]"),
        (np.zeros((0, 4)), "of one object or more"),
    ],
)
def test_useless_boxes_are_refused(run, boxes, said):
    with pytest.raises(UserError, match=said):
        objcentric.track(FRAMES, boxes, run)


def test_boxes_are_cut_off_at_the_border():
    np.testing.assert_array_equal(tracker.check_boxes([[-3, 2, 5, 30]], (16, 20)), [[0, 2, 5, 20]])


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "there is no frame"),
        ([FRAMES[0], FRAMES[1][:8]], r"a frame has height and width \(8, 20\), the first one \(16, 20\)"),
        ([FRAMES[0].astype(float)], "a frame is float64"),
        ([FRAMES[0][..., 0]], r"of shape \(16, 20\): give uint8 \[H, W, 3\]"),
    ],
)
def test_useless_frames_are_refused(run, frames, said):
    with pytest.raises(UserError, match=said):
        objcentric.track(frames, BOXES, run)


def test_runs_of_other_experiments_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        objcentric.track(FRAMES, BOXES, tmp_path)
    (tmp_path / "config.json").write_text('{"experiment": "air"}')
    with pytest.raises(UserError, match="the run is one of air: give one of configs/mohart.py"):
        objcentric.track(FRAMES, BOXES, tmp_path)


@pytest.fixture
def folder(tmp_path):
    """The video as a folder of frames, and its boxes as a file."""
    (tmp_path / "video").mkdir()
    for t, frame in enumerate(FRAMES, 1):
        Image.fromarray(frame).save(tmp_path / "video" / f"{t:06}.png")
    np.savetxt(tmp_path / "boxes.txt", BOXES)
    return tmp_path


@pytest.mark.parametrize("ending", [".gif", ".avi"])
def test_the_command_writes_an_annotated_video(run, folder, ending, capsys):
    if ending != ".gif":
        pytest.importorskip("cv2")
    output = folder / "out" / f"tracked{ending}"
    arguments = [f"--run={run}", f"--video={folder / 'video'}", f"--boxes={folder / 'boxes.txt'}", f"--output={output}"]
    assert tracker.main(arguments) == 0
    assert "2 objects in 5 frames" in capsys.readouterr().out
    if ending == ".gif":
        with Image.open(output) as image:
            assert image.n_frames == 5 and image.size == (20, 16)
            first = np.asarray(image.convert("RGB"))
        y, x = BOXES[0, :2].astype(int)
        assert first[y, x].max() > 100 and (first[y, x] != FRAMES[0][y, x]).any()  # the box was drawn
    else:
        assert video.open(output).num_frames == 5
    rows = np.loadtxt(output.with_suffix(".txt"), delimiter=",")
    assert rows.shape == (10, 10)
    y0, x0, y1, x1 = BOXES[0]
    np.testing.assert_allclose(rows[0], [1, 1, x0 + 1, y0 + 1, x1 - x0, y1 - y0, 1, -1, -1, -1], atol=0.01)
    read = mot.read_boxes(output.with_suffix(".txt"))  # which they are to be read as
    assert read.frame.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_the_command_begins_with_the_ground_truth_of_a_sequence(run, folder, capsys):
    (folder / "video" / "gt").mkdir()
    lines = [f"1,{i},{b[1] + 1},{b[0] + 1},{b[3] - b[1]},{b[2] - b[0]},1,-1,-1,-1" for i, b in enumerate(BOXES, 1)]
    (folder / "video" / "gt" / "gt.txt").write_text("\n".join(lines))
    info = "[Sequence]\nname=v\nimDir=img\nframeRate=5\nseqLength=5\nimWidth=20\nimHeight=16\nimExt=.png\n"
    (folder / "video" / "seqinfo.ini").write_text(info)
    (folder / "video" / "img").mkdir()
    for file in (folder / "video").glob("*.png"):
        file.rename(folder / "video" / "img" / file.name)
    output = folder / "tracked.gif"
    assert tracker.main([f"--run={run}", f"--video={folder / 'video'}", f"--output={output}"]) == 0
    assert "2 objects" in capsys.readouterr().out
    with Image.open(output) as image:
        assert image.info["duration"] == 200  # ms: the sequence's rate


def test_boxes_have_the_numbers_of_their_frames(run, folder):
    """Of a video whose numbers begin late and leave a gap."""
    for t, number in zip((5, 4, 3, 2, 1), (19, 18, 12, 11, 10), strict=True):
        (folder / "video" / f"{t:06}.png").rename(folder / "video" / f"{number:06}.png")
    arguments = [f"--run={run}", f"--video={folder / 'video'}", f"--boxes={folder / 'boxes.txt'}"]
    assert tracker.main([*arguments, f"--output={folder / 'tracked.gif'}"]) == 0
    rows = np.loadtxt(folder / "tracked.txt", delimiter=",")
    assert rows[::2, 0].tolist() == [10, 11, 12, 18, 19]
    assert tracker.main([*arguments, f"--output={folder / 'thin.gif'}", "--frame_step=2"]) == 0
    thin = np.loadtxt(folder / "thin.txt", delimiter=",")
    assert thin[::2, 0].tolist() == [10, 12, 19]
    boxes = objcentric.track(FRAMES[::-1][::2], BOXES, run).boxes
    np.testing.assert_allclose(thin[:2, 2], boxes[0, :, 1] + 1, atol=0.01)


def test_a_run_whose_v1_began_with_a_file_does_not_need_it(tmp_path):
    """Nor does what is written of its V1 differ from it."""
    params = jax.jit(model.make(model.Config((16, 20, 3), 3, **SIZES)).init)(jax.random.key(3))
    write_weights(tmp_path / "v1.npz", params["v1"])
    config = videos.make_config(train__num_steps=2, curriculum__steps=(), curriculum__first_frames=5)
    config.model.v1_weights = str(tmp_path / "v1.npz")
    loop.run(config, tmp_path / "run", lambda config: hasty(hart.build(config, data=videos.make_data())))
    (tmp_path / "v1.npz").unlink()
    assert np.isfinite(objcentric.track(FRAMES, BOXES, tmp_path / "run").boxes).all()
    tracker.export_v1(tmp_path / "run", tmp_path / "learnt")
    learnt = read_weights(tmp_path / "learnt", params["v1"])
    with pytest.raises(UserError, match="cannot write .*nowhere.* choose another file"):
        tracker.export_v1(tmp_path / "run", tmp_path / "nowhere" / "learnt.npz")
    held = restore_run(tmp_path / "run", lambda config: tracker.skeleton(config, load=False)).params["tracker"]["v1"]
    jax.tree.map(np.testing.assert_array_equal, learnt, held)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"boxes": "1 2 3"}, "holds no lines `y0 x0 y1 x1`"),
        ({"boxes": "a b c d"}, "write a line `y0 x0 y1 x1`"),
        ({"boxes": " "}, "holds no lines `y0 x0 y1 x1`"),
        ({"output": "boxes.gif"}, "boxes.txt would be written, but is read"),
        ({"step": -1}, "--frame_step=-1: use 1 or more"),
        ({"step": 0}, "--frame_step=0: use 1 or more"),
        ({"boxes": None}, "has no ground truth to begin with: give --boxes=FILE"),
        ({"output": "tracked.webm"}, "name it .mp4, .avi or .gif"),
        ({"video": "nothing"}, "there is no"),
    ],
)
def test_mistakes_are_one_line(run, folder, change, said, capsys):
    if change.get("boxes"):
        (folder / "boxes.txt").write_text(change["boxes"])
    boxes = [] if "boxes" in change and change["boxes"] is None else [f"--boxes={folder / 'boxes.txt'}"]
    source, output = folder / change.get("video", "video"), folder / change.get("output", "tracked.gif")
    more = [f"--frame_step={change['step']}"] if "step" in change else []
    assert tracker.main([f"--run={run}", f"--video={source}", f"--output={output}", *boxes, *more]) == 2
    assert "boxes" in change or np.loadtxt(folder / "boxes.txt").shape == (2, 4)
    error = capsys.readouterr().err
    assert said in error and error.startswith("objcentric: ") and error.count("\n") == 1
