"""The training loop: what happens every so many iterations, and how it survives what goes wrong."""

import time
from pathlib import Path

import torch

from core.data_loader import InputFetcher
from core.evaluation.evaluator import MODES
from core.evaluation.scores import best_step
from core.sampling.snapshots import check_grid_side
from core.system import console, distributed
from core.system.errors import PeerError, Stopped, UserError
from core.system.files import atomic_write, clear_away, make_folder, system_errors
from core.system.memory import explain
from core.system.signals import StopSignals
from core.training.monitor import Monitor

FAILED = 1  # what a process tells the others in place of a signal's number

CAUSES = """\
What usually makes losses that are no numbers:
- a learning rate too high for the data: half --lr and --f_lr, and resume from an earlier step with --override
- --precision bf16 or tf32: train with fp32
- black, white or broken pictures: look at the batch beside this report (of several processes, the first one's)
- --lambda_reg too low, or a batch size below 8 with the published learning rates
- a graphics card that computes wrongly: the same iteration on --device cpu tells
"""


def run(solver, loaders):
    """Train a Solver from args.resume_iter to args.total_iters on Munch(src, ref, val) of DataLoaders.

    Raises Stopped, with everything saved, where Ctrl-C or SIGTERM asked for it; UserError where the last step
    could not be saved, images could not be read, or updates stopped being numbers. No other run may write into
    its folders meanwhile (core.files.locked). Of several processes all call it; the first one writes.
    """
    args = solver.args
    distributed.on_main_process(lambda: _make_room(args))
    with StopSignals(quietly=distributed.world_size() > 1) as stopping:
        branches = _begin(solver)
        with distributed.sync_errors():
            watch = Monitor(solver, loaders, branches)
        start, device = args.resume_iter, solver.device
        inputs_of = InputFetcher(loaders.src, loaders.ref, args.latent_dim, "train", args.seed, start, device)
        with distributed.sync_errors():  # the same inputs at every snapshot
            fixed = (
                next(InputFetcher(loaders.val, mode="val", device=device)) if distributed.is_main_process() else None
            )
        evaluation = None
        if times_due(start, args.total_iters, args.eval_every):
            evaluation = solver.evaluation()  # what is missing is said now, not after days
        _Loop(solver, inputs_of, fixed, evaluation, stopping, watch).run()


def _make_room(args):
    for folder in (args.checkpoint_dir, args.sample_dir):
        make_folder(folder)
    check_grid_side(args.val_batch_size, args.num_outs_per_domain, args.num_domains, args.img_size)
    for folder in (args.sample_dir, args.eval_dir):
        clear_away(folder, older_than=3600)  # they may be shared with runs that live


def _begin(solver):
    """Load what training goes on from; return whether it is another training than the one that wrote here last."""
    start = solver.args.resume_iter
    if start:
        solver.load(start)
    else:
        distributed.on_main_process(solver.begin)
        solver.share()
    aside = distributed.on_main_process(lambda: _move_aside(solver.archive, start))
    distributed.declare_begun()
    return aside or not start


def _move_aside(archive, start):
    with system_errors(archive.folder, "written"):
        aside = archive.move_aside(start)
    if aside:
        console.warn(
            f"steps of an earlier run that come after step {start} are now in {aside}; to go on with them instead, "
            "stop, move its files back, and give --resume_iter latest"
        )
    return aside is not None


class _Loop:
    """One run of iterations."""

    def __init__(self, solver, inputs_of, fixed, evaluation, stopping, watch):
        self.solver, self.args, self.stopping, self.watch = solver, solver.args, stopping, watch
        self.inputs_of, self.fixed, self.evaluation = inputs_of, fixed, evaluation
        self.done = self.saved = self.args.resume_iter
        self.skipped = self.told = 0  # updates, and as far as they are told of

    def run(self):
        args, state = self.args, "ended by an error"
        try:
            if self.done:
                self._show(again=False)  # what the last run did not come to
            self._page()
            with console.progress(range(self.done, args.total_iters), initial=self.done, total=args.total_iters) as bar:
                for iteration in bar:
                    self._iterate(iteration)
            state = "trained to the end"
        except Stopped as stop:
            state = "stopped"
            distributed.on_main_process(self._save_last)
            distributed.declare_over(128 + stop.number)
            raise
        finally:
            self._page(state)
            self.watch.close()

    def _iterate(self, iteration):
        """One iteration, and what is due after it."""
        args = self.args
        with self.stopping.held():  # networks of half an iteration are of no use
            began = time.monotonic()
            inputs = self._next_inputs()
            waited = time.monotonic() - began
            losses = self.solver.train_step(inputs, iteration)
            self.done = iteration + 1
            self._check_updates(inputs, losses)
            self.watch.passed(waited, time.monotonic() - began)
            if due(self.done, args.print_every):
                self.watch.line(self.done, losses | self.solver.meters, self.skipped)
        if due(self.done, args.save_every) or self.done == args.total_iters:
            self._save(last=self.done == args.total_iters)
        self._show()
        if due(self.done, args.sample_every) or (due(self.done, args.print_every) and self.watch.is_due()):
            self._page()

    def _page(self, state="training"):
        """Renew the page; where that fails the run goes on."""
        try:
            self.watch.write(self.done, state)
        except (UserError, OSError, ValueError) as error:
            console.warn(f"the page of step {self.done} is not written: {error}")

    def _show(self, again=True):
        """Pictures and scores of the step, where they are due; again: even if they are there."""
        solver, args, done = self.solver, self.args, self.done
        pictures = Path(args.sample_dir, f"{done:06d}_reference.jpg")
        scores = Path(args.eval_dir, f"FID_{done:05d}_{MODES[-1]}.json")
        if due(done, args.sample_every) and distributed.is_main_process() and (again or not pictures.exists()):
            self._attempt("has no pictures", lambda: solver.snapshot(done, self.fixed))
        if due(done, args.eval_every) and self.evaluation and (again or not distributed.on_main_process(scores.exists)):
            self._attempt("is not scored", self._score, in_step=True)

    def _score(self):
        self.watch.scores(self.done, self.solver.evaluate(self.done, self.evaluation, self._heed))

    def _heed(self):
        """Stop where one of several processes was asked to; a single one stops by itself."""
        asked = distributed.all_reduce_max(self.stopping.asked)
        if asked:
            raise Stopped(asked)

    def _attempt(self, lacks, work, in_step=False):
        """Do what is no reason to lose a training where the user or the system refuses it.

        in_step: several processes do it together, so that only what is an error of all of them can be survived.
        """
        try:
            work()
        except (UserError, RuntimeError, MemoryError) as error:
            sentence = str(error) if isinstance(error, UserError) else explain(error)
            if not sentence or (in_step and distributed.world_size() > 1 and not getattr(error, "common", False)):
                raise
            if not isinstance(error, PeerError):
                console.warn(f"step {self.done} {lacks}: {sentence}")

    def _save(self, last):
        """Save the step, unless it is saved. Where that fails the run goes on with the steps there are."""
        if self.saved == self.done or not distributed.is_main_process():
            return
        try:
            self.solver.save(self.done)
        except UserError as error:
            if last:
                raise
            console.warn(f"step {self.done} is not saved, the step before stays: {error}; trying again at the next")
            return
        self.saved, archive = self.done, self.solver.archive
        try:
            archive.prune(self.args.keep_checkpoints, {best_step(self.args.eval_dir, archive.steps())})
        except OSError as error:
            console.warn(f"old steps stay, since they cannot be removed ({error.strerror})")

    def _next_inputs(self):
        """Inputs of the next iteration; where a process has none, or was asked to stop, all of them stop here.

        The networks are those of a whole iteration, so they can be saved.
        """
        inputs, failure = None, None
        try:
            inputs = next(self.inputs_of)
        except (UserError, RuntimeError, MemoryError, OSError, EOFError) as error:
            failure = error
        # Readers too are asked to stop, so a failure counts less than a request.
        asked = distributed.all_reduce_max(self.stopping.asked or (FAILED if failure else 0))
        if not asked:
            return inputs
        if asked != FAILED:
            raise Stopped(asked) from failure
        saved = distributed.on_main_process(self._save_last)
        if failure is None:
            raise PeerError
        sentence = str(failure) if isinstance(failure, UserError) else explain(failure)
        if not sentence:
            raise failure
        raise UserError(f"{sentence}; step {saved} is saved") from failure

    def _save_last(self):
        self._save(last=True)
        return self.saved

    def _check_updates(self, inputs, losses):
        """Tell of skipped updates; give up after args.max_bad_updates in a row."""
        counts = torch.stack([sum(self.solver.bad_updates.values()), max(self.solver.bad_in_a_row.values())])
        bad, in_a_row = map(int, counts.tolist())  # here the device is waited for
        self.skipped = bad
        if (
            bad > self.told
            and (self.told == 0 or due(self.done, self.args.print_every))
            and distributed.is_main_process()
        ):
            console.warn(f"up to iteration {self.done}, {bad} updates were no numbers and are skipped")
            self.told = bad
        if in_a_row >= self.args.max_bad_updates:
            distributed.on_main_process(lambda: self._give_up(in_a_row, inputs, losses))

    def _give_up(self, in_a_row, inputs, losses):
        stem = f"{self.done:06d}_bad_updates"
        report, batch = Path(self.args.sample_dir, f"{stem}.txt"), Path(self.args.sample_dir, f"{stem}.pt")
        with atomic_write(batch) as temporary:
            torch.save(dict(inputs), temporary)
        lines = [f"{name}: {float(value)}" for name, value in losses.items()]
        with atomic_write(report) as temporary:
            kinds = ", ".join(f"{int(n)} of {name}*" for name, n in self.solver.bad_updates.items())
            text = f"{in_a_row} updates in a row up to iteration {self.done} were no numbers; in all {kinds}.\n\n"
            temporary.write_text(f"{text}{CAUSES}\nLosses:\n" + "\n".join(lines) + "\n", encoding="utf-8")
        raise UserError(
            f"{in_a_row} updates in a row were no numbers, so training stops at iteration {self.done}, and step "
            f"{self.saved} stays the last one saved: {report} names the usual causes"
        )


def due(done, every):
    """Whether `done` iterations call for what happens `every` so many; 0 is never."""
    return every > 0 and done % every == 0


def times_due(start, stop, every):
    """How often that happens in iterations after `start`, up to `stop`."""
    return stop // every - start // every if every else 0
