"""What a notebook shows: tables as HTML, pictures with one line, no leftovers of a progress bar."""

import sys

import numpy as np
import pytest

import jaxreg as jr
from jaxreg.sweeps.watch import progress

GRID = jr.grid(
    lambda lam, lr: {"reg": jr.l2(lam) + jr.l1(0.1), "lr": lr}, lam=[0.1, 1], lr=[0.01, 0.1]
)
RESULT = jr.SweepResult.of(GRID, valid=[[0.5, 0.7], [0.4, 0.6], [0.3, 0.4], [0.6, 0.6]])


def test_a_result_is_its_table():
    html = RESULT._repr_html_()
    assert html == RESULT.table()._repr_html_()
    assert html.count("<tr>") == 5


def test_a_grid_and_a_choice_are_tables():
    html = GRID._repr_html_()
    assert "<caption>4 x {lr, reg: l2 + l1}</caption>" in html
    assert html.count("<tr>") == 5
    many = jr.grid(jr.l2, lam=np.geomspace(1e-3, 1, 50))
    assert many._repr_html_().count("<tr>") == 11
    chosen = RESULT.best()._repr_html_()
    assert "chosen by min" in chosen
    assert '<td style="text-align:right">0.35 ± 0.05</td>' in chosen


def test_a_penalty_is_a_line_for_each_term():
    assert (jr.l2(0.1) + jr.l1(0.5).on("a<b"))._repr_html_() == (
        "<code>l2(0.1)</code><br><code>l1(0.5).on(path(&#x27;a&lt;b&#x27;))</code>"
    )
    assert jr.Zero()._repr_html_() == "<code>Zero()</code>"


@pytest.mark.parametrize("draw", ["plot", "plot_parallel", "plot_learning_curves"])
def test_pictures_have_one_line(draw):
    text = repr(getattr(RESULT, draw)())
    assert "\n" not in text
    assert "Display" in text
    assert len(text) < 120


def test_a_bar_that_has_ended_goes_in_a_notebook_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: name)
    assert progress._bar("", 1, 1)[0].live.transient
    monkeypatch.delitem(sys.modules, "ipykernel")
    assert not progress._bar("", 1, 1)[0].live.transient
