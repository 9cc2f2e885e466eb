"""Command lines of the tests."""

# Networks that only need to be there: 32 px, some ten thousand parameters.
NARROW = "--device cpu --w_hpf 0 --img_size 32 --channel_base 256 --max_conv_dim 16 --hidden_dim 32"


def as_flags(values):
    """{"lr": 0.1, ...} -> ["--lr", "0.1", ...]"""
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]
