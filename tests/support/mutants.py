"""Right penalties, and wrong ones: bugs that libraries of the field have had, or one letter away."""

import jax
import jax.numpy as jnp

import jaxreg as jr
from jaxreg.value import static_field


def wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class L1(jr.Elementwise):
    """A right penalty, for the mutants to spoil."""

    smooth, convex = False, True

    def rho(self, x):
        return jnp.where(x == 0, 0, jnp.abs(x))

    def prox_rho(self, x, threshold):
        return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)

    def kink(self):
        return 1.0


class Square(jr.Elementwise):
    """lam * sum x^2 / 2."""

    smooth, convex = True, True

    def rho(self, x):
        return 0.5 * x**2

    def prox_rho(self, x, threshold):
        return x / (1 + threshold)


class Group(jr.LeafPenalty):
    """lam * |leaf|_2."""

    lam: float
    smooth, convex = False, True

    def norm(self, x):
        square = jnp.sum(x**2)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

    def leaf_value(self, x):
        return self.lam * self.norm(x)

    def leaf_prox(self, x, step):
        if step.ndim:
            raise ValueError("only scalar steps")
        return self.shrunk(x, self.norm(x), step * self.lam)

    def shrunk(self, x, norm, threshold):
        return x * jnp.maximum(1 - threshold / jnp.where(norm > 0, norm, 1), 0)


class L0(jr.Elementwise):
    """lam * number of nonzeros: right, and not convex."""

    smooth, convex = False, False

    def rho(self, x):
        return (x != 0).astype(x.dtype)

    def prox_rho(self, x, threshold):
        return jnp.where(x**2 > 2 * threshold, x, 0)


class Box(jr.LeafPenalty):
    """|x| <= 1 as a constraint."""

    smooth, convex = False, True

    def leaf_value(self, x):
        return jnp.where(jnp.all(jnp.abs(x) <= 1), 0.0, jnp.inf)

    def leaf_prox(self, x, step):
        return jnp.clip(x, -1, 1)


# Bugs of the field.


class RidgeOfTheDocstring(Square):
    """The docstring says x^2, the code returns the prox of x^2 / 2."""

    def rho(self, x):
        return x**2


class GroupWithoutJacobian(Group):
    """The norm's derivative at 0 is NaN, and so is the prox's."""

    def shrunk(self, x, norm, threshold):
        norm = jnp.linalg.norm(x)
        return jnp.where(norm > 0, x * jnp.maximum(1 - threshold / norm, 0), 0 * x)


class FloatsOnly(L1):
    """`type(lam) == float` takes arrays for something else."""

    def leaf_prox(self, x, step):
        return self.prox_rho(x, step * self.lam) if type(self.lam) is float else x

    def on_leaves(self, params):
        for path, x, _ in super().on_leaves(params):
            yield path, x, self


class ZeroOverZero(Group):
    """Strength 0 on a zero group is relu(1 - 0/0)."""

    def shrunk(self, x, norm, threshold):
        return x * jax.nn.relu(1 - threshold / norm)


class GroupAcrossLeaves(Group):
    """The value counts each leaf, the prox takes the norm of all of them."""

    def prox(self, params, step):
        norm = jnp.sqrt(sum(jnp.sum(wide(x) ** 2) for x in params.values()))
        factor = jnp.maximum(1 - step * self.lam / jnp.where(norm > 0, norm, 1), 0)
        return jax.tree.map(lambda x: (x * factor).astype(x.dtype), params)


class UnguardedMCP(jr.Elementwise):
    """Firm thresholding taken beyond step = gamma, where it is no minimiser."""

    gamma: float = 2.0
    smooth, convex = False, False

    def coefficient(self):
        return jnp.ones(())

    def rho(self, x):
        size = jnp.minimum(jnp.where(x == 0, 0, jnp.abs(x)), self.gamma * self.lam)
        return size * (self.lam - size / (2 * self.gamma))

    def prox_rho(self, x, threshold):
        shrunk = jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold * self.lam, 0)
        firm = shrunk / (1 - threshold / self.gamma)
        return jnp.where(jnp.abs(x) > self.gamma * self.lam, x, firm)


class NoGradient(Square):
    """A term that is in the value printed and not in the gradient."""

    def rho(self, x):
        return 0.5 * x**2 + 0.1 * jax.lax.stop_gradient(x**2)


class AbsOfJax(L1):
    """jax has grad(abs)(0) = 1."""

    def rho(self, x):
        return jnp.abs(x)


class NormOfJax(Group):
    """jax has grad(norm)(0) = NaN."""

    def norm(self, x):
        return jnp.linalg.norm(x)


class NaNAtZeroGroup(Group):
    """The direction of a zero group is 0/0."""

    def shrunk(self, x, norm, threshold):
        return x / norm * jnp.maximum(norm - threshold, 0)


class SignedOrthogonality(jr.LeafPenalty):
    """The sum of signed inner products, instead of their sizes."""

    lam: float
    smooth, convex = True, False

    def leaf_value(self, x):
        gram = x.T @ x
        return self.lam * jnp.sum(jnp.triu(gram, 1))

    def leaf_prox(self, x, step):
        raise ValueError("no prox")


class WeightsDivide(L1):
    """The prox divides by weights, which may be 0."""

    def leaf_prox(self, x, step):
        weights = jnp.ones(()) if self.weights is None else self.weights
        return self.prox_rho(x / weights, step * self.lam) * weights


class ForcedToFloat(L1):
    """A strength made a Python number, which a traced one cannot be."""

    def leaf_prox(self, x, step):
        return self.prox_rho(x, step * float(self.lam))


# One letter away.


class HalfConfused(Square):
    def prox_rho(self, x, threshold):
        return x / (1 + 2 * threshold)


class ThresholdOff(L1):
    def prox_rho(self, x, threshold):
        return super().prox_rho(x, 1.001 * threshold)


class HardThresholdOff(L0):
    def prox_rho(self, x, threshold):
        return jnp.where(x**2 > 2.002 * threshold, x, 0)


class WideDtype(Square):
    def prox(self, params, step):
        return jax.tree.map(wide, super().prox(params, step))


class NarrowSum(jr.LeafPenalty):
    """The sum of a bfloat16 leaf, taken in bfloat16."""

    lam: float
    smooth, convex = True, True

    def leaf_value(self, x):
        raise NotImplementedError

    def leaf_prox(self, x, step):
        return x / (1 + step * self.lam)

    def __call__(self, params):
        sums = [jnp.sum(x**2) for x in jax.tree.leaves(params)]
        return 0.5 * self.lam * wide(sum(sums))


class StaticLam(jr.LeafPenalty):
    lam: float = static_field()
    smooth, convex = True, True

    def leaf_value(self, x):
        return 0.5 * self.lam * jnp.sum(x**2)

    def leaf_prox(self, x, step):
        return x / (1 + step * self.lam)


class Validates(Square):
    def __post_init__(self):
        if self.lam < 0:
            raise ValueError("negative")


class ReprOfNumbers(Square):
    def __repr__(self):
        return f"square({float(self.lam)})"


class LeakyPrefix(jr.Penalty):
    """Says that it touches the kernel only, and shrinks everything."""

    lam: float
    smooth, convex = True, True

    def __call__(self, params):
        return 0.5 * self.lam * jnp.sum(wide(params["kernel"]) ** 2)

    def prox(self, params, step):
        return jax.tree.map(lambda x: (x / (1 + step * self.lam)).astype(x.dtype), params)

    def support(self, params):
        return [False, True]


class MaxOfNothing(jr.LeafPenalty):
    lam: float
    smooth, convex = False, True

    def leaf_value(self, x):
        return self.lam * jnp.max(jnp.where(x == 0, 0, jnp.abs(x)))

    def leaf_prox(self, x, step):
        raise ValueError("no prox")


class Overflows(Group):
    """The square of 1e30 is inf in float32, and inf/inf is NaN."""

    def shrunk(self, x, norm, threshold):
        return x * (jnp.maximum(norm - threshold, 0) / jnp.where(norm > 0, norm, 1))


class NotSmooth(L1):
    smooth = True


class NotConvex(L0):
    convex = True


class StepRooted(L1):
    def leaf_prox(self, x, step):
        return self.prox_rho(x, jnp.sqrt(step) * self.lam)


class DeafToLam(Square):
    def coefficient(self):
        return jax.lax.stop_gradient(super().coefficient())


class Springs(L1):
    def prox_rho(self, x, threshold):
        return super().prox_rho(x, threshold) * (1 + jnp.minimum(threshold, 1))


class MeanStep(L1):
    def leaf_prox(self, x, step):
        return self.prox_rho(x, jnp.mean(step) * self.lam)


class ShyBox(Box):
    def leaf_prox(self, x, step):
        return jnp.clip(x, -1 / (1 + step), 1 / (1 + step))


class HalfConjugate(Square):
    def leaf_conjugate(self, dual):
        return jnp.sum(dual**2) / self.lam


class SlackCertificate(L1):
    def kink(self):
        return 0.9


class LazyCertificate(L1):
    """Right about what is stationary, and else forgets to take off the reach of the kink."""

    def leaf_subgradient(self, x, grad):
        moving = grad + self.lam * jnp.sign(x)
        held = jnp.abs(grad) <= self.lam * (1 + 1e-6)
        return jnp.where((x == 0) & held, 0, moving)


class TwiceLambdaMax(L1):
    def leaf_lambda_max(self, grad):
        return 2 * super().leaf_lambda_max(grad)


@jax.custom_batching.custom_vmap
def _mean_threshold(x, threshold):
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


@_mean_threshold.def_vmap
def _(size, batched, x, threshold):
    del size, batched
    shrunk = jnp.maximum(jnp.abs(x) - 1.5 * jnp.max(threshold), 0)
    return jnp.sign(x) * shrunk, True


class BatchesWrong(L1):
    def prox_rho(self, x, threshold):
        return _mean_threshold(x, jnp.broadcast_to(threshold, x.shape))


class Kinked(jr.Elementwise):
    """A penalty of one's own that says no more than it must."""

    smooth, convex = False, True

    def rho(self, x):
        return jnp.abs(x)

    def prox_rho(self, x, threshold):
        return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


class SquaresItsThreshold(L1):
    """A second-order term that cancels, and overflows far out."""

    def prox_rho(self, x, threshold):
        return super().prox_rho(x, threshold + 0 * threshold**2)
