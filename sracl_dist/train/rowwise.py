"""Adam whose item embeddings move row by row: a step costs what it touches, and ends where plain Adam would.

Adam moves a row also in the steps that ask nothing of it: by what is left of its momentum, and by weight decay. Here a
row is left alone until it is read again, and then brought to where these steps would have brought it. That is possible
at once, because without a gradient both moments shrink by constant factors. A row that is up to date with step s has
the first moment m, the second moment v and the value w; at step t, with learning rates lr, decay d and no gradient
since,

    w_t = D w - m / sqrt(v) * sum over j of lr_j D_j (b1 / sqrt(b2))^(j - s) sqrt(1 - b2^j) / (1 - b1^j),

D_j being the product of 1 - lr d over the steps behind j, and D that over all of them. The sum depends on s and t but
not on the row, and its terms fall by a tenth from one to the next. Adam's epsilon beside sqrt(v) is taken as if it
shrank with it.

V catalogue, N rows of this worker, M rows of all workers, D width, J steps since all rows were up to date.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from sracl_dist.model.catalogue import Catalogue
from sracl_dist.model.gather import gather_rows
from sracl_dist.model.item_table import TouchedRows
from sracl_dist.train.worker import Worker

TERMS = 192
"""Terms of the sum that count: the next one is below 2e-9 of the first."""
ROWS_PER_PIECE = 65_536
"""Rows brought up to date at a time where it is all of them."""


class _State(NamedTuple):
    weight_ND: Tensor
    first_ND: Tensor
    second_ND: Tensor


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW; item embeddings that the catalogue reads by rows are updated by rows, and the others as ever.

    Between two calls of `settle` the embeddings in the catalogue's table are not up to date; the catalogue reads them
    through `current`. With several workers, all of them must settle at the same steps.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, catalogue: Catalogue) -> None:
        super().__init__(groups, lr=lr, fused=True)
        self._catalogue = catalogue
        self._weight = catalogue.embedding.weight
        if not catalogue.by_rows:
            return
        catalogue.read = self.current
        self.state[self._weight] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(self._weight),
            "exp_avg_sq": torch.zeros_like(self._weight),
        }
        (self._group,) = (group for group in self.param_groups if any(p is self._weight for p in group["params"]))
        self._age_V = torch.zeros(len(self._weight), dtype=torch.int32, device=self._weight.device)
        """Steps since `settle` after which each row was last up to date."""
        self._start_anew()

    def _start_anew(self) -> None:
        self._age_V.zero_()
        self._age = 0
        self._moved_J = torch.zeros(TERMS, dtype=torch.float64)
        """By age: the sum above, divided by the product of all decay since `settle`."""
        self._log_decay_J = torch.zeros(TERMS, dtype=torch.float64)
        """By age: logarithm of the product of the decay since `settle` up to it."""

    def share(self, worker: Worker) -> None:
        """After the backward pass: the mean over workers of what is asked of rows; every worker must call it."""
        touched = self._catalogue.touched
        if touched is not None and worker.world_size > 1:
            self._catalogue.touched = _mean_over_workers(touched, worker)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights, and of the embeddings the rows that were touched."""
        loss = super().step(closure)
        if not self._catalogue.by_rows:
            return loss
        step = self.state[self._weight]["step"]
        step += 1
        touched, self._catalogue.touched = self._catalogue.touched, None
        if touched is not None:
            self._update(touched, float(step))
        self._age += 1
        if touched is not None:
            self._age_V[touched.items_N] = self._age
        self._grow_older(float(step))
        return loss

    @torch.no_grad()
    def current(self, items_N: Tensor) -> Tensor:
        """Embeddings [N, D] as they are by now; nothing is written, so that all workers write the same later."""
        return self._caught_up(items_N).weight_ND

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows up to date, for whoever reads the table or writes a checkpoint."""
        if not self._catalogue.by_rows or self._age == 0:
            return
        decays = bool((self._log_decay_J[: self._age + 1] != 0).any())
        late_V = self._age_V < self._age
        for start in range(0, len(self._weight), ROWS_PER_PIECE):
            piece = slice(start, start + ROWS_PER_PIECE)
            # A row that was never asked anything has no momentum.
            moves_N = late_V[piece] & (self.state[self._weight]["exp_avg_sq"][piece].amax(dim=1) > 0)
            for chosen_N, whole in ((moves_N, True), (late_V[piece] & ~moves_N, False)):
                if whole or decays:
                    items_N = start + torch.nonzero(chosen_N).squeeze(1)
                    self._write(items_N, self._caught_up(items_N), whole=whole)
        self._start_anew()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the moments; the rows are those of a checkpoint, and up to date."""
        super().load_state_dict(state_dict)
        if self._catalogue.by_rows:
            (self._group,) = (group for group in self.param_groups if any(p is self._weight for p in group["params"]))
            self._start_anew()

    def _update(self, touched: TouchedRows, step: float) -> None:
        gradient_ND = touched.values_ND.grad
        if gradient_ND is None:
            gradient_ND = torch.zeros_like(touched.values_ND)
        lr, (beta1, beta2) = self._group["lr"], self._group["betas"]
        state = self._caught_up(touched.items_N)
        state.weight_ND.mul_(1 - lr * self._group["weight_decay"])
        state.first_ND.lerp_(gradient_ND, 1 - beta1)
        state.second_ND.mul_(beta2).addcmul_(gradient_ND, gradient_ND, value=1 - beta2)
        scale_ND = (state.second_ND / (1 - beta2**step)).sqrt_().add_(self._group["eps"])
        state.weight_ND.addcdiv_(state.first_ND, scale_ND, value=-lr / (1 - beta1**step))
        self._write(touched.items_N, state)

    def _caught_up(self, items_N: Tensor) -> _State:
        """Copies of the rows and their moments, as plain Adam would have them after the latest step."""
        moments = self.state[self._weight]
        state = _State(*(values[items_N] for values in (self._weight, moments["exp_avg"], moments["exp_avg_sq"])))
        age_N, (beta1, beta2) = self._age_V[items_N].cpu().long(), self._group["betas"]
        log_decay = self._log_decay_J[self._age]
        factors = [
            (log_decay - self._log_decay_J[age_N]).exp(),
            -log_decay.exp() * self._moved_J[age_N],
            beta1 ** (self._age - age_N).double(),
            beta2 ** (self._age - age_N).double(),
        ]
        decay_N1, move_N1, first_N1, second_N1 = torch.stack(factors).float().to(items_N.device)[:, :, None]
        state.weight_ND.mul_(decay_N1)
        # The formula has the moments as they are kept, and Adam adds its epsilon when the second one is corrected.
        epsilon = self._group["eps"] * math.sqrt(1 - beta2 ** max(1.0, float(moments["step"])))
        state.weight_ND.addcdiv_(move_N1 * state.first_ND, state.second_ND.sqrt().add_(epsilon))
        state.first_ND.mul_(first_N1)
        state.second_ND.mul_(second_N1)
        return state

    def _write(self, items_N: Tensor, state: _State, *, whole: bool = True) -> None:
        self._weight[items_N] = state.weight_ND
        if whole:
            self.state[self._weight]["exp_avg"][items_N] = state.first_ND
            self.state[self._weight]["exp_avg_sq"][items_N] = state.second_ND

    def _grow_older(self, step: float) -> None:
        """Add the step that has just been made to what rows that were left alone in it owe."""
        lr, (beta1, beta2) = self._group["lr"], self._group["betas"]
        if self._age + 1 >= len(self._moved_J):
            self._moved_J, self._log_decay_J = (
                torch.cat([values, torch.zeros_like(values)]) for values in (self._moved_J, self._log_decay_J)
            )
        log_decay = self._log_decay_J[self._age - 1] + math.log1p(-lr * self._group["weight_decay"])
        self._log_decay_J[self._age] = log_decay
        first = max(0, self._age - TERMS)
        gap_J = torch.arange(self._age - first, 0, -1, dtype=torch.float64)
        ratio = beta1 / math.sqrt(beta2)
        term = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        self._moved_J[first : self._age] += term * ratio**gap_J * torch.exp(-log_decay)


def _mean_over_workers(touched: TouchedRows, worker: Worker) -> TouchedRows:
    """The rows that any worker has touched, with the mean of their gradients, the same on every worker."""
    gradient_ND = touched.values_ND.grad
    if gradient_ND is None:
        gradient_ND = torch.zeros_like(touched.values_ND)
    own_count = torch.zeros(worker.world_size, dtype=torch.int64)
    own_count[worker.rank] = len(touched.items_N)
    counts = worker.sum_over_workers(own_count).tolist()
    all_items = gather_rows(touched.items_N[:, None], counts, worker.rank).squeeze(1)
    all_gradients = gather_rows(gradient_ND, counts, worker.rank)
    items_M, place = torch.unique(all_items, return_inverse=True)
    sum_MD = torch.zeros(len(items_M), gradient_ND.shape[1], dtype=gradient_ND.dtype, device=gradient_ND.device)
    # One worker after the other, so that sums are made in the same order everywhere.
    for places, gradients in zip(place.split(counts), all_gradients.split(counts), strict=True):
        sum_MD[places] += gradients
    values_MD = torch.empty_like(sum_MD)
    values_MD.grad = sum_MD / worker.world_size
    return TouchedRows(items_N=items_M, values_ND=values_MD)
