"""What a removal check says of the outputs of retrained models."""

import numpy as np
import pytest

from trak.analysis import RemovalCheck


def test_changes_are_against_the_model_of_the_same_seed():
    outputs = np.array([[1.0, 3.0], [-1.0, 0.0], [1.5, 3.5], [0.0, 3.0]])
    found = RemovalCheck(0, 5, -2.0, outputs, outputs > 0)
    assert found.change == -2.5
    assert found.standard_error == pytest.approx(0.5)
    np.testing.assert_allclose(found.random_changes, [0.5, -0.5])
    assert found.flipped
    assert found.random_flips == 0.5
    unknown = RemovalCheck(0, 5, -2.0, outputs, None)
    assert unknown.flipped is unknown.random_flips is None
    assert "flip" not in str(unknown)


def test_a_prediction_that_was_wrong_before_is_not_said_to_stand():
    outputs = np.array([[-1.0, -3.0], [-2.0, -4.0], [-1.0, -3.0]])
    assert "the prediction was wrong already, and stays so (right in 0%" in str(
        RemovalCheck(0, 5, -2.0, outputs, outputs > 0)
    )
    assert "the prediction does not flip" in str(RemovalCheck(0, 5, -2.0, -outputs, -outputs > 0))


def test_one_seed_and_one_random_set_are_said_to_have_no_spread():
    outputs = np.array([[1.0, 3.0], [-1.0, 0.0], [1.5, 3.5], [0.0, 3.0]])
    found = str(RemovalCheck(0, 5, -2.0, outputs[:3, :1], None))
    assert "without random ones +0.500, one set)" in found
    assert found.endswith("one seed: how much of this is its noise is not known, take seeds=5")
    assert "one s" not in str(RemovalCheck(0, 5, -2.0, outputs, None))


def test_what_the_output_was_before_is_said_of_the_retrained_models_and_of_those_attributed():
    outputs = np.array([[1.0, 3.0], [-1.0, 0.0], [1.5, 3.5]])
    assert "changes by -2.500 ± 0.500 from +2.000 (predicted -2.000; " in str(RemovalCheck(0, 5, -2.0, outputs, None))
    assert "± 0.500 from +2.000, with the attributed models +0.500 (predicted -2.000; " in str(
        RemovalCheck(0, 5, -2.0, outputs, None, 0.5)
    )
