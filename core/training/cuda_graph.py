"""Record an iteration as a CUDA graph and replay it, so that the CPU does not launch thousands of kernels each time."""

from contextlib import contextmanager

import torch
from munch import Munch

from core.system.errors import UserError

WARM_UP = 3  # iterations before the recording: they choose kernels and create the optimizers' moments


class RecordedIteration:
    """An Iteration that replays a CUDA graph of itself after a few calls. All batches must have the same shapes."""

    def __init__(self, iteration):
        self.iteration, self.graph, self.num_calls = iteration, None, 0
        self.stream = torch.cuda.Stream(iteration.device)  # of the warm-up

    def run(self, batch, lambda_ds, is_slow=False):
        """Do what `Iteration.run` does. The returned tensors change with the next call."""
        if is_slow:
            return self.iteration.run(batch, lambda_ds, is_slow)
        self.num_calls += 1
        if self.num_calls <= WARM_UP:
            return self._warm_up(batch, lambda_ds)
        if self.graph is None:
            self._record(batch, lambda_ds)
        for name, tensor in self.batch.items():
            tensor.copy_(batch[name])
        self.lambda_ds.copy_(lambda_ds)
        self.graph.replay()
        return self.losses

    def _warm_up(self, batch, lambda_ds):
        """Run without a graph, beside the default stream, as PyTorch asks for before a recording."""
        default = torch.cuda.current_stream()
        self.stream.wait_stream(default)
        with torch.cuda.stream(self.stream):
            losses = self.iteration.run(batch, lambda_ds)
        default.wait_stream(self.stream)
        return losses

    def _record(self, batch, lambda_ds):
        """Record an iteration on its own copies of the inputs, without computing it."""
        self.batch = Munch({name: tensor.clone() for name, tensor in batch.items()})
        self.lambda_ds = lambda_ds.clone()
        self.graph = torch.cuda.CUDAGraph()
        # Without "thread_local", the thread that pins the memory of the next batch would spoil the recording.
        with self._recordable(), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.losses = self.iteration.run(self.batch, self.lambda_ds)

    @contextmanager
    def _recordable(self):
        """Within the context, Adam can be recorded, and a lack of memory is an error, as there is no second attempt."""
        micro_batch = self.iteration.micro_batch
        groups = [group for optimizer in self.iteration.optims.values() for group in optimizer.param_groups]
        automatic, micro_batch.automatic = micro_batch.automatic, False
        for group in groups:
            group["capturable"] = True  # only here, since it is stored in checkpoints
        try:
            yield
        except torch.OutOfMemoryError as error:
            advice = "Omit --cuda_graph, or reduce --micro_batch"
            raise UserError(f"Cannot record the iteration for --cuda_graph (out of memory). {advice}.") from error
        finally:
            micro_batch.automatic = automatic
            for group in groups:
                group["capturable"] = False
