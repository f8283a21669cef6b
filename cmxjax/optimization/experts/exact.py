"""The exact optimum of small cases as a mixed-integer linear program."""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import Bounds, LinearConstraint, milp


def exact(
    load: Float[np.ndarray, " expert"],
    devices: int,
    per_device: int,
    time_limit_s: float = 60.0,
) -> tuple[float, Int[np.ndarray, "device slot"]]:
    r"""Least load of the slowest device, over the mean, and a slot table that has it.

    With z[e, k] = 1 where expert e has k replicas and x[e, k, d] of them on device d,
    the load is linear: minimize m with $\sum_{e,k} (l_e / k)\, x_{ekd} \le m$,
    $\sum_d x_{ekd} = k z_{ek}$, $\sum_k z_{ek} = 1$, $\sum_{ek} x_{ekd} =$ slots.

    Raises:
        ArithmeticError: the solver didn't prove an optimum within the time.
    """
    experts, spare = len(load), devices * per_device - len(load)
    most = spare + 1
    nx, nz = experts * most * devices, experts * most
    size = nx + nz + 1
    x = np.arange(nx).reshape(experts, most, devices)
    z = nx + np.arange(nz).reshape(experts, most)
    rows, low, high = [], [], []

    def add(columns, values, at_least: float, at_most: float) -> None:
        row = np.zeros(size)
        row[columns] = values
        rows.append(row)
        low.append(at_least)
        high.append(at_most)

    share = np.broadcast_to(
        load[:, None, None] / np.arange(1, most + 1)[None, :, None], x.shape
    )
    for d in range(devices):
        busy = np.append(share[:, :, d].ravel(), -1.0)
        add(np.append(x[:, :, d].ravel(), size - 1), busy, -np.inf, 0.0)
        add(x[:, :, d].ravel(), 1.0, float(per_device), float(per_device))
    for e in range(experts):
        add(z[e], 1.0, 1.0, 1.0)
        for k in range(most):
            add(np.append(x[e, k], z[e, k]), [1.0] * devices + [-(k + 1.0)], 0.0, 0.0)
    objective = np.zeros(size)
    objective[-1] = 1.0
    upper = np.full(size, float(per_device))
    upper[nx : nx + nz], upper[-1] = 1.0, np.inf
    kind = np.ones(size)
    kind[-1] = 0.0
    result = milp(
        objective,
        constraints=LinearConstraint(np.array(rows), low, high),  # pyright: ignore
        integrality=kind,
        bounds=Bounds(0.0, upper),  # pyright: ignore
        options={"time_limit": time_limit_s, "mip_rel_gap": 1e-6},
    )
    if result.status != 0:
        raise ArithmeticError(f"no proven optimum: {result.message}")
    held = np.round(result.x[:nx]).astype(int).reshape(x.shape).sum(axis=1)
    table = np.stack([np.repeat(np.arange(experts), held[:, d]) for d in range(devices)])
    return float(result.fun) * devices / float(load.sum()), table
