"""Study of a device: what it can do, how fast and how exact the program is on it, and what limits it.

python -m benchmarks.device                           on the GPU, 8 minutes
python -m benchmarks.device --device cpu --img_size 64 --minutes 3
python -m benchmarks.device --only facts,speed

Sections run in the order of their value: facts, agreement, commands, speed, profile, sampling, batch. Each has a time
limit and starts no measurement after it, but does not interrupt one, such as minutes of compiling. Each figure is
printed and appended to OUT/device.jsonl at once. OUT/device.md has tables of all figures.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import main as program
from benchmarks.train_step import make_inputs
from core.cli.parser import Parser
from core.cli.values import each_of
from core.dry_run import cost
from core.solver import Solver
from core.system.device import describe_device
from core.system.memory import peak_memory
from metrics.precision import set_tf32

LIMITS = {  # section -> share of the time; more than 1 in total, since few sections need all of theirs
    "facts": 0.05, "agreement": 0.1, "commands": 0.25, "speed": 0.4, "profile": 0.1, "sampling": 0.1, "batch": 0.2,
}  # fmt: skip
NARROW = "--img_size 64 --channel_base 2048 --max_conv_dim 128 --batch_size 4"
CPU_FLAGS = "--precision fp32", "--precision bf16"
CUDA_FLAGS = (
    "--precision bf16 --cuda_graph", "--precision bf16", "--precision tf32 --cuda_graph", "--precision tf32",
    "--precision fp32", "--precision bf16 --channels_last --cuda_graph", "--precision bf16 --compile",
    "--precision bf16 --compile --cuda_graph", "--precision bf16 --cuda_graph --augment ada",
)  # fmt: skip


class Study:
    """The measurements of one run. options: see `main`."""

    def __init__(self, options, folder):
        self.options, self.folder, self.out = options, Path(folder), Path(options.out)
        self.device, self.is_cuda = torch.device(options.device), options.device == "cuda"
        self.rows, self.rates, self.best = [], {}, "--precision fp32"
        self.deadline = self.end = time.monotonic() + 60 * options.minutes
        self.out.mkdir(parents=True, exist_ok=True)

    def run(self, section):
        """Run a section within its limit. An error ends only this section."""
        began = time.monotonic()
        self.deadline = min(self.end, began + 60 * self.options.minutes * LIMITS[section])
        try:
            getattr(self, section)()
        except Exception as error:  # noqa: BLE001 (the other sections go on, whatever the error is)
            (self.out / f"{section}.txt").write_text(traceback.format_exc())
            self.add(section, failed=f"{type(error).__name__}: {error}"[:300])
        (self.out / "device.md").write_text(table(self.rows), encoding="utf-8")
        print(f"{section}: {time.monotonic() - began:.0f} s", flush=True)

    def add(self, section, **figures):
        """Print a row of figures and append it to the file."""
        row = {"section": section, **figures}
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        with (self.out / "device.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def is_over(self):
        """Whether the time of the section is over."""
        return time.monotonic() > self.deadline

    def seconds(self, work, least=3, most=4.0):
        """Return the median time of work(), after two calls that do not count."""
        most = min(most, 0.01 * 60 * self.options.minutes)  # 1 % of all time
        times, began = [], time.monotonic()
        for number in range(50):
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
            if number == 1:
                times, began = [], time.monotonic()
            if len(times) >= least and time.monotonic() - began > most:
                break
        return statistics.median(times)

    def wait(self):
        """Wait until the device has finished its work."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def solver(self, flags):
        """Return a Solver with random weights for training."""
        sizes = ("img_size", "channel_base", "batch_size")
        options = " ".join(f"--{name} {vars(self.options)[name]}" for name in sizes)
        line = f"train --num_domains 3 --w_hpf 0 --lambda_ds 2 --device {self.options.device} {options} {flags}"
        return Solver(program.parse_args(line.split()))

    def facts(self):
        """Rates of a large matrix product and of a copy: the two limits."""
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        self.add("facts", device=describe_device(self.device), **versions)
        n = 8192 if self.is_cuda else 1024
        for name, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
            set_tf32(matmul=name == "tf32", convolution=False)
            a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
            self.rates[name] = 2 * n**3 / self.seconds(lambda a=a, b=b: a @ b, most=1) / 1e12
        x, y = torch.empty(2, 2**30 if self.is_cuda else 2**26, dtype=torch.uint8, device=self.device)
        copy = 2 * x.numel() / self.seconds(lambda: y.copy_(x), most=1) / 1e12
        self.add("facts", product_tflops=_rounded(self.rates), copy_tb_per_s=round(copy, 2))

    def agreement(self):
        """Largest relative difference of a loss and mean difference of a weight from the CPU in float64, after one
        iteration, or after the five that a recording needs."""

        def trained(device, dtype, flags, iterations):
            solver = self.solver(f"{NARROW} --device {device} {flags}")
            for network in (*solver.nets.values(), *solver.nets_ema.values()):
                network.to(dtype)
            for number in range(iterations):
                inputs = make_inputs(solver.config, solver.device)
                batch = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
                losses = solver.train_step(batch, number)
            weights = [p.detach().double().cpu().flatten() for net in solver.nets.values() for p in net.parameters()]
            return {name: float(value) for name, value in losses.items()}, torch.cat(weights)

        expected = {iterations: trained("cpu", torch.float64, "", iterations) for iterations in (1, 5)}
        single = [(flags, torch.float32) for flags in (CUDA_FLAGS if self.is_cuda else CPU_FLAGS)]
        for flags, dtype in [("", torch.float64), *single]:
            if self.is_over():
                break
            iterations = 5 if "--cuda_graph" in flags else 1
            losses, weights = trained(self.device, dtype, flags, iterations)
            known, known_weights = expected[iterations]
            worst = max(abs(losses[k] - v) / (abs(v) + 1e-3) for k, v in known.items())
            figures = {"loss": worst, "weight": float((weights - known_weights).abs().mean())}
            self.add("agreement", flags=flags or "float64", iterations=iterations, **figures)

    def commands(self):
        """Run the program: train, resume with another precision, sample."""
        images = f"--train_img_dir {self.folder}/train --val_img_dir {self.folder}/val"
        places = f"--device {self.options.device} --checkpoint_dir {self.folder}/c --sample_dir {self.folder}/s"
        every = "--eval_every 0 --print_every 5 --save_every 10 --sample_every 20 --num_workers 2"
        train = f"train {NARROW} --w_hpf 0 --val_batch_size 4 {images} {places} {every}"
        sample = f"sample {places} --src_dir {self.folder}/val --ref_dir {self.folder}/val --result_dir {self.folder}/r"
        again = "--resume_iter latest --override --precision"
        for name, line in {
            "data": f"data.demo --out {self.folder} --train 24 --val 4",
            "train": f"main {train} --total_iters 20",
            "resume": f"main {train} --total_iters 30 {again} fp32",
            "sample": f"main {sample} --outputs reference,latent,video_ref,images",
            "bf16": f"main {train} --total_iters 40 {again} bf16",
        }.items():
            if self.is_over():
                break
            began = time.monotonic()
            call = [sys.executable, "-m", *line.split()]
            done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
            (self.out / f"command_{name}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
            self.add("commands", name=name, status=done.returncode, seconds=round(time.monotonic() - began, 1))

    def measured(self, flags):
        """Measure the iteration with these flags -> seconds, figures for a row, and a function that runs it again."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
        began = time.monotonic()
        solver = self.solver(flags)
        inputs, numbers = make_inputs(solver.config, solver.device), iter(range(10**6))
        peak_memory(self.device, reset=True)

        def work():
            solver.train_step(inputs, next(numbers))

        for _ in range(3):  # more than one, for a recording
            work()
        self.wait()
        begin = round(time.monotonic() - began, 1)
        seconds, batch = self.seconds(work), solver.config.batch_size
        estimate = cost.training(solver.config, batch)
        tflops = estimate.flops / seconds / 1e12
        rate = self.rates.get(solver.config.precision)
        figures = {
            "flags": flags, "batch": batch, "ms": round(1e3 * seconds, 1), "iterations_per_s": round(1 / seconds, 2),
            "images_per_s": round(batch / seconds, 1), "tflops": round(tflops, 1),
            "share_of_product": rate and round(tflops / rate, 3), "first_s": begin,
            "gb": round(peak_memory(self.device) / 1e9, 2), "dry_run_gb": round(cost.SCRATCH * estimate.peak / 1e9, 2),
        }  # fmt: skip
        return seconds, figures, work

    def speed(self):
        """Iterations per second and memory for flags, with the estimate of --dry_run."""
        times = {}
        for flags in CUDA_FLAGS if self.is_cuda else CPU_FLAGS:
            if self.is_over():
                self.add("speed", flags=flags, failed="no time left")
                continue
            try:
                times[flags], figures = self.measured(flags)[:2]  # The third value keeps the networks in memory.
                self.add("speed", **figures)
            except Exception as error:  # noqa: BLE001 (for example of the compiler)
                self.add("speed", flags=flags, failed=f"{type(error).__name__}: {error}"[:300])
        self.best = min(times, key=times.get, default=self.best)

    def profile(self):
        """Kernels of the fastest flags by time, and how many an iteration starts."""
        _, _, work = self.measured(self.best)
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.is_cuda else [])]
        with profile(activities=kinds) as found:
            work()
            self.wait()
        events = found.key_averages()
        key = "self_cuda_time_total" if self.is_cuda else "self_cpu_time_total"
        (self.out / "profile.txt").write_text(f"{self.best}\n{events.table(sort_by=key, row_limit=50)}")
        launches = sum(event.count for event in events if "LaunchKernel" in event.key)
        self.add("profile", flags=self.best, launches=launches)

    @torch.no_grad()
    def sampling(self):
        """Images per second of a whole translation, and of further styles of the same sources."""
        solver, size = self.solver("--precision fp32"), self.options.img_size
        G = solver.nets_ema.generator
        for batch in (1, 8, 32) if self.is_cuda else (1, 2):
            if self.is_over():
                break
            x, s = torch.rand(batch, 3, size, size, device=self.device), torch.randn(batch, 64, device=self.device)
            for precision in ("fp32", "bf16"):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
                    content = G.content(x)
                    whole = self.seconds(lambda x=x, s=s: G(x, s), most=1)
                    render = self.seconds(lambda c=content, s=s: G.render(c, s), most=1)
                rates = {"translations_per_s": round(batch / whole, 1), "renderings_per_s": round(batch / render, 1)}
                self.add("sampling", batch=batch, precision=precision, **rates)

    def batch(self):
        """Images per second of the fastest flags with larger batches."""
        for factor in (2, 4, 8):
            if self.is_over():
                break
            figures = self.measured(f"{self.best} --batch_size {factor * self.options.batch_size}")[1]
            self.add("batch", **figures)


def _rounded(numbers):
    return {name: round(value, 1) for name, value in numbers.items()}


def table(rows):
    """Return the rows of all sections as Markdown tables, one per set of columns."""
    lines, columns = [], None
    for row in rows:
        if list(row) != columns:
            columns = list(row)
            lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines.append(f"| {' | '.join(str(value) for value in row.values())} |")
    return "\n".join(lines[1:]) + "\n"


def main(argv=None):
    """Run the sections and write the tables."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", default="expr/device", help="folder for the results")
    parser.add_argument("--minutes", type=float, default=8, help="time for all sections")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="device to measure")
    parser.add_argument("--img_size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--channel_base", type=int, default=2**14, help="width of the networks")
    parser.add_argument("--batch_size", type=int, default=8, help="images per iteration")
    parser.add("only", each_of(*LIMITS), list(LIMITS), "sections to run, comma-separated")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(options, folder)
        for section in LIMITS:
            if section in options.only:
                study.run(section)


if __name__ == "__main__":
    main()
