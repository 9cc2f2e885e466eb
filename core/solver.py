"""The Solver owns networks, moving averages, optimizers and checkpoints: it trains, samples and evaluates."""

import math
import time
from functools import partial
from pathlib import Path

import torch
from munch import Munch

from core.augment import Probability, random_numbers
from core.checkpoint.init_from import load_source
from core.checkpoint.steps import NETS, NETS_EMA, OPTIMS, StepFiles
from core.cli.config import RunConfig
from core.cli.flags import SINGLE_OUTPUTS
from core.data_loader import get_sample_loader
from core.evaluation.evaluator import Evaluation, check_scorable
from core.evaluation.per_image import PerImage
from core.evaluation.score_page import write_page
from core.evaluation.scores import MODES, add_to_history, score_table, write_scores
from core.images.folders import domain_names
from core.images.shape import Shape
from core.model import build_model
from core.sampling import style_files, translate, video
from core.sampling.outputs import OutputWriter, possible_outputs
from core.sampling.single import Translator
from core.sampling.snapshots import SMALL, SMALL_CELL, SMALL_COLUMNS, snapshot_grids
from core.system import console, distributed
from core.system.device import autocast, check_cuda_graph, compiled, select_device, set_precision
from core.system.errors import UserError
from core.system.files import make_folder
from core.system.memory import MicroBatch, images_at_once
from core.system.random import random_generator
from core.training.cuda_graph import RecordedIteration
from core.training.iteration import UPDATES, Iteration
from core.training.loop import TrainLoop
from metrics.weights import MissingWeights


class Solver:
    """Networks, moving averages, optimizers and checkpoints of a run.

    args: a RunConfig, or a Namespace of main.parse_args for a new training. nets, nets_ema, optims: Munch of name ->
    module, moving average, Adam; nets and optims are empty in modes other than train. For faces (w_hpf > 0), nets and
    nets_ema share the module `fan`, which is never trained; its weights come from a checkpoint or from --wing_path.
    iteration: the training iteration of these networks (only in training). on_meta: leave the networks on the meta
    device, where they were built, for a dry run. Raises UserError if device, precision or batch size do not work here.
    """

    def __init__(self, args, on_meta=False):
        config = args if isinstance(args, RunConfig) else RunConfig.from_args(args)
        self.config, self.device = config, select_device(config.device)
        is_training = config.mode == "train"
        set_precision(config.precision, self.device)
        check_cuda_graph(is_training and config.cuda_graph, self.device)
        batch_size = distributed.local_batch_size(config.batch_size) if is_training else config.batch_size
        self.micro_batch = MicroBatch(config.micro_batch, batch_size)
        self.inference_batch = MicroBatch(config.micro_batch, config.batch_size)
        if config.micro_batch == "auto":
            self.inference_batch.size = images_at_once(self.device, config.img_size, config.batch_size)
        self.nets, self.nets_ema = build_model(config)
        if not is_training:
            self.nets = Munch()
        # auto: NHWC was not faster in any measurement, neither on CPUs nor on an H100 (docs/performance.md).
        self.memory_format = torch.channels_last if config.channels_last is True else torch.contiguous_format
        augment = config.augment if is_training else "none"
        self.augmentation = Probability(config.augment_prob if augment == "fixed" else 0)
        adapted = {"augment": self.augmentation} if augment == "ada" else {}
        modules = *self.nets.values(), *self.nets_ema.values(), self.augmentation
        for network in () if on_meta else modules:
            network.to(self.device, memory_format=self.memory_format)
        if config.compile and not is_training:
            G = self.nets_ema.generator
            G.content, G.render = compiled(G.content, any_batch=True), compiled(G.render, any_batch=True)
        self.optims = Munch({name: self._adam(name, net) for name, net in self.nets.items() if name != "fan"})
        groups = {NETS: self.nets, NETS_EMA: self.nets_ema, OPTIMS: self.optims | adapted}
        self.files = StepFiles(Path(config.checkpoint_dir), groups)
        self.iteration = Iteration(self) if is_training else None
        self.recorded = RecordedIteration(self.iteration) if is_training and config.cuda_graph else None

    def _adam(self, name, network):
        config = self.config
        lr, betas = config.f_lr if name == "mapping_network" else config.lr, (config.beta1, config.beta2)
        return torch.optim.Adam(network.parameters(), lr, betas, weight_decay=config.weight_decay, fused=True)

    # Checkpoints

    def save(self, step):
        """Write the files of a step into --checkpoint_dir. Raises UserError if this fails."""
        self.files.save(step, self.config.for_checkpoint(step))
        console.info(f"Saved step {step} in {self.config.checkpoint_dir}")

    def load(self, step):
        """Load a step of --checkpoint_dir on all ranks. Raises UserError if it is missing or does not fit."""
        distributed.on_main_process(lambda: self.read(step))
        self.broadcast()
        console.info(f"Loaded step {step} from {self.config.checkpoint_dir}")

    def read(self, step):
        """Load a step of --checkpoint_dir on this rank, without a word. Raises UserError."""
        self.files.load(step, optional={"fan": self._load_wing, "augment": lambda: None})

    def begin(self):
        """Load the initial weights of a training: from --init_from, and of the face network. Raises UserError."""
        inherited = self.config.inherited
        if inherited:
            names = self.config.names_by_label
            distributed.on_main_process(lambda: load_source(self.nets, self.nets_ema, inherited, names))
        if not (inherited and inherited["fan"]):
            distributed.on_main_process(self._load_wing)
        self.broadcast()

    def _load_wing(self):
        if "fan" in self.nets_ema:
            from core.wing import load_wing  # Only faces need this module.

            load_wing(self.nets_ema.fan, self.config.wing_path)

    def broadcast(self):
        """Copy networks, optimizers and the probability of augmentation of rank 0 to all ranks."""
        if distributed.world_size() == 1:
            return
        for module in self.files.modules():
            state = distributed.on_main_process(module.state_dict)
            if not distributed.is_main_process():
                module.load_state_dict(state)

    # Training

    def train(self, loaders):
        """Train from --resume_iter to --total_iters. loaders: Munch(src, ref, val) of DataLoaders."""
        TrainLoop(self, loaders).run()

    def train_step(self, inputs, iteration):
        """Do one iteration: two updates of D, two of G (the first with F and E), one of the moving averages.

        inputs: Munch from InputFetcher's mode "train". iteration counts from 0. Returns {loss name: scalar tensor},
        detached, without waiting for the device, and G/lambda_ds of the next iteration.
        """
        batch, config = self._to_device(inputs), self.config
        if config.augment != "none":
            count = len(batch.x_src) * distributed.world_size()
            numbers = random_numbers(config.seed, iteration, count, len(UPDATES))[distributed.shard(count)]
            is_cuda = self.device.type == "cuda"  # Others may read the numbers after they are gone.
            batch.augment = numbers.to(self.device, non_blocking=is_cuda)
        # A tensor, since torch.compile would compile again for each number.
        lambda_ds = batch.x_src.new_full((), self.lambda_ds(iteration))
        run = (self.recorded or self.iteration).run
        losses = run(batch, lambda_ds, is_slow=iteration < config.init_iters)
        return losses | {"G/lambda_ds": self.lambda_ds(iteration + 1)}

    def autocast(self):
        """Return the context for running networks, see `core.system.device.autocast`."""
        return autocast(self.device, self.config.precision)

    def _to_device(self, inputs):
        """Move a tensor or a Munch of tensors to the device. Images get the memory format of the networks."""
        if isinstance(inputs, dict):
            return Munch({name: self._to_device(tensor) for name, tensor in inputs.items()})
        return inputs.to(self.device, memory_format=self.memory_format if inputs.ndim == 4 else torch.preserve_format)

    def lambda_ds(self, iteration):
        """Return the weight of the diversity loss, which falls linearly to zero (paper, appendix B)."""
        return self.config.lambda_ds * max(0.0, 1 - iteration / self.config.ds_iter)

    def snapshot(self, step, inputs):
        """Write the images of a step. Inputs and codes are the same for all steps, for comparison."""
        config, folder = self.config, Path(self.config.sample_dir)
        codes = random_generator(config.seed, "snapshot")
        z_trg = torch.randn(config.num_outs_per_domain, config.latent_dim, generator=codes).to(self.device)
        inputs = self._to_device(inputs)
        with self.autocast():
            for name, grid in snapshot_grids(self.nets_ema, inputs, z_trg, config.num_domains, self.inference_batch):
                file = f"{step:06d}_{name}.jpg"
                grid.save(folder / file)
                grid.save_small(folder / SMALL / file, SMALL_COLUMNS, SMALL_CELL)

    # Evaluation

    def evaluation(self):
        """Return an Evaluation on the images of the run. Raises UserError if a pretrained network is missing."""
        config = self.config
        with distributed.sync_errors():
            domains = config.domains or domain_names(config.val_img_dir, "val_img_dir")
            check_scorable(domains, config.img_size)
            try:
                evaluation = Evaluation(
                    list(domains),
                    train_dir=config.train_img_dir, val_dir=config.val_img_dir, eval_dir=config.eval_dir,
                    img_size=config.img_size, outputs=config.num_outs_per_domain, batch_size=config.val_batch_size,
                    device=self.device, inference_batch=self.inference_batch, save_images=config.save_eval_images,
                    num_workers=config.num_workers, skipped_images=config.skipped_images,
                )  # fmt: skip
            except MissingWeights as error:
                hint = " Set --eval_every 0 to train without evaluation." if config.mode == "train" else ""
                raise UserError(f"{error}{hint}") from error
        evaluation.check_images()
        return evaluation

    def evaluate(self, step=None, evaluation=None, pause=lambda: None):
        """Score the moving averages, write JSON files and a page, print tables. Return {mode: {metric: mean}}.

        step: the networks' step; None loads the step --resume_iter. pause(): called after each task.
        """
        config = self.config
        evaluation = evaluation or self.evaluation()  # Report missing files before loading the step.
        if step is None:
            step = config.resume_iter
            self.load(step)
        by_mode, outputs, abouts, means, seeds = {}, {}, {}, {}, config.eval_seeds or [config.seed]
        with self.autocast():
            real = evaluation.real_images(self.nets_ema)
            for mode in MODES:
                start, outputs[mode] = time.monotonic(), PerImage()
                run = partial(evaluation.run, self.nets_ema, mode, real=real, per_image=outputs[mode], pause=pause)
                by_mode[mode] = {seed: run(seed) for seed in seeds}
                seconds = round(time.monotonic() - start, 1)
                abouts[mode] = evaluation.about(real) | {"arithmetic": config.precision, "seconds": seconds}
        for mode in MODES:
            line = partial(add_to_history, config.eval_dir, step, mode, by_mode[mode], abouts[mode])
            means[mode] = distributed.on_main_process(line)
        score_table(step, by_mode, evaluation.missing_scores(), real.classifier_accuracy)
        last_step = step if config.mode == "train" else math.inf
        write_page(config.eval_dir, step, by_mode, outputs, abouts["latent"], config.changed_flags(), last_step)
        for mode in MODES:  # These files show a resumed training that the evaluation of the step is complete.
            files = partial(write_scores, config.eval_dir, step, mode, by_mode[mode], abouts[mode])
            distributed.on_main_process(files)
        return means

    # Sampling

    def sample(self, loaders):
        """Write --outputs into --result_dir, with the networks of step --resume_iter.

        loaders: Munch(src, ref) of DataLoaders of (x, y). Their data sets need `samples`, a list of (path, label), for
        file names and single images. The labels of src are ignored. Only outputs in the style of references need ref.
        Only `video` needs loaders.clips, a list of Clips, and it does not need src.
        """
        config, nets = self.config, self.nets_ema
        self.load(config.resume_iter)
        make_folder(config.result_dir)
        writer = OutputWriter(
            nets.generator, config.result_dir, self.inference_batch,
            domains=config.names_by_label, titled=config.labels, video_format=config.video_format,
            image_format=config.format, mirrored=config.src_dir if config.mirror else None,
        )  # fmt: skip
        wanted = [(output, kind) for output in config.outputs for kind in config.style_kinds(output)]
        most = video.most_sources(config.img_size)
        try:
            with self.autocast():
                styles = {kind: self._styles(kind, loaders) for kind in config.all_style_kinds()}
                if config.save_styles is not None:
                    number = style_files.save(config.save_styles, styles.values(), nets, config.names_by_label)
                    console.info(f"Wrote {console.counted(number, 'style')} to {config.save_styles}")
                wanted = possible_outputs(wanted, styles)
                shared = [(output, kind) for output, kind in wanted if output not in SINGLE_OUTPUTS]
                groups = translate.source_groups(
                    nets, loaders.get("src"), most, self.inference_batch, self._to_device,
                    domains=config.names_by_label, strength=config.strength,
                )  # fmt: skip
                for sources in groups if shared else ():
                    for output, kind in shared:
                        writer.write(output, sources, styles[kind])
                translator = self.translator(config.strength)
                for output, kind in wanted:
                    if output == "video":
                        writer.clips(loaders.clips, styles[kind], translator)
                    elif output in SINGLE_OUTPUTS:
                        samples, fit = loaders.src.dataset.samples, translator.shape.fit
                        pictures = get_sample_loader(samples, fit, None, config.num_workers, collate_fn=tuple)
                        writer.images([path for path, _ in samples], pictures, styles[kind], translator)
        finally:
            writer.finish(config.changed_flags())  # Complete and list the outputs even after an unreadable source.

    def translator(self, strength=1):
        """Return a Translator of single images in the shapes of --resize."""
        shape = Shape(self.config.img_size, self.config.resize, self.config.restore_shape)
        return Translator(self.nets_ema, shape, self._to_device, strength)

    def _styles(self, kind, loaders):
        """Return the styles of --styles, of the references, or of --seeds in the domains of --target_domains."""
        config, nets = self.config, self.nets_ema
        if kind == "file":
            return style_files.named_styles(config.styles, nets, config)
        if kind == "reference":
            encoder, shown = nets.style_encoder, not {"reference", "video_ref"}.isdisjoint(config.outputs)
            return translate.reference_styles(encoder, loaders.ref, self._to_device, shown)
        labels = config.target_labels() or range(config.num_domains)
        return translate.seed_styles(nets.mapping_network, labels, config.seeds, config.psi, config.latent_dim)
