"""One training iteration: two updates of D, two of G (the first with F and E), one of the moving averages."""

from contextlib import nullcontext
from functools import partial

import torch
from munch import Munch
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.losses import discriminator_loss, generator_loss
from core.model import Content
from core.system import distributed
from core.system.device import CopyToCpu, autocast, compiled
from core.system.memory import chunks
from core.training.slow_start import lr_factors, scaled_update

UPDATES = {  # name -> the networks that learn
    "D/latent_": ["discriminator"],
    "D/ref_": ["discriminator"],
    "G/latent_": ["generator", "mapping_network", "style_encoder"],
    "G/ref_": ["generator"],
}


class Iteration:
    """The training iteration of a Solver's networks.

    skipped: tensor (2, 4), how many of each of UPDATES were skipped because of NaN or infinite values: in total, and in
    a row until now. meters: {name: tensor} measured in the last iteration besides the losses.
    """

    def __init__(self, solver):
        config, self.device = solver.config, solver.device
        self.config, self.nets, self.nets_ema, self.optims = config, solver.nets, solver.nets_ema, solver.optims
        self.micro_batch = solver.micro_batch
        self.ema = get_ema_multi_avg_fn(config.ema_decay)
        losses = (discriminator_loss, generator_loss) if config.compile else ()
        self.compiled = {loss_fn: compiled(loss_fn) for loss_fn in losses}
        self.lr_factors = {}  # of the first --init_iters iterations
        if config.init_iters and config.inherited:
            self.lr_factors = lr_factors(self.nets, config.inherited, config.names_by_label, config.init_lr_scale)
        self.augmentation = solver.augmentation
        self.skipped, self.meters = torch.zeros(2, len(UPDATES), device=self.device), {}

    def run(self, batch, lambda_ds, is_slow=False):
        """Do one iteration. Return {loss name: scalar tensor}, detached, without waiting for the device.

        batch: Munch from InputFetcher's mode "train", on the device, perhaps with `augment`, the random numbers of
        augmentation (N, updates, 2, NUMBERS). lambda_ds: scalar tensor, weight of the diversity loss. is_slow: whether
        inherited parameters learn at lower rates.
        """
        batch = Munch(batch)
        with torch.no_grad(), self._autocast():  # The updates of D do not change G, so compute its content once.
            batch.content = Content.of(self.nets, batch.x_src, self.micro_batch)
        losses, self.meters = {}, {}
        for player, loss_fn in (("D", self._d_loss), ("G", partial(self._g_loss, lambda_ds))):
            for mode in ("latent", "ref"):
                losses |= self.update(f"{player}/{mode}_", partial(loss_fn, mode), batch, is_slow)
        if self.config.augment == "ada":
            # The two updates of D alternate: its logits at real images are low in the first and high in the second.
            sign = (self.meters["D/latent_sign"] + self.meters["D/ref_sign"]) / 2
            self.augmentation.adapt(sign, len(batch.x_src) * distributed.world_size())
            self.meters["D/augment_p"] = self.augmentation.p.clone()
        self.update_averages()
        return losses

    def _autocast(self):
        return autocast(self.device, self.config.precision)

    def _d_loss(self, mode, batch):
        with torch.no_grad():
            s_trg = self._style(batch, mode)
        return self._fastest(discriminator_loss, batch)(
            self.nets, batch.x_src, batch.y_src, batch.y_ref, batch.content, s_trg, self.config.lambda_reg,
            batch.get("augment"),
        )  # fmt: skip

    def _g_loss(self, lambda_ds, mode, batch):
        s_trg = self._style(batch, mode)  # Before no_grad: older PyTorch would reuse casts of weights without a graph.
        with torch.no_grad():
            s_trg2 = self._style(batch, mode, second=True)
        return self._fastest(generator_loss, batch)(
            self.nets, batch.x_src, batch.y_src, batch.y_ref, s_trg, s_trg2,
            self.config.lambda_sty, lambda_ds, self.config.lambda_cyc, batch.content.masks,
            batch.get("augment"),
        )  # fmt: skip

    def _fastest(self, loss_fn, batch):
        """Return the compiled form of a loss, if any. It is for a fixed number of images, so the last part of a batch
        may need the plain form."""
        return self.compiled.get(loss_fn, loss_fn) if len(batch.x_src) == self.micro_batch.size else loss_fn

    def _style(self, batch, mode, second=False):
        """Return style codes (N, style_dim) of domain y_ref, from random codes ("latent") or references ("ref")."""
        if mode == "latent":
            return self.nets.mapping_network(batch.z_trg2 if second else batch.z_trg, batch.y_ref)
        return self.nets.style_encoder(batch.x_ref2 if second else batch.x_ref, batch.y_ref)

    def update(self, name, loss_fn, batch, is_slow):
        """Update networks by the gradient of loss_fn(batch) and return {name + term: value}.

        name: one of UPDATES, which tells the networks that learn. The others are constant. loss_fn returns (loss,
        terms, meters), means over images. The batch is processed in parts of `micro_batch` images. Their weighted
        gradients add up to that of the batch, since no network mixes images.
        """
        learners = UPDATES[name]
        for network_name, network in self.nets.items():
            network.requires_grad_(network_name in learners)
        if "discriminator" in learners and self.config.freeze_d:
            self.nets.discriminator.main[: self.config.freeze_d].requires_grad_(False)
        count, number = len(batch.x_src), list(UPDATES).index(name)
        for attempt in self.micro_batch.attempts():
            with attempt:
                loss, values = None, {}  # None frees the graph of a failed attempt.
                for learner in learners:
                    self.optims[learner].zero_grad()
                for images in chunks(count, self.micro_batch.size):
                    weight = (images.stop - images.start) / count
                    with self._autocast():
                        part = Munch({key: value[images] for key, value in batch.items()})
                        if "augment" in part:  # random numbers (N, 2, NUMBERS) of this update, and the probability
                            part.augment = part.augment[:, number], self.augmentation.p
                        loss, terms, meters = loss_fn(part)
                    (weight * loss).backward()
                    values = {k: values.get(k, 0) + weight * value for k, value in (terms | meters).items()}
        gradients = [p.grad for learner in learners for p in self.nets[learner].parameters() if p.grad is not None]
        distributed.all_reduce_mean([*gradients, *values.values()])
        self._step(name, gradients, [values[term] for term in terms], is_slow)
        self.meters |= {name + meter: values[meter] for meter in meters}
        return {name + term: values[term] for term in terms}

    def _step(self, name, gradients, terms, is_slow):
        """Step the learners' optimizers. If a gradient or a loss term is NaN or infinite, skip and count the update.

        This does not wait for the device: fused Adam reads the tensor `found_inf`, as with a GradScaler, and skips.
        """
        is_bad = (~(get_total_norm(gradients) + sum(terms)).isfinite()).float()
        in_total, in_a_row = self.skipped[:, list(UPDATES).index(name)]
        in_total.add_(is_bad)
        in_a_row.add_(1).mul_(is_bad)
        for learner in UPDATES[name]:
            self.optims[learner].found_inf = is_bad
            factors = self.lr_factors.get(learner) if is_slow else None
            with scaled_update(self.nets[learner], factors) if factors else nullcontext():
                self.optims[learner].step()

    @torch.no_grad()
    def update_averages(self):
        """Update the moving averages of G, F and E with decay --ema_decay (paper, appendix B)."""
        for name in self.nets_ema.keys() - {"fan"}:
            average = self.nets_ema[name]
            self.ema(list(average.parameters()), list(self.nets[name].parameters()), None)


class Report:
    """The numbers of an iteration, copied to the CPU while the device computes the next one.

    done: number of completed iterations. inputs: the batch. losses: {name: number or tensor}, from `Solver.train_step`.
    """

    def __init__(self, done, inputs, losses, iteration):
        self.done, self.inputs = done, inputs
        self.by_name = losses | iteration.meters
        self.numbers = CopyToCpu(torch.stack([v.float() for v in self.by_name.values() if torch.is_tensor(v)]))
        self.counts = CopyToCpu(iteration.skipped)

    def losses(self):
        """Return the losses and meters as {name: float}."""
        numbers = iter(self.numbers.read().tolist())
        return {name: next(numbers) if torch.is_tensor(value) else value for name, value in self.by_name.items()}

    def skipped(self):
        """Return {update: how many were skipped so far}."""
        return dict(zip(UPDATES, self.counts.read()[0].int().tolist(), strict=True))

    def most_in_a_row(self):
        """Return how many updates of one kind were skipped one after the other, until now."""
        return int(self.counts.read()[1].max())
