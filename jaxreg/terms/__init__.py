"""Terms of a loss beyond weights: what is penalised of activations, functions, samples.

A term is a value as a penalty is one: its strength is a leaf, goes through grids and sweeps, and is
printed. The loss calls it with what it has, and returns (data loss, {name: term}); `Trainer` trains on
their sum and records each apart.
"""

from jaxreg.terms._base import Term
from jaxreg.terms.activations import (
    activity_l1,
    activity_l2,
    center,
    covariance,
    kl_sparsity,
    tar,
    top_k,
    variance,
)
from jaxreg.terms.functions import between, curvature, gradient_penalty, jacobian, lipschitz, r1
from jaxreg.terms.latent import (
    capacity,
    committed_rate,
    effective_beta,
    free_bits,
    kl,
    kl_ar,
    kl_bernoulli,
    kl_categorical,
    kl_normal,
    mmd,
    total_correlation,
)
from jaxreg.terms.predictions import adversarial, confidence, consistency, entropy

__all__ = [
    "Term",
    "activity_l1",
    "activity_l2",
    "adversarial",
    "between",
    "capacity",
    "center",
    "committed_rate",
    "confidence",
    "consistency",
    "covariance",
    "curvature",
    "effective_beta",
    "entropy",
    "free_bits",
    "gradient_penalty",
    "jacobian",
    "kl",
    "kl_ar",
    "kl_bernoulli",
    "kl_categorical",
    "kl_normal",
    "kl_sparsity",
    "lipschitz",
    "mmd",
    "r1",
    "tar",
    "top_k",
    "total_correlation",
    "variance",
]
