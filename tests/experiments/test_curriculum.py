import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import curriculum
from objcentric.errors import UserError


def lengths(first_frames: int, steps: tuple[int, ...], num_frames: int) -> dict[int, int]:
    """Length of sequences by first step."""
    config = ConfigDict({"first_frames": first_frames, "steps": steps})
    stages = curriculum.stages(config, num_frames, lambda batch, length: batch[:, :length])
    return {stage.first: stage.batch(np.zeros((2, num_frames))).shape[1] for stage in stages}


def test_sequences_become_longer_in_equal_parts():
    assert lengths(2, (10, 30), 10) == {0: 2, 10: 6, 30: 10}


def test_stages_as_long_as_the_one_before_are_left_out():
    assert lengths(3, tuple(range(10, 80, 10)), 5) == {0: 3, 20: 4, 60: 5}
    assert lengths(5, (), 5) == {0: 5}


@pytest.mark.parametrize(
    ("first_frames", "steps", "said"),
    [
        (6, (2,), "curriculum.first_frames=6: use 1 to 5, the frames of a sequence"),
        (0, (2,), "curriculum.first_frames=0: use 1 to 5"),
        (3, (), r"curriculum.steps=\(\) never shows whole sequences: set curriculum.first_frames=5"),
        (3, (3, 9), r"curriculum.steps=\(3, 9\): whole sequences come after train.num_steps=9"),
        (3, (3, 3), "use ascending steps"),
        (3, (0, 3), "use ascending steps, the first above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(first_frames, steps, said):
    with pytest.raises(UserError, match=said):
        curriculum.check(ConfigDict({"first_frames": first_frames, "steps": steps}), 5, 9)
