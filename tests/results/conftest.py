"""What all tests of pictures need: no warning, and no figure left open."""

import warnings

import matplotlib as mpl
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt


@pytest.fixture
def no_warnings_and_figures_closed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")
