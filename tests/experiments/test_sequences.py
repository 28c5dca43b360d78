import numpy as np

from experiments import sequences


def test_sequences_worth_showing_are_not_black():
    image = np.zeros((5, 2, 3, 3, 1), np.uint8)
    for i in (1, 3, 4):
        image[i, 1, 2, 2] = i
    assert sequences.worth_showing(image, 2).max((1, 2, 3, 4)).tolist() == [1, 3]
    assert sequences.worth_showing(image, 4).max((1, 2, 3, 4)).tolist() == [0, 1, 3, 4]
    assert len(sequences.worth_showing(image, 9)) == 5
