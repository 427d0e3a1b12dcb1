"""The minimiser of the probes: it finds the minimum, and lets go of the threads that it took."""

import pytest
import torch

from caco_assets.downstream.probes.lbfgs import minimize


@pytest.mark.parametrize("products", [1, 1 << 30], ids=["small", "large"])
def test_the_minimum_of_a_bowl(products: int) -> None:
    scale, place = torch.logspace(0, 2, 20), torch.linspace(-1, 1, 20)
    weights = torch.zeros(20, requires_grad=True)
    minimize([weights], lambda: (scale * (weights - place).square()).sum(), 200, products)
    torch.testing.assert_close(weights.detach(), place, atol=1e-3, rtol=0)


def test_threads_are_those_of_before_also_when_the_loss_fails() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)

    def loss() -> torch.Tensor:
        assert torch.get_num_threads() == 1
        raise ArithmeticError

    try:
        with pytest.raises(ArithmeticError):
            minimize([torch.zeros(1, requires_grad=True)], loss, 1, products=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
