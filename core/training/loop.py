"""The training loop: iterations, saves, snapshots and evaluation, and the handling of faults."""

import time
from contextlib import contextmanager
from pathlib import Path

import torch

from core.data_loader import InputFetcher
from core.evaluation.scores import METRICS, MODES, best_step
from core.sampling.snapshots import PSIS, SMALL, check_grid_side
from core.system import console, distributed
from core.system.errors import PeerError, Stopped, UserError, reason
from core.system.files import atomic_write, clear_away, make_folder, write_text
from core.system.memory import explain, is_of_compiler
from core.system.signals import PROGRAM_START, StopSignals
from core.training.iteration import Report
from core.training.monitor import Monitor

CAUSES = """\
Usual causes of NaN or infinite losses:
- The learning rate is too high for the data. Halve --lr and --f_lr, and resume from an earlier step with --override.
- --precision is bf16 or tf32. Train with fp32.
- Images are black, white or damaged. Look at the batch beside this report (with several processes, that of rank 0).
- --lambda_reg is too low, or the batch size is below 8 with the published learning rates.
- The GPU computes wrong results. Repeat the iteration with --device cpu to compare.
"""


class TrainLoop:
    """Train a core.solver.Solver from --resume_iter to --total_iters on loaders, Munch(src, ref, val).

    All ranks run it. Only rank 0 writes files. The caller must lock the folders (core.system.files.locked).
    """

    def __init__(self, solver, loaders):
        self.solver, self.config, self.loaders = solver, solver.config, loaders
        self.done = self.saved = self.config.resume_iter  # number of completed iterations; last saved step
        self.num_skipped = self.num_reported = 0  # updates with NaN or infinite values
        self.unread = []  # the Report of the last iteration. After a stop nobody reads it: bad updates change nothing.

    def run(self):
        """Train, at most until --max_hours are over. Raises Stopped after a stop signal, with everything saved. Raises
        UserError if the last step cannot be saved, an image cannot be read, or updates stay NaN or infinite."""
        config = self.config
        distributed.on_main_process(self._make_room)
        with StopSignals(raises=distributed.world_size() == 1) as self.stop_signals:
            self._begin()
            state = "stopped by an error"
            try:
                if self.done:
                    self._show(again=False)  # The last run may have stopped before this.
                self._write_page()
                iterations = range(self.done, config.total_iters)
                with console.progress(iterations, initial=self.done, total=config.total_iters) as bar:
                    for iteration in bar:
                        with self.stop_signals.deferred():  # Networks after half an iteration cannot be resumed.
                            start = time.monotonic()
                            inputs = self._next_inputs()
                            waited = time.monotonic() - start
                            with self._compiler_stops():
                                losses = self.solver.train_step(inputs, iteration)
                            self.done = iteration + 1
                            read = self._checked(Report(self.done, inputs, losses, self.solver.iteration))
                            self.monitor.count_iteration(waited, time.monotonic() - start)
                            self._log(read)
                        del inputs, losses, read  # Free their memory for snapshots and evaluation.
                        self._do_what_is_due()
                state = "finished"
                console.info(f"Training is complete. Its page: {Path(config.sample_dir, 'index.html')}")
            except Stopped as stop:
                state = "stopped"
                self.stop_signals.is_deferred = True  # Another signal must not interrupt the save.
                step = distributed.on_main_process(self._save_last)
                if stop.number:
                    distributed.declare_over(128 + stop.number)
                    raise
                console.info(
                    f"Stopped after --max_hours {config.max_hours:g} at step {step}. To continue, run the same command "
                    "with --resume_iter latest."
                )
            finally:
                self._write_page(state)
                self.monitor.close()

    def _make_room(self):
        config = self.config
        for folder in (config.checkpoint_dir, config.sample_dir):
            make_folder(folder)
        check_grid_side(config.val_batch_size, config.num_outs_per_domain, config.num_domains, config.img_size)
        clear_away(Path(config.sample_dir, SMALL))  # This run has the lock on --sample_dir.
        clear_away(config.eval_dir, older_than=3600)  # Other running programs may also write there.

    def _begin(self):
        """Load the networks, and create the monitor, the inputs and the evaluation."""
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
        with distributed.sync_errors():  # All snapshots use the same inputs.
            self.fixed_inputs = next(InputFetcher(val, mode="val", device=solver.device)) if is_main else None
        # Report missing files of the evaluation now, not after days.
        self.evaluation = solver.evaluation() if times_due(start, config.total_iters, config.eval_every) else None

    def _move_later_steps_aside(self):
        """Move away the steps after --resume_iter. Return whether there were any: they belong to another training."""
        start = self.config.resume_iter
        aside = self.solver.files.move_aside(start)
        if aside:
            console.warn(
                f"Moved the later steps of an earlier run, those after step {start}, to {aside}. To continue from them "
                "instead, stop this run, move the files back and add --resume_iter latest."
            )
        return aside is not None

    def _next_inputs(self):
        """Return the inputs of the next iteration. If one rank fails or was asked to stop, save and stop all ranks
        here, where an iteration is complete."""
        inputs, failure = None, None
        try:
            inputs = next(self.inputs)
        except (UserError, RuntimeError, MemoryError, OSError, EOFError) as error:
            failure = error
        (has_failed,) = self._stop_if_asked(failure is not None)
        if not has_failed:
            return inputs
        step = distributed.on_main_process(self._save_last)
        if failure is None:  # Another rank failed.
            raise PeerError
        sentence = _sentence(failure)
        if not sentence:
            raise failure
        raise UserError(f"{sentence} Restart with --resume_iter latest to continue from step {step}.") from failure

    @contextmanager
    def _compiler_stops(self):
        """Raise Stopped if a stop signal, which a terminal sends to all processes, ends the compiler in the context.
        Half an iteration is not saved."""
        try:
            yield
        except RuntimeError as error:
            if not (self.stop_signals.requested and is_of_compiler(error)):
                raise
            self.saved = self.done
            raise Stopped(self.stop_signals.requested) from error

    def _checked(self, report):
        """Return the reports that can be read now, after a check for bad updates: normally that of the last iteration.
        Reading this one would wait until the device is done with it, so it is only read if something is due."""
        config, done = self.config, self.done
        intervals = config.print_every, config.save_every, config.sample_every, config.eval_every
        is_due = done == config.total_iters or any(due(done, every) for every in intervals)
        reports = [*self.unread, report]
        self.unread, reports = ([], reports) if is_due else (reports[-1:], reports[:-1])
        for each in reports:
            self._check_updates(each)
        return reports

    def _log(self, reports):
        for report in reports:
            if due(report.done, self.config.print_every):
                self.monitor.log_losses(report.done, report.losses(), self.num_skipped)

    def _check_updates(self, report):
        """Warn about skipped updates. Stop after --max_bad_updates in a row."""
        self.num_skipped, in_a_row = sum(report.skipped().values()), report.most_in_a_row()
        is_news = self.num_reported == 0 or due(report.done, self.config.print_every)
        if self.num_skipped > self.num_reported and is_news and distributed.is_main_process():
            skipped = f"{console.counted(self.num_skipped, 'update')} with NaN or infinite values"
            console.warn(f"Skipped {skipped} so far (iteration {report.done}). They do not change the networks.")
            self.num_reported = self.num_skipped
        if in_a_row >= self.config.max_bad_updates:
            distributed.on_main_process(lambda: self._give_up(report))

    def _give_up(self, report):
        """Write a report and the batch, and raise UserError."""
        stem = Path(self.config.sample_dir, f"{report.done:06d}_bad_updates")
        path, batch = stem.with_suffix(".txt"), stem.with_suffix(".pt")
        with atomic_write(batch) as temporary:
            torch.save(dict(report.inputs), temporary)
        kinds = ", ".join(f"{number} of {name}*" for name, number in report.skipped().items())
        problem = f"NaN or infinite values in consecutive updates: {report.most_in_a_row()}"
        text = f"{problem}, up to iteration {report.done}. Skipped in total: {kinds}.\n\n{CAUSES}"
        lines = [f"{name}: {value}\n" for name, value in report.losses().items()]
        write_text(path, f"{text}\nLosses:\n{''.join(lines)}")
        raise UserError(
            f"Cannot continue training after iteration {report.done} ({problem}). The last saved step is {self.saved}. "
            f"See {path} for the usual causes."
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
        """Write the snapshot and the scores of the step if they are due. again: even if they exist."""
        done, config = self.done, self.config
        snapshot = Path(config.sample_dir, f"{done:06d}_latent_psi_{PSIS[-1]}.jpg")  # the last one
        scores = Path(config.eval_dir, f"{METRICS[-1]}_{done:05d}_{list(MODES)[-1]}.json")  # the last one
        if due(done, config.sample_every) and distributed.is_main_process() and (again or not snapshot.exists()):
            with self.stop_signals.deferred():  # A resumed run would not write what is missing of an earlier step.
                self._attempt("images", lambda: self.solver.snapshot(done, self.fixed_inputs))
        is_due = self.evaluation and due(done, config.eval_every)
        if is_due and (again or not distributed.on_main_process(scores.exists)):
            self._attempt("scores", self._score, in_step=True)

    def _score(self):
        self.monitor.log_scores(self.done, self.solver.evaluate(self.done, self.evaluation, pause=self._stop_if_asked))

    def _stop_if_asked(self, *others):
        """Stop all ranks if one was asked to, or if the time is over. Return whether each of `others` is true on a
        rank. Outside of an iteration, a single process raises Stopped on the signal itself."""
        limit = self.config.max_hours
        is_over = limit is not None and time.monotonic() - PROGRAM_START >= 3600 * limit
        numbers = self.stop_signals.requested, is_over, *others
        signal, is_over, *others = distributed.all_reduce_max(list(map(int, numbers)))
        if signal or is_over:  # The signal also stops the DataLoader workers, which may have caused a failure.
            raise Stopped(signal)
        return others

    def _attempt(self, product, work, in_step=False):
        """Call work(), and only warn if it fails for lack of memory or with a UserError. in_step: all ranks work
        together, so training can only continue after an error that all of them have left the work with."""
        try:
            work()
        except (UserError, RuntimeError, MemoryError) as error:
            sentence = _sentence(error)
            if not sentence or (in_step and not distributed.is_on_all_ranks(error)):
                raise
            if not isinstance(error, PeerError):
                console.warn(f"Skipping the {product} of step {self.done}: {sentence} Training continues.")

    def _write_page(self, state="training"):
        """Write the page again. If this fails, warn and continue."""
        try:
            self.monitor.write_page(self.done, state)
        except (UserError, OSError, ValueError, ArithmeticError) as error:
            console.warn(f"Cannot write index.html of step {self.done}: {reason(error)}. Training continues.")

    def _save(self, is_last):
        """Save the step unless it is already saved. If this fails, warn and continue, except for the last step."""
        if self.saved == self.done or not distributed.is_main_process():
            return
        try:
            self.solver.save(self.done)
        except UserError as error:
            if is_last:
                raise
            effect = "Training continues, and the previous checkpoint stays until the next save"
            console.warn(f"Cannot save step {self.done}: {reason(error)}. {effect}.")
            return
        self.saved, files = self.done, self.solver.files
        try:
            files.prune(self.config.keep_checkpoints, {best_step(self.config.eval_dir, files.steps())})
        except OSError as error:
            console.warn(f"Cannot remove old checkpoints ({reason(error)}). They stay on the disk.")

    def _save_last(self):
        self._save(is_last=True)
        return self.saved


def _sentence(error):
    """Return the message for an error caused by the user or the system, an empty text for a bug."""
    return str(error) if isinstance(error, UserError) else explain(error)


def due(done, every):
    """Whether an action is due after `done` iterations. every: interval in iterations, 0 for never."""
    return every > 0 and done % every == 0


def times_due(start, stop, every):
    """Return how often an action is due in the iterations after `start`, up to `stop`."""
    return stop // every - start // every if every else 0
