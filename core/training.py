"""The training loop: what happens every so many iterations, and how it survives what goes wrong."""

import time
from pathlib import Path

import torch

from core import log
from core.data_loader import InputFetcher
from core.errors import Stopped, UserError
from core.files import locked, make_folder, replacing
from core.runtime import explain, reader_died
from core.scores import best_step
from core.signals import Stopping
from core.snapshots import check_grid_side

CAUSES = """\
What usually makes losses that are no numbers:
- a learning rate too high for the data: half --lr and --f_lr, and resume from an earlier step with --override
- --precision bf16 or tf32: train with fp32
- black, white or broken pictures: look at the batch beside this report
- --lambda_reg too low, or a batch size below 8 with the published learning rates
- a graphics card that computes wrongly: the same iteration on --device cpu tells
"""


def run(solver, loaders):
    """Train a Solver from args.resume_iter to args.total_iters on Munch(src, ref, val) of DataLoaders.

    Raises Stopped, with everything saved, where Ctrl-C or SIGTERM asked for it; UserError where the folder is
    another run's, the last step could not be saved, or updates stopped being numbers.
    """
    args = solver.args
    for folder in (args.checkpoint_dir, args.sample_dir):
        make_folder(folder)
    check_grid_side(args.val_batch_size, args.num_outs_per_domain, args.num_domains, args.img_size)
    with locked(args.checkpoint_dir), Stopping() as stopping:
        _begin(solver)
        start, device = args.resume_iter, solver.device
        inputs_of = InputFetcher(loaders.src, loaders.ref, args.latent_dim, "train", args.seed, start, device)
        fixed = next(InputFetcher(loaders.val, mode="val", device=device))  # the same at every snapshot
        evaluation = None
        if args.eval_every and args.total_iters // args.eval_every > start // args.eval_every:
            evaluation = solver.evaluation()  # what is missing is said now, not after days
        _Loop(solver, inputs_of, fixed, evaluation).run(stopping)


def _begin(solver):
    args, steps = solver.args, solver.archive.steps()
    if args.resume_iter:
        solver.load(args.resume_iter)
    elif steps:
        log.warn(
            f"{args.checkpoint_dir} holds the steps {', '.join(map(str, steps))} of an earlier run: equal ones are "
            "replaced, others stay, and sampling takes the highest; another --checkpoint_dir keeps them apart"
        )


class _Loop:
    """One run of iterations."""

    def __init__(self, solver, inputs_of, fixed, evaluation):
        self.solver, self.args = solver, solver.args
        self.inputs_of, self.fixed, self.evaluation = inputs_of, fixed, evaluation
        self.done = self.saved = self.args.resume_iter
        self.began, self.bad_updates = time.monotonic(), 0

    def run(self, stopping):
        args = self.args
        span = range(self.done, args.total_iters)
        with log.progress(span, initial=self.done, total=args.total_iters, unit="it") as bar:
            try:
                for iteration in bar:
                    with stopping.held():  # networks of half an iteration are of no use
                        inputs = self._next_inputs()
                        losses = self.solver.train_step(inputs, iteration)
                        self.done = iteration + 1
                    self._check_updates(inputs, losses)
                    self._report(losses)
            except Stopped:
                self._save(last=True)
                raise

    def _report(self, losses):
        args, done = self.args, self.done
        if due(done, args.print_every):
            seconds = time.monotonic() - self.began
            log.loss_line(seconds, done, args.total_iters, losses | self.solver.meters)
        if due(done, args.save_every) or done == args.total_iters:
            self._save(last=done == args.total_iters)
        if due(done, args.sample_every):
            self._attempt("has no pictures", lambda: self.solver.snapshot(done, self.fixed))
        if due(done, args.eval_every):
            self._attempt("is not scored", lambda: self.solver.evaluate(done, self.evaluation))

    def _attempt(self, lacks, work):
        """Do what is no reason to lose a training where it fails."""
        try:
            work()
        except UserError as error:
            log.warn(f"step {self.done} {lacks}: {error}")

    def _save(self, last):
        """Save the step, unless it is saved. Where that fails the run goes on with the steps there are."""
        if self.saved == self.done:
            return
        try:
            self.solver.save(self.done)
        except UserError as error:
            if last:
                raise
            log.warn(f"step {self.done} is not saved, the step before stays: {error}; trying again at the next")
            return
        self.saved = self.done
        self.solver.archive.prune(self.args.keep_checkpoints, {best_step(self.args.eval_dir)})

    def _next_inputs(self):
        try:
            return next(self.inputs_of)
        except (RuntimeError, OSError, EOFError) as error:
            if not reader_died(error):
                raise
            self._save(last=True)
            raise UserError(f"{explain(error)}; step {self.saved} is saved") from error

    def _check_updates(self, inputs, losses):
        """Tell of skipped updates; give up after args.max_bad_updates in a row."""
        bad, in_a_row = int(self.solver.bad_updates), int(self.solver.bad_in_a_row)  # here the device is waited for
        if bad > self.bad_updates:
            log.warn(f"iteration {self.done}: an update was no number and is skipped ({bad} so far)")
        self.bad_updates = bad
        if in_a_row < self.args.max_bad_updates:
            return
        stem = f"{self.done:06d}_bad_updates"
        report, batch = Path(self.args.sample_dir, f"{stem}.txt"), Path(self.args.sample_dir, f"{stem}.pt")
        with replacing(batch) as temporary:
            torch.save(dict(inputs), temporary)
        lines = [f"{name}: {float(value)}" for name, value in losses.items()]
        with replacing(report) as temporary:
            text = f"{in_a_row} updates in a row up to iteration {self.done} were no numbers.\n\n"
            temporary.write_text(f"{text}{CAUSES}\nLosses:\n" + "\n".join(lines) + "\n", encoding="utf-8")
        raise UserError(
            f"{in_a_row} updates in a row were no numbers, so training stops at iteration {self.done}, and step "
            f"{self.saved} stays the last one saved: {report} names the usual causes"
        )


def due(done, every):
    """Whether `done` iterations call for what happens `every` so many; 0 is never."""
    return every > 0 and done % every == 0
