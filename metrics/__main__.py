"""Scores of a folder of images against a folder of real images: FID, KID, precision, recall, density and coverage.

Usage: python -m metrics --paths REAL FAKE

Features are those of torchvision's Inception v3. Scores of other networks or resizing methods are not comparable.
"""

from core.cli.parser import Parser
from core.cli.values import DEVICE, PATH, POSITIVE
from core.evaluation.features import folder_features
from core.system import console
from core.system.device import select_device
from core.system.errors import UserError
from metrics.fid import FEATURES
from metrics.pairs import FEWEST
from metrics.sets import set_scores
from metrics.weights import MissingWeights


def main(argv=None):
    """Print the scores of two folders. Exits with status 2 if a flag or file is wrong."""
    parser = Parser(description=__doc__)
    parser.add("paths", PATH, None, "real images, and those to score", nargs=2, required=True, metavar=("REAL", "FAKE"))
    parser.add("img_size", POSITIVE, 256, "side of the images before Inception, in pixels (default 256)")
    parser.add("batch_size", POSITIVE, 64, "images per batch (default 64)")
    parser.add("device", DEVICE, "auto", "where features are computed (default auto: CUDA if available)")
    args = parser.parse_args(argv)
    try:
        device = select_device(args.device)
        real, fake = (folder_features(path, args.img_size, args.batch_size, device) for path in args.paths)
    except (MissingWeights, UserError) as error:
        parser.error(str(error))
    fewest = min(real.count, fake.count)
    if fewest < FEATURES:
        console.warn(f"FID is too high (a folder has fewer than {FEATURES:,} images). KID has no such bias.")
    for name, score in set_scores(real, fake).items():
        needed = FEWEST.get(name, 1)
        needs = f" (it needs at least {needed} images in each folder)" if fewest < needed else ""
        console.info(f"{name}: {score:.6g}{needs}")


if __name__ == "__main__":
    main()
