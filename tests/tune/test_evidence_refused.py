"""What has no evidence, or would have a wrong one in silence, is refused in words."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.evidences import X, Y, half_square, linear, ridge, solved, swept

import jaxreg as jr
from jaxreg.tune import _evidence
from jaxreg.tune.evidence import evidence


def refused(message, outputs: Any = linear, result: Any = None, data=(X, Y), **options: Any):
    given: dict[str, Any] = {"likelihood": "gaussian"} | options
    with pytest.raises((TypeError, ValueError), match=message):
        evidence(outputs, result or solved(), data, **given)


def test_penalties_that_are_no_gaussian_prior():
    made = lambda reg: swept(
        jr.grid(lambda lam: reg(lam), lam=[0.1]), 2, (X, Y), half_square, lambda k: jnp.zeros(4)
    )
    refused(r"the penalty l1\(0.1\) is no quadratic", result=made(jr.l1))
    refused(
        r"the penalty huber\(0.1.*is no quadratic",
        result=made(lambda lam: jr.l2(1.0) + jr.huber(lam, 0.1)),
    )
    pairs = lambda lam: jr.l2(lam).of(_differences)
    refused(r"\.of\(_differences\) is no quadratic with one curvature", result=made(pairs))


def _differences(w):
    return w[1:] - w[:-1]


def test_a_loss_that_is_not_the_likelihood():
    huber = lambda w, x, y: jnp.mean(optax.huber_loss(x @ w, y, delta=0.5))
    refused(
        "must give the loss that was trained, as a mean negative log likelihood of 'gaussian'",
        result=ridge(20, loss=huber),
    )
    refused(
        "must give the loss that was trained, as a mean negative log likelihood of 'gaussian'",
        data=(X, Y[::-1]),
    )
    refused(
        "must give the loss that was trained, as a mean negative log likelihood",
        outputs=lambda w, x: x @ w + 1,
    )
    refused(
        "the same outputs alone as among the others", outputs=lambda w, x: x @ w - jnp.mean(x @ w)
    )


def test_arguments():
    refused("`likelihood` must be one of", likelihood="normal")
    refused("`noise` must be a standard deviation above 0, got 0", noise=0)
    refused("`noise` must be a standard deviation", noise="x")
    refused("`noise` is of the likelihood 'gaussian'", noise=1.0, likelihood="poisson")
    refused("`outputs` must be a function", outputs=3)
    refused(
        "`outputs` must return one number or one row of numbers for each of the 30",
        outputs=lambda w, x: jnp.mean(x),
    )
    refused("the targets in `data` must be integers from 0", likelihood="categorical")
    refused("the targets in `data` must be counts of at least 0", likelihood="poisson")
    refused(r"`data` must be a pair, \(X, y\), such as was trained on, got 3 parts", data=(X, Y, Y))
    refused("`penalty` must be a function point -> penalty", penalty=jr.l2(0.1))
    refused("`penalty` must return a penalty", penalty=lambda point: 3)
    refused("`batch_size` must be an integer between 1 and the 30", batch_size=31)
    refused("`result` must be a SweepResult", result="path")
    refused(
        "must be trained on all rows of `data`, and got 3 folds",
        result=ridge(2, validation=None, folds=3),
    )
    refused("`result` must hold parameters, got none", result=ridge(2, keep_params=False))
    refused(
        "got one with weights, whose loss is no mean negative log likelihood",
        result=ridge(2, sample_weight=(np.ones(30), np.ones(2))),
    )


def test_noise_without_a_maximum():
    zeros = np.zeros(30, np.float32)
    refused(
        "it has no maximum: the outputs are the targets", result=ridge(5, y=zeros), data=(X, zeros)
    )


def test_a_determinant_that_is_too_large(monkeypatch):
    monkeypatch.setattr(_evidence, "_MOST_BYTES", 300.0)
    refused("the determinant of 30 outputs of all rows by 4 parameters needs matrices")
