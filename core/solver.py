"""The Solver owns networks, moving averages, optimizers and checkpoints, and trains and samples."""

import time
from functools import partial
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
from core.model import Content, build_model, compile_networks
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
        runtime.set_precision(args.precision, self.device)
        self.micro_batch = runtime.MicroBatch(args.micro_batch, args.batch_size)
        self.nets, self.nets_ema = build_model(args)
        if args.mode != "train":
            self.nets = Munch()
        order = torch.channels_last if args.channels_last else torch.contiguous_format
        for network in [*self.nets.values(), *self.nets_ema.values()]:
            network.to(self.device, memory_format=order)
        if args.compile:
            compile_networks(self.nets or self.nets_ema)
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
            fused=True,
        )

    def save(self, step):
        for checkpoint in self.checkpoints:
            checkpoint.save(step, network_config(self.args, step))
        log.say(f"Saved step {step} in {self.args.checkpoint_dir}")

    def load(self, step):
        for checkpoint in self.checkpoints:
            checkpoint.load(step)
        log.say(f"Loaded step {step} from {self.args.checkpoint_dir}")

    # Training

    def train_step(self, inputs, iteration):
        """One whole iteration: two updates of D, two of G (the first one with F and E), the averages.

        inputs: Munch from InputFetcher's mode "train"; iteration counts from 0. Returns {loss name:
        scalar tensor}, detached and not yet waited for, and G/lambda_ds of the next iteration.
        """
        nets, args = self.nets, self.args
        inputs = Munch({name: self._place(tensor) for name, tensor in inputs.items()})
        inputs.content = self._content(inputs.x_src)  # G stands still in both updates of D
        lambda_ds = self.lambda_ds(iteration)

        def loss_d(batch, style_network, code):
            with torch.no_grad():
                x_fake = nets.generator.render(batch.content, style_network(batch[code], batch.y_ref))
            return discriminator_loss(
                nets.discriminator, batch.x_src, batch.y_src, x_fake, batch.y_ref, args.lambda_reg
            )

        def loss_g(batch, style_network, code):
            s_trg = style_network(batch[code], batch.y_ref)
            with torch.no_grad():
                s_trg2 = style_network(batch[f"{code}2"], batch.y_ref)
            weights = (args.lambda_sty, lambda_ds, args.lambda_cyc)
            return generator_loss(nets, batch.x_src, batch.y_src, batch.y_ref, s_trg, s_trg2, *weights)

        latent = {"style_network": nets.mapping_network, "code": "z_trg"}
        reference = {"style_network": nets.style_encoder, "code": "x_ref"}
        everyone = ("generator", "mapping_network", "style_encoder")
        losses = {}
        losses |= self.update("D/latent_", ("discriminator",), partial(loss_d, **latent), inputs)
        losses |= self.update("D/ref_", ("discriminator",), partial(loss_d, **reference), inputs)
        losses |= self.update("G/latent_", everyone, partial(loss_g, **latent), inputs)
        losses |= self.update("G/ref_", ("generator",), partial(loss_g, **reference), inputs)
        self.update_averages()
        return losses | {"G/lambda_ds": self.lambda_ds(iteration + 1)}

    def update(self, prefix, learners, loss_of, inputs):
        """Step the learners down loss_of(inputs); the other networks stand still, without weight gradients."""
        for name, network in self.nets.items():
            network.requires_grad_(name in learners)
        parts = self.micro_batch.fit(lambda size: self._accumulate(learners, loss_of, inputs, size))
        for name in learners:
            self.optims[name].step()
        return {prefix + name: part for name, part in parts.items()}

    def _accumulate(self, learners, loss_of, inputs, size):
        """Leave the gradient of the batch's loss in the learners, `size` images at a time; return its parts.

        Losses are means over images and no network mixes images, so weighted pieces add up exactly.
        """
        for name in learners:
            self.optims[name].zero_grad()
        count, parts = len(inputs.x_src), {}
        for images in runtime.chunks(count, size):
            share = (images.stop - images.start) / count
            with self._arithmetic():
                loss, piece = loss_of(Munch({name: value[images] for name, value in inputs.items()}))
            (share * loss).backward()
            parts = {name: parts.get(name, 0) + share * part for name, part in piece.items()}
        return parts

    @torch.no_grad()
    def _content(self, x_src):
        def content(size):
            with self._arithmetic():
                return Content.join([self.nets.generator.content(part) for part in x_src.split(size)])

        return self.micro_batch.fit(content)

    def _arithmetic(self):
        return runtime.autocast(self.device, self.args.precision)

    def _place(self, tensor):
        """A tensor on the device, images in the order the networks want."""
        if tensor.ndim == 4 and self.args.channels_last:
            return tensor.to(self.device, memory_format=torch.channels_last)
        return tensor.to(self.device)

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
            found = ", ".join(map(str, self.checkpoints[0].steps()))
            log.warn(
                f"{args.checkpoint_dir} holds the steps {found} of an earlier run: equal ones are replaced, others "
                "stay, and sampling takes the highest; another --checkpoint_dir keeps them apart"
            )
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
        self.micro_batch.fit(partial(self._snapshot, step, inputs))

    def _snapshot(self, step, inputs, size):
        args, nets = self.args, self.nets_ema
        x_src, x_ref, y_ref = self._place(inputs.x_src), self._place(inputs.x_ref), inputs.y_ref
        codes = runtime.random_generator(args.seed, "snapshot")
        z_trg = torch.randn(args.num_outs_per_domain, args.latent_dim, generator=codes).to(x_src)
        domains = sampling.shown_domains(args.num_domains)
        prefix = Path(args.sample_dir) / f"{step:06d}"
        with self._arithmetic():
            sources = sampling.read_sources(nets.generator, x_src.split(size))
            batches = zip(x_ref.split(size), y_ref.split(size), strict=True)
            references = sampling.read_references(nets.style_encoder, batches)
            cycle = sampling.cycle_grid(nets, x_src, inputs.y_src, x_ref, y_ref, size)
            cycle.save(f"{prefix}_cycle_consistency.jpg")
            grid = sampling.reference_grid(nets.generator, sources, references, size)
            grid.save(f"{prefix}_reference.jpg")
            means, styles = sampling.latent_styles(nets.mapping_network, z_trg, domains, args.seed)
            for psi in sampling.PSIS:
                truncated = torch.lerp(means, styles, psi).flatten(0, 1)  # (domains * codes, style_dim)
                grid = sampling.latent_grid(nets.generator, sources, truncated, size)
                grid.save(f"{prefix}_latent_psi_{psi}.jpg")

    # Sampling

    def sample(self, loaders):
        """Write reference.jpg and video_ref.mp4 into args.result_dir, from the step args.resume_iter.

        loaders: Munch(src, ref) of DataLoaders of (x, y); the labels of src do not matter.
        """
        self.load(self.args.resume_iter)
        make_folder(self.args.result_dir)
        with self._arithmetic():
            sources, references = self.micro_batch.fit(partial(self._read, loaders))
            self._write_grids(sources, references)
            pairs = video.reference_pairs(references.labels)
            if pairs:
                self._write_videos(sources, references, pairs)
            else:
                log.warn("no video: it needs two references of one domain, in the same sub-folder of --ref_dir")

    def _read(self, loaders, size):
        def pieces(loader, name):
            for batch in log.progress(loader, desc=name):
                yield from zip(*(self._place(tensor).split(size) for tensor in batch), strict=True)

        sources = sampling.read_sources(self.nets_ema.generator, (x for x, _ in pieces(loaders.src, "sources")))
        return sources, sampling.read_references(self.nets_ema.style_encoder, pieces(loaders.ref, "references"))

    def _write_grids(self, sources, references):
        pages = sampling.grid_pages(len(sources.shown), len(references.shown), self.args.img_size)
        for number, (s, r) in enumerate(pages, start=1):
            draw = partial(sampling.reference_grid, self.nets_ema.generator, sources.part(s), references.part(r))
            self._write("reference", ".jpg", number, self.micro_batch.fit(draw).save)

    def _write_videos(self, sources, references, pairs):
        def write(path, part, size):
            frames = video.reference_frames(self.nets_ema.generator, part, references, pairs, size)
            total = video.frame_count(pairs)
            video.write_video(path, log.progress(frames, total=total, desc="video", unit="frame"))

        for number, s in enumerate(video.video_pages(len(sources.shown), self.args.img_size), start=1):
            part = sources.part(s)
            self._write(
                "video_ref", ".mp4", number, lambda path, part=part: self.micro_batch.fit(partial(write, path, part))
            )

    def _write(self, name, suffix, number, write):
        """Write page `number` of a result; the first one has the plain name."""
        path = Path(self.args.result_dir) / f"{name}{f'_{number}' if number > 1 else ''}{suffix}"
        write(path)
        log.say(f"Wrote {path}")


def due(done, every):
    """Whether `done` iterations call for what happens `every` so many; 0 is never."""
    return every > 0 and done % every == 0
