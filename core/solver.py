"""The Solver owns networks, moving averages, optimizers and checkpoints, and trains and samples."""

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from munch import Munch
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.checkpoint import init_from
from core.checkpoint.describe import network_config, target_labels
from core.checkpoint.steps import NETS, NETS_EMA, OPTIMS, StepFiles
from core.cli.args import changed_flags, style_kinds
from core.evaluation.evaluator import MODES, Evaluation, check_scorable
from core.evaluation.scores import score_table, write_scores
from core.images.folders import domain_names
from core.losses import discriminator_loss, generator_loss
from core.model import Content, build_model, compile_networks
from core.sampling import translate, video
from core.sampling.outputs import OutputWriter
from core.sampling.snapshots import SMALL, SMALL_CELL, SMALL_COLUMNS, snapshot_grids
from core.system import console, device, distributed, random
from core.system.errors import UserError
from core.system.files import make_folder
from core.system.memory import MicroBatch, chunks, images_at_once
from core.training import loop, slow_start
from metrics.weights import MissingWeights


class Solver:
    """args: the Namespace of main.parse_args, with num_domains settled.

    nets, nets_ema, optims: Munch of name -> module, moving average, Adam. Modes other than train need
    the averages only, so nets and optims are then empty. For faces (w_hpf > 0) nets and nets_ema hold one and the
    same `fan`, which is never trained; its weights come from a checkpoint, else from args.wing_path. Raises UserError
    where device, precision or batch size cannot be had.
    """

    def __init__(self, args):
        self.args = args
        self.device = device.select_device(args.device)
        device.set_precision(args.precision, self.device)
        learned = distributed.local_batch_size(args.batch_size) if args.mode == "train" else args.batch_size
        self.micro_batch = MicroBatch(args.micro_batch, learned)
        self.drawing = MicroBatch(args.micro_batch, args.batch_size)  # of pictures, where nothing is learned
        if args.micro_batch == "auto":
            self.drawing.size = images_at_once(self.device, args.img_size, args.batch_size)
        self.nets, self.nets_ema = build_model(args)
        if args.mode != "train":
            self.nets = Munch()
        order = torch.channels_last if args.channels_last else torch.contiguous_format
        for network in [*self.nets.values(), *self.nets_ema.values()]:
            network.to(self.device, memory_format=order)
        if args.compile:
            compile_networks(self.nets or self.nets_ema)
        self.optims = Munch({name: self._adam(name, net) for name, net in self.nets.items() if name != "fan"})
        self.average = get_ema_multi_avg_fn(args.ema_decay)
        groups = {NETS: self.nets, NETS_EMA: self.nets_ema, OPTIMS: self.optims}
        self.archive = StepFiles(Path(args.checkpoint_dir), groups)
        self.paces = slow_start.paces(args, self.nets) if args.init_iters and args.inherited else {}
        self.is_slow = False  # whether what was inherited learns more slowly now
        self.bad_updates, self.bad_in_a_row = {}, {}  # name of an update -> how many were skipped

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
        """Write the files of a step into args.checkpoint_dir. Raises UserError where the disk is full or gone."""
        self.archive.save(step, network_config(self.args, step))
        console.info(f"Saved step {step} in {self.args.checkpoint_dir}")

    def load(self, step):
        """Load a step of args.checkpoint_dir in all processes. Raises UserError where it is missing or does not fit."""
        distributed.on_main_process(lambda: self.archive.load(step, {"fan": self.load_wing}))
        self.share()
        console.info(f"Loaded step {step} from {self.args.checkpoint_dir}")

    def begin(self):
        """Take over the networks of args.init_from, if any, and the face network's weights. Raises UserError."""
        if self.args.inherited:
            init_from.load(self.nets, self.nets_ema, self.args)
        if not (self.args.inherited and self.args.inherited["fan"]):
            self.load_wing()

    def load_wing(self):
        """Load the face network from args.wing_path, if there is one to be loaded. Raises UserError."""
        if "fan" in self.nets_ema:
            from core.wing import load_wing

            load_wing(self.nets_ema.fan, self.args.wing_path)

    def share(self):
        """Make networks and optimizers of all processes those of the first."""
        for module in self.archive.modules() if distributed.world_size() > 1 else ():
            state = distributed.on_main_process(module.state_dict)
            if not distributed.is_main_process():
                module.load_state_dict(state)

    # Training

    def train_step(self, inputs, iteration):
        """One whole iteration: two updates of D, two of G (the first one with F and E), the averages.

        inputs: Munch from InputFetcher's mode "train"; iteration counts from 0. Returns {loss name:
        scalar tensor}, detached and not yet waited for, and G/lambda_ds of the next iteration. Beside them
        `meters` holds what no loss uses: G/latent_src and G/ref_src, the distance of outputs to their source.
        """
        nets, args = self.nets, self.args
        self.is_slow = iteration < args.init_iters
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
            images = (batch.x_src, batch.y_src, batch.y_ref)
            return generator_loss(nets, *images, s_trg, s_trg2, *weights, batch.content.masks)

        latent = {"style_network": nets.mapping_network, "code": "z_trg"}
        reference = {"style_network": nets.style_encoder, "code": "x_ref"}
        everyone = ("generator", "mapping_network", "style_encoder")
        losses = {}
        losses |= self.update("D/latent_", ("discriminator",), partial(loss_d, **latent), inputs)
        losses |= self.update("D/ref_", ("discriminator",), partial(loss_d, **reference), inputs)
        losses |= self.update("G/latent_", everyone, partial(loss_g, **latent), inputs)
        losses |= self.update("G/ref_", ("generator",), partial(loss_g, **reference), inputs)
        self.update_averages()
        self.meters = {name: losses.pop(name) for name in list(losses) if name.endswith("_src")}
        return losses | {"G/lambda_ds": self.lambda_ds(iteration + 1)}

    def update(self, prefix, learners, loss_of, inputs):
        """Step the learners down loss_of(inputs); the other networks stand still, without weight gradients.

        loss_of returns (loss, {name: part}), means over images. Returns {prefix + name: part}.
        """
        for name, network in self.nets.items():
            network.requires_grad_(name in learners)
        parts = self.micro_batch.fit(lambda size: self._accumulate(learners, loss_of, inputs, size))
        parameters = [p for name in learners for p in self.nets[name].parameters()]
        gradients = [p.grad for p in parameters if p.grad is not None]
        distributed.all_reduce_mean([*gradients, *parts.values()])
        self._step(prefix, learners, gradients, parts)
        return {prefix + name: part for name, part in parts.items()}

    def _step(self, prefix, learners, gradients, parts):
        """Step the learners; where a gradient or a part of the loss is no number nobody moves, and that is counted."""
        norm = get_total_norm(gradients)
        bad = (~(norm + sum(parts.values())).isfinite()).float()
        self.bad_updates[prefix] = self.bad_updates.get(prefix, 0) + bad
        self.bad_in_a_row[prefix] = (self.bad_in_a_row.get(prefix, 0) + 1) * bad
        for name in learners:
            self.optims[name].found_inf = bad  # on the device, as for a GradScaler: fused Adam then does not step
            slow = self.is_slow and name in self.paces
            with slow_start.slowed(self.nets[name], self.paces[name]) if slow else nullcontext():
                self.optims[name].step()

    def _accumulate(self, learners, loss_of, inputs, size):
        """Leave the gradient of the batch's loss in the learners, `size` images at a time; return its parts.

        Losses are means over images and no network mixes images, so weighted pieces add up exactly.
        """
        for name in learners:
            self.optims[name].zero_grad()
        count, parts = len(inputs.x_src), {}
        for images in chunks(count, size):
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
                return Content.of(self.nets, x_src, size)

        return self.micro_batch.fit(content)

    def _arithmetic(self):
        return device.autocast(self.device, self.args.precision)

    def _place(self, tensor):
        """A tensor on the device, images in the order the networks want."""
        if tensor.ndim == 4 and self.args.channels_last:
            return tensor.to(self.device, memory_format=torch.channels_last)
        return tensor.to(self.device)

    @torch.no_grad()
    def update_averages(self):
        """Average G, F and E over iterations: args.ema_decay of what was, the rest of what is (paper, appendix B)."""
        for name in self.nets_ema.keys() - {"fan"}:
            average = self.nets_ema[name]
            self.average(list(average.parameters()), list(self.nets[name].parameters()), None)

    def lambda_ds(self, iteration):
        """The weight of diversity falls linearly to zero (paper, appendix B); a function of the iteration."""
        return self.args.lambda_ds * max(0.0, 1 - iteration / self.args.ds_iter)

    def train(self, loaders):
        """Train from args.resume_iter to args.total_iters on Munch(src, ref, val) of DataLoaders."""
        loop.run(self, loaders)

    def snapshot(self, step, inputs):
        """Write the pictures of a step from fixed inputs and codes, so that steps can be compared."""
        self.drawing.fit(partial(self._snapshot, step, inputs))

    def _snapshot(self, step, inputs, size):
        args = self.args
        inputs = Munch({name: self._place(tensor) for name, tensor in inputs.items()})
        codes = random.random_generator(args.seed, "snapshot")
        z_trg = torch.randn(args.num_outs_per_domain, args.latent_dim, generator=codes).to(self.device)
        with self._arithmetic():
            for name, grid in snapshot_grids(self.nets_ema, inputs, z_trg, args.num_domains, size):
                file = f"{step:06d}_{name}.jpg"
                grid.save(Path(args.sample_dir, file))
                grid.save_small(Path(args.sample_dir, SMALL, file), SMALL_COLUMNS, SMALL_CELL)

    # Evaluation

    def evaluation(self):
        """What scores networks on the images of args. Raises UserError where its pretrained networks are missing."""
        with distributed.sync_errors():
            found = self._evaluation()
        found.check_images()
        return found

    def _evaluation(self):
        args = self.args
        domains = args.domains or domain_names(args.val_img_dir, "val_img_dir")
        check_scorable(domains, args.img_size)
        folders = (args.train_img_dir, args.val_img_dir, args.eval_dir)
        sizes = (args.img_size, args.num_outs_per_domain, args.val_batch_size)
        options = (self.device, self.drawing.fit, args.save_eval_images, args.num_workers, args.left_out)
        try:
            return Evaluation(domains, *folders, *sizes, *options)
        except MissingWeights as error:
            hint = "; --eval_every 0 trains without evaluation" if args.mode == "train" else ""
            raise UserError(f"{error}{hint}") from error

    def evaluate(self, step=None, evaluation=None, pause=lambda: None):
        """Score the averages, write the JSON files and print the table; return {mode: {metric: mean}}.

        step: what the networks are; None: the step args.resume_iter is loaded. pause(): called after each task.
        """
        args = self.args
        evaluation = evaluation or self.evaluation()  # before anything is loaded or drawn
        if step is None:
            step = args.resume_iter
            self.load(step)
        means, by_mode = {}, {}
        for mode in MODES:
            began = time.monotonic()
            run = partial(evaluation.run, self.nets_ema, mode, pause=pause)
            with self._arithmetic():
                by_mode[mode] = {seed: run(seed) for seed in args.eval_seeds or [args.seed]}
            about = evaluation.about() | {"precision": args.precision, "seconds": round(time.monotonic() - began, 1)}
            write = partial(write_scores, args.eval_dir, step, mode, by_mode[mode], about)
            means[mode] = distributed.on_main_process(write)
        score_table(step, by_mode)
        return means

    # Sampling

    def sample(self, loaders):
        """Write args.outputs into args.result_dir, with the networks of the step args.resume_iter.

        loaders: Munch(src, ref) of DataLoaders of (x, y). The labels of src do not matter; ref is needed by
        outputs in the style of references only. Names are those of the data set's `samples`, (path, label).
        """
        args, nets, fit = self.args, self.nets_ema, self.drawing.fit
        self.load(args.resume_iter)
        make_folder(args.result_dir)
        domains = args.domains or [str(label) for label in range(args.num_domains)]
        results = OutputWriter(nets.generator, args.result_dir, fit, domains, args.labels, args.video_format)
        wanted = [(output, kind) for output in args.outputs for kind in style_kinds(args, output)]
        try:
            with self._arithmetic():
                styles = {kind: self._styles(kind, loaders, domains) for kind in {kind for _, kind in wanted}}
                wanted = _possible(wanted, styles)
                most = video.most_sources(args.img_size)
                for sources in translate.source_groups(nets, loaders.src, most, fit, self._place):
                    for output, kind in wanted:
                        results.write(output, sources, styles[kind])
        finally:
            results.finish(changed_flags(args))  # what was written before an unreadable source is whole, and listed

    def _styles(self, kind, loaders, domains):
        """The styles of the references, or of args.seeds, in the domains of args.target_domains."""
        args, nets = self.args, self.nets_ema
        if kind == "reference":
            shown = not {"reference", "video_ref"}.isdisjoint(args.outputs)
            return translate.reference_styles(nets.style_encoder, loaders.ref, self.drawing.fit, self._place, shown)
        labels = target_labels(args.target_domains, domains) or range(args.num_domains)
        return translate.seed_styles(nets.mapping_network, labels, args.seeds, args.psi, args.latent_dim)


def _possible(wanted, styles):
    """The outputs of (output, kind of styles) that can be made. Raises UserError where that is none."""
    lone = [output for output, kind in wanted if "video" in output and not video.style_pairs(styles[kind].labels)]
    sentence = f"no {', '.join(lone)}: a video needs two references, or two seeds, of one domain"
    if len(lone) == len(wanted):
        raise UserError(sentence)
    if lone:
        console.warn(sentence)
    return [(output, kind) for output, kind in wanted if output not in lone]
