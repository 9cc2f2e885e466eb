"""The resolved configuration of a run: what its flags are in the end, and what was found for them on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.cli.flags import FLAGS, NETWORK_FLAGS, RESUMED_FLAGS, as_typed, parse_value
from core.cli.presets import preset_defaults
from core.system.errors import UserError


def defaults():
    """{name: default value} of every flag."""
    return {name: flag.default_value for name, flag in FLAGS.items()}


def merge(given, checkpoint=None):
    """Every flag's value: the defaults, under those of the preset, of a checkpoint, and of the command line."""
    preset = given.get("preset")
    return defaults() | (preset_defaults(preset, given["mode"]) if preset else {}) | (checkpoint or {}) | given


@dataclass(frozen=True)
class RunConfig:
    """A run. Flags are attributes: config.img_size, after presets and checkpoint; resume_iter is a step, never latest.

    The main process makes it (core.cli.resolve), all processes get it whole, and nobody changes it.
    """

    flags: Mapping  # every flag's value
    given: tuple = ()  # names of the flags on the command line
    domains: tuple | None = None  # names in label order; None: nothing names them
    domains_origin: str = ""  # sampling: what named them
    skipped_images: tuple = ()  # Paths of training and validation images that cannot be read
    inherited: dict | None = None  # what --init_from gave, see core.checkpoint.init_from.describe_source

    def __getattr__(self, name):
        flags = self.__dict__.get("flags", {})
        if name in flags:
            return flags[name]
        raise AttributeError(f"there is no flag {name}")

    @classmethod
    def from_given(cls, given, checkpoint=None, **fields):
        """The config of flags on the command line, {name: value}, over those of a checkpoint. fields: the others."""
        return cls(flags=merge(given, checkpoint), given=tuple(given), **fields)

    @classmethod
    def from_args(cls, args, **fields):
        """The config of a Namespace of main.parse_args, as for a training that starts. Flags that are not the default,
        or the preset's, count as given: a Namespace does not tell which were on the command line."""
        flags = {name: getattr(args, name) for name in FLAGS}
        default = merge({"mode": args.mode, "preset": args.preset})
        given = tuple(name for name, value in flags.items() if value != default[name])
        return cls(flags=flags, given=given, **fields)

    def with_flags(self, **flags):
        """A config with other values of some flags."""
        return replace(self, flags={**self.flags, **flags})

    @property
    def names_by_label(self):
        """The domains' names in label order; numbers where nothing names them."""
        return list(self.domains or map(str, range(self.num_domains)))

    def all_style_kinds(self):
        """Where all outputs of sampling take their styles from."""
        return {kind for output in self.outputs for kind in self.style_kinds(output)}

    def target_labels(self):
        """Labels of --target_domains, in their order; None where it was left out. Raises UserError."""
        if self.target_domains is None:
            return None
        domains = self.names_by_label
        unknown = [name for name in self.target_domains if name not in domains]
        if unknown:
            hint = "" if self.domains else "; to choose by name, name them in label order by --domain_names"
            raise UserError(f"--target_domains {','.join(unknown)}: choose of the domains {', '.join(domains)}{hint}")
        return [domains.index(name) for name in self.target_domains]

    def style_kinds(self, output):
        """Where an output of sampling takes its styles from: "reference", "seed". Images take them from what is given
        of --ref_dir and --seeds, else from references."""
        if output != "images":
            return ["seed"] if "latent" in output else ["reference"]
        kinds = {"reference": "ref_dir", "seed": "seeds"}
        return [kind for kind, flag in kinds.items() if flag in self.given] or ["reference"]

    def changed_flags(self):
        """Rows (flag, value as typed) of what is not the default; folders last."""
        default = defaults()
        rows = [(f"--{name}", as_typed(value)) for name, value in self.flags.items() if value != default.get(name)]
        return sorted(rows, key=lambda row: row[0].endswith(("_dir", "_path")))

    def for_checkpoint(self, step):
        """The `config` entry of a step's files: plain values that describe the networks and their training."""
        names = None if self.domains is None else list(self.domains)
        networks = {name: self.flags[name] for name in NETWORK_FLAGS} | {"preset": self.preset, "domains": names}
        inherited = {"inherited": self.inherited} if self.inherited else {}
        settings = {name: parse_value(name, self.flags[name]) for name in RESUMED_FLAGS}
        return networks | inherited | {"step": step, "settings": settings}
