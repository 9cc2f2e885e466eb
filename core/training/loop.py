"""The training loop: iterations, what is due after them, and how a run survives what goes wrong."""

import time
from pathlib import Path

import torch

from core.data_loader import InputFetcher
from core.evaluation.evaluator import MODES
from core.evaluation.scores import best_step
from core.sampling.snapshots import check_grid_side
from core.system import console, distributed
from core.system.errors import PeerError, Stopped, UserError
from core.system.files import atomic_write, clear_away, make_folder, write_text
from core.system.memory import explain
from core.system.signals import StopSignals
from core.training.monitor import Monitor

CAUSES = """\
What usually makes losses that are no numbers:
- a learning rate too high for the data: half --lr and --f_lr, and resume from an earlier step with --override
- --precision bf16 or tf32: train with fp32
- black, white or broken pictures: look at the batch beside this report (of several processes, the first one's)
- --lambda_reg too low, or a batch size below 8 with the published learning rates
- a graphics card that computes wrongly: the same iteration on --device cpu tells
"""


class TrainLoop:
    """Trains a core.solver.Solver from --resume_iter to --total_iters on loaders, Munch(src, ref, val).

    All processes run it; the main one writes, into folders that are locked (core.system.files.locked).
    """

    def __init__(self, solver, loaders):
        self.solver, self.config, self.loaders = solver, solver.config, loaders
        self.done = self.saved = self.config.resume_iter  # iterations done; the step saved last
        self.num_skipped = self.num_reported = 0  # updates

    def run(self):
        """Train. Raises Stopped, with everything saved, where Ctrl-C or SIGTERM asked for it; UserError where the last
        step could not be saved, images could not be read, or updates stayed NaN or infinite."""
        config = self.config
        distributed.on_main_process(self._make_room)
        with StopSignals(raises=distributed.world_size() == 1) as self.stop_signals:
            self._begin()
            state = "ended by an error"
            try:
                if self.done:
                    self._show(again=False)  # what the last run did not come to
                self._write_page()
                iterations = range(self.done, config.total_iters)
                with console.progress(iterations, initial=self.done, total=config.total_iters) as bar:
                    for iteration in bar:
                        with self.stop_signals.deferred():  # networks of half an iteration are of no use
                            start = time.monotonic()
                            inputs = self._next_inputs()
                            waited = time.monotonic() - start
                            losses = self.solver.train_step(inputs, iteration)
                            self.done = iteration + 1
                            self._check_updates(inputs, losses)
                            self.monitor.count_iteration(waited, time.monotonic() - start)
                            if due(self.done, config.print_every):
                                self.monitor.log_losses(self.done, losses | self.solver.meters, self.num_skipped)
                        del inputs, losses  # free their memory for snapshots and evaluation
                        self._do_what_is_due()
                state = "trained to the end"
            except Stopped as stop:
                state = "stopped"
                distributed.on_main_process(self._save_last)
                distributed.declare_over(128 + stop.number)
                raise
            finally:
                self._write_page(state)
                self.monitor.close()

    def _make_room(self):
        config = self.config
        for folder in (config.checkpoint_dir, config.sample_dir):
            make_folder(folder)
        check_grid_side(config.val_batch_size, config.num_outs_per_domain, config.num_domains, config.img_size)
        for folder in (config.sample_dir, config.eval_dir):
            clear_away(folder, older_than=3600)  # runs that are alive may write there too

    def _begin(self):
        """Load what training continues from, and make what the iterations need."""
        solver, config, start = self.solver, self.config, self.config.resume_iter
        if start:
            solver.load(start)
        else:
            solver.begin()
        has_moved = distributed.on_main_process(self._move_later_steps_aside)
        distributed.declare_begun()
        with distributed.sync_errors():
            self.monitor = Monitor(solver, self.loaders, branches=has_moved or not start)
        src, ref, val = self.loaders.src, self.loaders.ref, self.loaders.val
        self.inputs = InputFetcher(src, ref, config.latent_dim, seed=config.seed, start=start, device=solver.device)
        is_main = distributed.is_main_process()
        with distributed.sync_errors():  # fixed: the same at every snapshot
            self.fixed_inputs = next(InputFetcher(val, mode="val", device=solver.device)) if is_main else None
        # What evaluation lacks is an error now, not after days.
        self.evaluation = solver.evaluation() if times_due(start, config.total_iters, config.eval_every) else None

    def _move_later_steps_aside(self):
        """Return whether there were any: another training than this one wrote here last."""
        start = self.config.resume_iter
        aside = self.solver.files.move_aside(start)
        if aside:
            console.warn(
                f"steps of an earlier run that come after step {start} are now in {aside}; to go on with them instead, "
                "stop, move its files back, and give --resume_iter latest"
            )
        return aside is not None

    def _next_inputs(self):
        """Inputs of the next iteration. If one process has none, or was asked to stop, all of them stop here: the
        networks are those of a whole iteration, so they can be saved."""
        inputs, failure = None, None
        try:
            inputs = next(self.inputs)
        except (UserError, RuntimeError, MemoryError, OSError, EOFError) as error:
            failure = error
        signal, has_failed = distributed.all_reduce_max([self.stop_signals.requested, int(failure is not None)])
        if signal:  # the processes that read images were asked to stop too, which may be the failure
            raise Stopped(signal) from failure
        if not has_failed:
            return inputs
        step = distributed.on_main_process(self._save_last)
        if failure is None:  # another process has none
            raise PeerError
        sentence = _sentence(failure)
        if not sentence:
            raise failure
        raise UserError(f"{sentence}; step {step} is saved") from failure

    def _check_updates(self, inputs, losses):
        """Report skipped updates; give up after --max_bad_updates in a row."""
        solver = self.solver
        counts = torch.stack([sum(solver.bad_updates.values()), max(solver.bad_in_a_row.values())])
        self.num_skipped, in_a_row = map(int, counts.tolist())  # this waits for the device
        is_news = self.num_reported == 0 or due(self.done, self.config.print_every)
        if self.num_skipped > self.num_reported and is_news and distributed.is_main_process():
            console.warn(f"up to iteration {self.done}, {self.num_skipped} updates were no numbers and are skipped")
            self.num_reported = self.num_skipped
        if in_a_row >= self.config.max_bad_updates:
            distributed.on_main_process(lambda: self._give_up(in_a_row, inputs, losses))

    def _give_up(self, in_a_row, inputs, losses):
        """Write a report and the batch, and raise UserError."""
        stem = Path(self.config.sample_dir, f"{self.done:06d}_bad_updates")
        report, batch = stem.with_suffix(".txt"), stem.with_suffix(".pt")
        with atomic_write(batch) as temporary:
            torch.save(dict(inputs), temporary)
        kinds = ", ".join(f"{int(n)} of {name}*" for name, n in self.solver.bad_updates.items())
        text = f"{in_a_row} updates in a row up to iteration {self.done} were no numbers; in all {kinds}.\n\n{CAUSES}"
        lines = [f"{name}: {float(value)}\n" for name, value in losses.items()]
        write_text(report, f"{text}\nLosses:\n{''.join(lines)}")
        raise UserError(
            f"{in_a_row} updates in a row were no numbers, so training stops at iteration {self.done}, and step "
            f"{self.saved} stays the last one saved: {report} names the usual causes"
        )

    def _do_what_is_due(self):
        done, config = self.done, self.config
        is_last = done == config.total_iters
        if due(done, config.save_every) or is_last:
            self._save(is_last)
        self._show()
        if due(done, config.sample_every) or (due(done, config.print_every) and self.monitor.page_is_due()):
            self._write_page()

    def _show(self, again=True):
        """Snapshot and scores of the step, where they are due; again: even if they are there."""
        done, config = self.done, self.config
        snapshot = Path(config.sample_dir, f"{done:06d}_reference.jpg")
        scores = Path(config.eval_dir, f"FID_{done:05d}_{MODES[-1]}.json")
        if due(done, config.sample_every) and distributed.is_main_process() and (again or not snapshot.exists()):
            self._attempt("has no pictures", lambda: self.solver.snapshot(done, self.fixed_inputs))
        is_due = self.evaluation and due(done, config.eval_every)
        if is_due and (again or not distributed.on_main_process(scores.exists)):
            self._attempt("is not scored", self._score, in_step=True)

    def _score(self):
        self.monitor.log_scores(self.done, self.solver.evaluate(self.done, self.evaluation, pause=self._stop_if_asked))

    def _stop_if_asked(self):
        """Stop where one of several processes was asked to; a single one raises Stopped on the signal itself."""
        signal = distributed.all_reduce_max(self.stop_signals.requested)
        if signal:
            raise Stopped(signal)

    def _attempt(self, lacks, work, in_step=False):
        """Do work(). Where the user or the system refuses it, warn: that is no reason to lose a training. in_step: all
        processes do it together, so that only an error of all of them can be survived."""
        try:
            work()
        except (UserError, RuntimeError, MemoryError) as error:
            sentence = _sentence(error)
            if not sentence or (in_step and not distributed.is_on_all_ranks(error)):
                raise
            if not isinstance(error, PeerError):
                console.warn(f"step {self.done} {lacks}: {sentence}")

    def _write_page(self, state="training"):
        """Renew the page; where that fails the run continues."""
        try:
            self.monitor.write_page(self.done, state)
        except (UserError, OSError, ValueError) as error:
            console.warn(f"the page of step {self.done} is not written: {error}")

    def _save(self, is_last):
        """Save the step, unless it is saved. Where that fails the run continues with the steps there are."""
        if self.saved == self.done or not distributed.is_main_process():
            return
        try:
            self.solver.save(self.done)
        except UserError as error:
            if is_last:
                raise
            console.warn(f"step {self.done} is not saved, the step before stays: {error}; trying again at the next")
            return
        self.saved, files = self.done, self.solver.files
        try:
            files.prune(self.config.keep_checkpoints, {best_step(self.config.eval_dir, files.steps())})
        except OSError as error:
            console.warn(f"old steps stay, since they cannot be removed ({error.strerror})")

    def _save_last(self):
        self._save(is_last=True)
        return self.saved


def _sentence(error):
    """What people read of an error that they, or the system, caused; an empty text for a bug."""
    return str(error) if isinstance(error, UserError) else explain(error)


def due(done, every):
    """Whether `done` iterations call for what happens `every` so many; 0 is never."""
    return every > 0 and done % every == 0


def times_due(start, stop, every):
    """How often that happens in iterations after `start`, up to `stop`."""
    return stop // every - start // every if every else 0
