"""Muon: gradient descent with momentum whose steps are made orthogonal.

Source: Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024).
"""

import torch


def orthogonal(matrix, rounds=5):
    """Nearly the closest semi-orthogonal matrix, by a quintic Newton-Schulz iteration."""
    x = matrix / (matrix.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    if transposed:
        x = x.T
    for _ in range(rounds):
        a = x @ x.T
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """For the matrices and kernels of hidden layers alone."""

    def __init__(self, parameters, lr=0.02, momentum=0.95, weight_decay=0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                moving = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                # Kernels of convolutions count as matrices [out, in · height · width].
                update = orthogonal(p.grad.lerp(moving, group["momentum"]).flatten(1))
                scale = max(1, update.shape[0] / update.shape[1]) ** 0.5
                update = update.reshape(p.shape)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale)
