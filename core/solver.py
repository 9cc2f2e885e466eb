"""The Solver owns networks, moving averages, optimizers and checkpoints, and trains and samples."""

import time
from pathlib import Path

import torch
from munch import Munch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core import log, runtime, sampling, video
from core.checkpoint import CheckpointIO
from core.data_loader import InputFetcher
from core.errors import UserError
from core.files import make_folder
from core.losses import discriminator_loss, generator_loss
from core.model import build_model
from core.options import network_config

NETS, NETS_EMA, OPTIMS = "{:06d}_nets.ckpt", "{:06d}_nets_ema.ckpt", "{:06d}_optims.ckpt"


class Solver:
    """args: the Namespace of main.parse_args, with num_domains settled.

    nets, nets_ema, optims: Munch of name -> module, moving average, Adam. Modes other than train need
    the averages only, so nets and optims are then empty.
    """

    def __init__(self, args):
        if args.w_hpf > 0:
            raise UserError(
                f"--w_hpf {args.w_hpf:g} needs the face network, which this version does not have yet: "
                "give --w_hpf 0 (right for anything but aligned faces)"
            )
        self.args = args
        self.device = runtime.select_device(args.device)
        runtime.use_exact_float32()
        self.nets, self.nets_ema = build_model(args)
        if args.mode != "train":
            self.nets = Munch()
        for network in [*self.nets.values(), *self.nets_ema.values()]:
            network.to(self.device)
        self.optims = Munch({name: self._adam(name, net) for name, net in self.nets.items()})
        self.average = get_ema_multi_avg_fn(args.ema_decay)
        groups = {NETS: self.nets, NETS_EMA: self.nets_ema, OPTIMS: self.optims}
        self.checkpoints = [CheckpointIO(args.checkpoint_dir, name, **group) for name, group in groups.items() if group]

    def _adam(self, name, network):
        args = self.args
        return torch.optim.Adam(
            network.parameters(),
            lr=args.f_lr if name == "mapping_network" else args.lr,
            betas=(args.beta1, args.beta2),
            weight_decay=args.weight_decay,
        )

    def save(self, step):
        for checkpoint in self.checkpoints:
            checkpoint.save(step, network_config(self.args, step))
        log.say(f"Saved step {step} in {self.args.checkpoint_dir}")

    def load(self, step):
        """Load everything this Solver has. The optimizers keep the flags' rates, not the file's."""
        flags = {name: [_hyper(group) for group in o.param_groups] for name, o in self.optims.items()}
        for checkpoint in self.checkpoints:
            checkpoint.load(step)
        for name, optimizer in self.optims.items():
            for group, given in zip(optimizer.param_groups, flags[name], strict=True):
                group.update(given)
        log.say(f"Loaded step {step} from {self.args.checkpoint_dir}")

    # Training

    def train_step(self, inputs, iteration):
        """One whole iteration (SPEC: two updates of D, two of G, the moving average).

        inputs: Munch from InputFetcher's mode "train"; iteration counts from 0.
        Returns {loss name: scalar tensor}, detached and not yet waited for, and G/lambda_ds of the next.
        """
        nets, args = self.nets, self.args
        inputs = Munch({name: tensor.to(self.device) for name, tensor in inputs.items()})
        x_src, y_org, y_trg = inputs.x_src, inputs.y_src, inputs.y_ref
        lambda_ds = self.lambda_ds(iteration)
        with torch.no_grad():  # G stands still in both updates of D
            content = nets.generator.content(x_src)

        def loss_d(style_network, code):
            with torch.no_grad():
                x_fake = nets.generator.render(content, style_network(code, y_trg))
            return discriminator_loss(nets.discriminator, x_src, y_org, x_fake, y_trg, args.lambda_reg)

        def loss_g(style_network, code, code2):
            s_trg = style_network(code, y_trg)
            with torch.no_grad():
                s_trg2 = style_network(code2, y_trg)
            weights = (args.lambda_sty, lambda_ds, args.lambda_cyc)
            return generator_loss(nets, x_src, y_org, y_trg, s_trg, s_trg2, *weights)

        F, E = nets.mapping_network, nets.style_encoder
        everyone = ("generator", "mapping_network", "style_encoder")
        losses = {}
        losses |= self.update("D/latent_", ("discriminator",), lambda: loss_d(F, inputs.z_trg))
        losses |= self.update("D/ref_", ("discriminator",), lambda: loss_d(E, inputs.x_ref))
        losses |= self.update("G/latent_", everyone, lambda: loss_g(F, inputs.z_trg, inputs.z_trg2))
        losses |= self.update("G/ref_", ("generator",), lambda: loss_g(E, inputs.x_ref, inputs.x_ref2))
        self.update_averages()
        return losses | {"G/lambda_ds": self.lambda_ds(iteration + 1)}

    def update(self, prefix, learners, loss_of_networks):
        """Step the learners down a loss; the other networks stand still and get no weight gradients."""
        for name, network in self.nets.items():
            network.requires_grad_(name in learners)
        loss, parts = loss_of_networks()
        for name in learners:
            self.optims[name].zero_grad()
        loss.backward()
        for name in learners:
            self.optims[name].step()
        return {prefix + name: part for name, part in parts.items()}

    @torch.no_grad()
    def update_averages(self):
        for name, average in self.nets_ema.items():
            self.average(list(average.parameters()), list(self.nets[name].parameters()), None)

    def lambda_ds(self, iteration):
        """The weight of diversity falls linearly to zero (paper, appendix B); a function of the iteration."""
        return self.args.lambda_ds * max(0.0, 1 - iteration / self.args.ds_iter)

    def train(self, loaders):
        """Train from args.resume_iter to args.total_iters on Munch(src, ref, val) of DataLoaders."""
        args = self.args
        start = args.resume_iter
        for folder in (args.checkpoint_dir, args.sample_dir):
            make_folder(folder)
        rows = args.num_outs_per_domain * len(sampling.shown_domains(args.num_domains))
        sampling.check_grid_side(max(args.val_batch_size, rows), args.img_size)
        if start:
            self.load(start)
        elif self.checkpoints[0].steps():
            log.warn(f"{args.checkpoint_dir} holds an earlier run, whose files equal steps of this one will replace")
        inputs_of = InputFetcher(loaders.src, loaders.ref, args.latent_dim, "train", args.seed, start, self.device)
        fixed = next(InputFetcher(loaders.val, mode="val", device=self.device))  # the same at every snapshot
        began = time.monotonic()
        with log.progress(range(start, args.total_iters), initial=start, total=args.total_iters, unit="it") as bar:
            for iteration in bar:
                losses = self.train_step(next(inputs_of), iteration)
                done = iteration + 1
                if due(done, args.print_every):
                    log.loss_line(time.monotonic() - began, done, args.total_iters, losses)
                if due(done, args.save_every) or done == args.total_iters:
                    self.save(done)
                if due(done, args.sample_every):
                    self.snapshot(done, fixed)

    def snapshot(self, step, inputs):
        """Write the pictures of a step from fixed inputs and codes, so that steps can be compared."""
        args, nets, batch = self.args, self.nets_ema, self.args.batch_size
        x_src, x_ref = inputs.x_src, inputs.x_ref
        codes = runtime.random_generator(args.seed, "snapshot")
        z_trg = torch.randn(args.num_outs_per_domain, args.latent_dim, generator=codes).to(x_src)
        sources = sampling.read_sources(nets.generator, x_src.split(batch))
        references = sampling.read_references(
            nets.style_encoder, zip(x_ref.split(batch), inputs.y_ref.split(batch), strict=True)
        )
        prefix = Path(args.sample_dir) / f"{step:06d}"
        cycle = sampling.cycle_grid(nets, x_src, inputs.y_src, x_ref, inputs.y_ref, batch)
        cycle.save(f"{prefix}_cycle_consistency.jpg")
        sampling.reference_grid(nets.generator, sources, references, batch).save(f"{prefix}_reference.jpg")
        domains = sampling.shown_domains(args.num_domains)
        means, styles = sampling.latent_styles(nets.mapping_network, z_trg, domains, args.seed)
        for psi in sampling.PSIS:
            truncated = torch.lerp(means, styles, psi).flatten(0, 1)  # (domains * codes, style_dim)
            grid = sampling.latent_grid(nets.generator, sources, truncated, batch)
            grid.save(f"{prefix}_latent_psi_{psi}.jpg")

    # Sampling

    def sample(self, loaders):
        """Write reference.jpg and video_ref.mp4 into args.result_dir, from the step args.resume_iter.

        loaders: Munch(src, ref) of DataLoaders of (x, y); the labels of src do not matter.
        """
        args, nets = self.args, self.nets_ema
        self.load(args.resume_iter)
        make_folder(args.result_dir)
        sources = sampling.read_sources(
            nets.generator, (x.to(self.device) for x, _ in log.progress(loaders.src, desc="sources"))
        )
        references = sampling.read_references(
            nets.style_encoder,
            ((x.to(self.device), y.to(self.device)) for x, y in log.progress(loaders.ref, desc="references")),
        )
        self._write_grids(sources, references)
        pairs = video.reference_pairs(references.labels)
        if pairs:
            self._write_videos(sources, references, pairs)
        else:
            log.warn("no video: it needs two references of one domain, in the same sub-folder of --ref_dir")

    def _write_grids(self, sources, references):
        generator, batch = self.nets_ema.generator, self.args.batch_size
        pages = sampling.grid_pages(len(sources.shown), len(references.shown), self.args.img_size)
        for number, (s, r) in enumerate(pages, start=1):
            grid = sampling.reference_grid(generator, sources.part(s), references.part(r), batch)
            self._write("reference", ".jpg", number, grid.save)

    def _write_videos(self, sources, references, pairs):
        generator, batch = self.nets_ema.generator, self.args.batch_size
        for number, s in enumerate(video.video_pages(len(sources.shown), self.args.img_size), start=1):
            frames = video.reference_frames(generator, sources.part(s), references, pairs, batch)
            frames = log.progress(frames, total=video.frame_count(pairs), desc="video", unit="frame")
            self._write("video_ref", ".mp4", number, lambda path, frames=frames: video.write_video(path, frames))

    def _write(self, name, suffix, number, write):
        """Write page `number` of a result; the first one has the plain name."""
        path = Path(self.args.result_dir) / f"{name}{f'_{number}' if number > 1 else ''}{suffix}"
        write(path)
        log.say(f"Wrote {path}")


def due(done, every):
    """Whether `done` iterations call for what happens `every` so many; 0 is never."""
    return every > 0 and done % every == 0


def _hyper(group):
    return {name: value for name, value in group.items() if name != "params"}
