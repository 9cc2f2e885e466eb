"""What a run goes on from, and on which images: settled by the first process before anything is built."""

from pathlib import Path

from core.checkpoint.describe import recall, settle_domains
from core.checkpoint.init_from import adopt
from core.checkpoint.io import newest_step
from core.checkpoint.resume import find_flaw, newest_whole_step
from core.checkpoint.steps import NETS_EMA
from core.images.check import check_images
from core.images.folders import domain_names
from core.system import console, distributed
from core.system.errors import UserError


def for_training(args):
    """Choose the step to go on from, hold the folders against it, look at the images; return whether to go on."""
    return _by_first(args, _training)


def for_evaluation(args):
    """Choose the step to score, and hold the folders against it."""
    _by_first(args, _evaluation)


def step(args):
    """Choose the newest step where none is asked for, and take from it what the networks are."""
    if args.resume_iter in (0, "latest"):
        args.resume_iter = newest_step(args.checkpoint_dir, NETS_EMA)
    recall(args, NETS_EMA, args.resume_iter)


def _by_first(args, settled):
    """Let the first process settle args, and give all what it makes of them; return what it returns."""

    def work():
        before = dict(vars(args))
        answer = settled(args)
        changed = {name: value for name, value in vars(args).items() if value != before.get(name)}
        return answer, changed | {"left_out": list(map(str, args.left_out))}

    answer, changed = distributed.on_main_process(work)
    vars(args).update(changed, left_out=set(map(Path, changed["left_out"])))
    return answer


def _training(args):
    if not _start(args):
        return False
    _inherit(args)
    has_fan = args.resume_iter or (args.inherited and args.inherited["fan"])
    if args.w_hpf > 0 and not has_fan:
        from core.wing import find_wing  # only faces need it

        find_wing(args.wing_path)
    distributed.local_batch_size(args.batch_size)
    _folders(args)
    for flag in ("train_img_dir", "val_img_dir"):
        cache = Path(args.checkpoint_dir, f".{flag}.json")
        found = check_images(getattr(args, flag), flag, args.img_size, cache, args.num_workers, args.dry_run)
        args.left_out |= found
    return True


def _inherit(args):
    """Take from the file args.init_from what the networks are, where training begins."""
    if args.resume_iter:
        gone_on = args.inherited and Path(args.inherited["file"])
        if args.init_from is not None and not (gone_on and gone_on.resolve() == Path(args.init_from).resolve()):
            console.warn(
                f"--init_from {args.init_from} is ignored, since training goes on from step {args.resume_iter}"
            )
        return
    if args.init_from is None:
        vain = ", ".join(f"--{name}" for name in sorted({"init_iters", "init_lr_scale"} & args.given))
        if vain:
            raise UserError(f"{vain} says how what --init_from gives is to learn: give that, too, or leave it out")
        return
    if "init_lr_scale" in args.given and not args.init_iters:
        raise UserError(
            "--init_lr_scale counts for the first --init_iters iterations, of which there are none: give both"
        )
    if Path(args.init_from).resolve().parent == Path(args.checkpoint_dir).resolve():
        raise UserError(
            f"--init_from {args.init_from} lies in --checkpoint_dir, whose steps a training that begins sets aside: "
            "give it another --checkpoint_dir, or go on from that step with --resume_iter"
        )
    args.inherited = adopt(args)


def _start(args):
    """Choose the step to go on from, and take its settings. Returns whether anything is left to do."""
    folder, latest = Path(args.checkpoint_dir), args.resume_iter == "latest" or distributed.has_begun()
    if latest:
        args.resume_iter = newest_whole_step(folder, mend=not args.dry_run) or 0
        if not args.resume_iter:
            console.info(f"No step in {folder} yet: training begins")
    if args.resume_iter:
        recall(args, NETS_EMA, args.resume_iter)
        flaw = "" if latest else find_flaw(folder, args.resume_iter)
        if flaw:
            raise UserError(f"step {args.resume_iter} in {folder} cannot be gone on from: {flaw}")
    over = args.resume_iter >= args.total_iters
    if over and not latest:
        raise UserError(f"step {args.resume_iter} has reached --total_iters {args.total_iters}: raise --total_iters")
    if over:
        console.info(f"Step {args.resume_iter} in {folder} is the last one: nothing is left to do")
    return not over


def _evaluation(args):
    step(args)
    _folders(args)


def _folders(args):
    """Hold the sub-folders of the training and validation set against what is known of the domains."""
    for flag in ("train_img_dir", "val_img_dir"):
        folder = getattr(args, flag)
        settle_domains(args, domain_names(folder, flag), f"--{flag} {folder}")
    if Path(args.train_img_dir).resolve() == Path(args.val_img_dir).resolve():
        console.warn(
            "--train_img_dir and --val_img_dir are the same: pictures of a run then show what it has learned from"
        )
