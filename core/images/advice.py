"""Warnings about data sets that training can learn little from."""

from core.system import console

FEW = 100  # training images of a domain
GUIDE = "See docs/custom-data.md."


def warn_about_counts(counts, is_finetuned=False, is_augmented=False):
    """Warn about domains with few training images, and about a single domain. counts: {name: number of images}.

    is_finetuned, is_augmented: the training starts from trained networks, or uses --augment, so do not advise that.
    """
    few = {name: number for name, number in counts.items() if number < FEW}
    if few:
        listed = console.listed([f"{name} {number}" for name, number in few.items()], 10)
        other_ways = "" if is_augmented else ", or train with --augment ada"
        other_ways += "" if is_finetuned else ", or start from a trained network with --init_from"
        console.warn(
            f"A domain with fewer than {FEW} training images ({listed}) yields translations that repeat these images. "
            f"Add images, at least a few hundred per domain{other_ways}. {GUIDE}"
        )
    if len(counts) == 1:
        console.warn(
            "The data set has only one domain. The model will change the style of images but cannot translate between "
            f"domains. Add a folder for each further domain. {GUIDE}"
        )
