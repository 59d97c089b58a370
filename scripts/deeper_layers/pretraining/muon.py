"""The Muon optimizer (Jordan et al., 2024), fast on any CPU."""

from __future__ import annotations

from collections import defaultdict

import torch

# Keller Jordan's quintic Newton-Schulz iteration and its momentum, as in torch.optim.Muon.
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM, EPS = 0.95, 1e-7


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` in float32 with all matrices of one shape in one batch.

    torch's own multiplies in bfloat16, one matrix after the other: on a CPU without bfloat16 instructions
    that is two thirds of a training step of the embedded model.
    """

    def __init__(self, matrices, lr: float, weight_decay: float):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes = defaultdict(list)
            for matrix in group["params"]:
                shapes[matrix.shape].append(matrix)
            for (rows, columns), matrices in shapes.items():
                updates = orthogonal(torch.stack([self._momentum(matrix) for matrix in matrices]))
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(updates), alpha=-rate)

    def _momentum(self, matrix: torch.Tensor) -> torch.Tensor:
        """Nesterov's momentum of the gradient."""
        state, gradient = self.state[matrix], matrix.grad
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Of each matrix [many, rows, columns], nearly the closest with all singular values equal to one."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
