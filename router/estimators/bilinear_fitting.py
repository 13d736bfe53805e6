"""Fits a `BilinearNetwork` with torch, which only fitting needs.

Notation for shapes: as in `m3router.router.estimators.bilinear`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats, Validation, column_moments, inverse, row_blocks
from m3router.router.estimators.bilinear_network import BilinearNetwork, standardised, view_slices

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From outputs and scores, both (N, K), to the loss of each example (N,)."""

RESIDUAL_DECAY = 10.0
"""How much stronger the penalty on what tells options apart is than on what they share."""

FEWEST_BATCHES = 16
"""Batches that a pass over few examples is cut into at least, where they have 8 or more."""


@dataclass(frozen=True, kw_only=True)
class FittingPlan:
    """How networks are fitted; see `BilinearEstimator` for the meaning of the entries."""

    rank: int
    hidden: int
    dropout: float
    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    patience: int
    members: int
    seed: int
    threads: int


def plan_of(estimator: object) -> FittingPlan:
    """The plan that an estimator's hyper-parameters describe.

    Raises:
        DataError: when one makes no sense.
    """
    plan = FittingPlan(**{one.name: getattr(estimator, one.name) for one in fields(FittingPlan)})
    whole = ("rank", "hidden", "batch_size", "epochs", "patience", "members", "threads")
    wrong = [name for name in whole if getattr(plan, name) < 1]
    wrong += ["dropout"] if not 0 <= plan.dropout < 1 else []
    wrong += ["learning_rate"] if not plan.learning_rate > 0 else []
    wrong += ["weight_decay"] if not plan.weight_decay >= 0 else []
    if wrong:
        raise DataError(
            f"A network needs counts of at least 1, a dropout in [0, 1), a positive learning rate "
            f"and no negative decay; {wrong[0]} is {getattr(plan, wrong[0])}."
        )
    return plan


def cross_entropy(outputs: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the options of each example, (N,), in nats."""
    cells = functional.binary_cross_entropy_with_logits(outputs, Y, reduction="none")
    return cells.mean(dim=1)


def pairwise(outputs: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """Logistic loss of the order of each example's options, (N,).

    For every pair of options, log(1 + exp(-(u_j - u_k))) where j is right and k is wrong (Burges
    et al., RankNet, ICML 2005). A score between 0 and 1 counts as that share of right answers,
    so that the pair weighs y_j (1 - y_k) one way and y_k (1 - y_j) the other: the difference of
    the two is that of the scores. A further option of utility 0 and score 1/2 takes part, so
    that utilities have a zero point: u_k > 0 says "more likely right than wrong", and a single
    option can be learned too.
    """
    nothing = outputs.new_zeros(len(outputs), 1)
    u, y = torch.cat([outputs, nothing], dim=1), torch.cat([Y, nothing + 0.5], dim=1)
    first, second = torch.triu_indices(u.shape[1], u.shape[1], offset=1)
    margin = u[:, first] - u[:, second]
    ahead, behind = y[:, first] * (1 - y[:, second]), y[:, second] * (1 - y[:, first])
    loss = ahead * functional.softplus(-margin) + behind * functional.softplus(margin)
    return loss.mean(dim=1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "pairwise": pairwise}


class _Net(nn.Module):
    """One member: standardised features (N, D) to outputs (N, K)."""

    def __init__(self, plan: FittingPlan, widths: tuple[int, ...], start: Floats) -> None:
        super().__init__()
        self.views, self.dropout = view_slices(widths), plan.dropout
        self.projections = nn.ModuleList(
            nn.Linear(view.stop - view.start, plan.rank) for view in self.views
        )
        pairs = len(self.views) * (len(self.views) - 1) // 2
        self.hidden = nn.Linear(plan.rank * (len(self.views) + pairs), plan.hidden)
        self.shared = nn.Linear(plan.hidden, 1, bias=False)
        self.residual = nn.Linear(plan.hidden, len(start), bias=False)
        self.thresholds = nn.Parameter(torch.as_tensor(start, dtype=torch.float32))

    def forward(self, Z: torch.Tensor) -> torch.Tensor:
        Z = functional.dropout(Z, self.dropout / 2, self.training)
        seen = [one(Z[:, view]) for one, view in zip(self.projections, self.views, strict=True)]
        parts = [functional.relu(u) for u in seen]
        parts += [a * b for a, b in itertools.combinations(seen, 2)]
        inside = functional.dropout(torch.cat(parts, dim=1), self.dropout, self.training)
        hidden = functional.relu(self.hidden(inside))
        hidden = functional.dropout(hidden, self.dropout, self.training)
        return self.shared(hidden) + self.residual(hidden) + self.thresholds


def fit_network(
    X: Floats,
    Y: Floats,
    weights: Floats,
    *,
    plan: FittingPlan,
    widths: tuple[int, ...],
    start: Floats,
    loss: Loss,
    validation: Validation | None,
) -> BilinearNetwork:
    """Fit `plan.members` networks from different seeds and join them.

    Args:
        X: (N, D); may be memory-mapped, it is read one batch at a time.
        Y: (N, K) in [0, 1].
        weights: (N,).
        plan: how to fit.
        widths: columns of each block.
        start: (K,), outputs for an average example, where fitting begins.
        loss: what to minimise.
        validation: examples that decide which epoch is kept; the last one is when None.
    """
    mean, spread = column_moments(X)
    scale = inverse(spread)
    members = []
    with _threads(plan.threads), torch.random.fork_rng(devices=[]):
        for member in range(plan.members):
            torch.manual_seed(1_000_003 * plan.seed + member)
            net = _Net(plan, widths, start)
            size = min(plan.batch_size, max(8, len(X) // FEWEST_BATCHES))
            batches = _Batches(X, Y, weights, mean, scale, size)
            _fit_member(net, batches, plan, loss, validation)
            members.append(net)
    return _joined(members, widths=widths, mean=mean, scale=scale)


@dataclass(frozen=True)
class _Batches:
    X: Floats
    Y: Floats
    weights: Floats
    mean: Floats
    scale: Floats
    size: int

    def __len__(self) -> int:
        return math.ceil(len(self.X) / self.size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(self.X)).numpy()
        share = self.weights / self.weights.mean()
        for start in range(0, len(order), self.size):
            rows = np.sort(order[start : start + self.size])  # sorted: kinder to files
            yield self.features(self.X[rows]), _tensor(self.Y[rows]), _tensor(share[rows])

    def features(self, X: Floats) -> torch.Tensor:
        return _tensor(standardised(X, self.mean, self.scale))


def _fit_member(
    net: _Net, batches: _Batches, plan: FittingPlan, loss: Loss, validation: Validation | None
) -> None:
    residual = [net.residual.weight]
    rest = [one for name, one in net.named_parameters() if name != "residual.weight"]
    optimizer = torch.optim.AdamW(
        [
            {"params": rest, "weight_decay": plan.weight_decay},
            {"params": residual, "weight_decay": plan.weight_decay * RESIDUAL_DECAY},
        ],
        lr=plan.learning_rate,
    )
    steps = plan.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step / steps))
    best, kept, since = math.inf, net.state_dict(), 0
    for _ in range(plan.epochs):
        net.train()
        for Z, Y, share in batches:
            optimizer.zero_grad()
            (share * loss(net(Z), Y)).mean().backward()
            optimizer.step()
            schedule.step()
        if validation is None:
            continue
        now = _held_back(net, batches, loss, validation)
        if now < best:
            best, since = now, 0
            kept = {name: one.clone() for name, one in net.state_dict().items()}
        else:
            since += 1
            if since >= plan.patience:
                break
    net.load_state_dict(kept if validation is not None else net.state_dict())


def _pace(done: float) -> float:
    """Share of the peak learning rate: a short rise, then a cosine down to zero."""
    return min(1.0, done / 0.1 + 1e-3) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _held_back(net: _Net, batches: _Batches, loss: Loss, validation: Validation) -> float:
    net.eval()
    total = 0.0
    with torch.no_grad():
        for rows in row_blocks(validation.X):
            outputs = net(batches.features(validation.X[rows]))
            total += float(loss(outputs, _tensor(validation.Y[rows])).sum())
    return total / len(validation.X)


def _joined(
    members: list[_Net], *, widths: tuple[int, ...], mean: Floats, scale: Floats
) -> BilinearNetwork:
    def arrays(pick: Callable[[_Net], torch.Tensor]) -> list[np.ndarray]:
        return [pick(net).detach().numpy().astype(np.float32) for net in members]

    views, m = range(len(view_slices(widths))), len(members)
    projections, offsets = [], []
    for view in views:
        weights = arrays(lambda net, view=view: net.projections[view].weight.T)  # type: ignore[misc]
        biases = arrays(lambda net, view=view: net.projections[view].bias)  # type: ignore[misc]
        projections.append(np.concatenate(weights, axis=1))
        offsets.append(np.concatenate(biases))
    # Rounded to float32 once, here: what is stored is what predicts.
    heads = arrays(lambda net: (net.shared.weight + net.residual.weight).T / m)
    return BilinearNetwork(
        widths=widths,
        mean=mean,
        scale=scale,
        projection=np.concatenate(projections),
        offset=np.stack(offsets),
        hidden=np.stack(arrays(lambda net: net.hidden.weight.T)),
        hidden_bias=np.stack(arrays(lambda net: net.hidden.bias)),
        head=np.concatenate(heads),
        head_bias=np.mean(arrays(lambda net: net.thresholds), axis=0, dtype=np.float32),
    )


def _tensor(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
