"""The resolved configuration of a run: the final values of its flags, and what they refer to on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.cli.flags import FLAGS, NETWORK_FLAGS, RESUMED_FLAGS, parse_flag
from core.cli.presets import preset_defaults
from core.cli.values import as_typed, nearest
from core.system import console
from core.system.errors import UserError


def _with_commas(names, domains):
    """Return the names of a list, where neighbours that are the parts of a domain's name are that domain.

    So the user may omit the quotes around a name with a comma if its parts are no domains themselves.
    """
    parts_of = {name: [part.strip() for part in name.split(",")] for name in domains if "," in name}
    for whole, parts in parts_of.items():
        for start in range(len(names) - len(parts) + 1):
            if names[start : start + len(parts)] == parts and not set(parts) & set(domains):
                names = [*names[:start], whole, *names[start + len(parts) :]]
                break
    return names


def defaults():
    """Return the default of every flag: {name: value}."""
    return {
        name: flag.kind.parse(flag.default) if isinstance(flag.default, str) else flag.default
        for name, flag in FLAGS.items()
    }


def merge(given, checkpoint=None):
    """Return {name: value} of every flag. The command line overrides a checkpoint, the preset and the defaults."""
    preset = given.get("preset")
    return defaults() | (preset_defaults(preset, given["mode"]) if preset else {}) | (checkpoint or {}) | given


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run. Flags are attributes, such as config.img_size; resume_iter is a step, never latest.

    The main process creates it (core.cli.resolve) and sends it to all processes. It does not change afterwards.
    """

    flags: Mapping  # {name: value} of every flag
    given: tuple = ()  # names of the flags on the command line
    domains: tuple | None = None  # names in label order; None: unknown
    domains_origin: str = ""  # sampling: where the names come from
    data_resize: str | None = None  # how data.prepare made the training images square; None: unknown
    skipped_images: tuple = ()  # Paths of unreadable training and validation images
    images: object = None  # {flag of a folder: see core.images.inventory}; of the resumed step until training starts
    inherited: dict | None = None  # networks of --init_from, see core.checkpoint.init_from.describe_source

    def __getattr__(self, name):
        flags = self.__dict__.get("flags", {})
        if name in flags:
            return flags[name]
        raise AttributeError(f"RunConfig has no flag {name}")

    @classmethod
    def from_given(cls, given, checkpoint=None, **fields):
        """Return the config of flags on the command line, {name: value}, and of a checkpoint. fields: other fields."""
        return cls(flags=merge(given, checkpoint), given=tuple(given), **fields)

    @classmethod
    def from_args(cls, args, **fields):
        """Return the config of a Namespace of main.parse_args, as for a new training.

        Flags that differ from the default, or from the preset's, count as given: a Namespace does not record the rest.
        """
        flags = {name: getattr(args, name) for name in FLAGS}
        default = merge({"mode": args.mode, "preset": args.preset})
        given = tuple(name for name, value in flags.items() if value != default[name])
        return cls(flags=flags, given=given, **fields)

    def with_flags(self, **flags):
        """Return a config with other values of some flags."""
        return replace(self, flags={**self.flags, **flags})

    @property
    def names_by_label(self):
        """The names of the domains in label order; numbers where names are unknown."""
        return list(self.domains or map(str, range(self.num_domains)))

    def all_style_kinds(self):
        """Return the kinds of styles that the outputs of sampling need: a set of "reference", "seed" and "file"."""
        return {kind for output in self.outputs for kind in self.style_kinds(output)}

    def target_labels(self):
        """Return the labels of --target_domains in their order; None without the flag. Raises UserError."""
        if self.target_domains is None:
            return None
        domains = self.names_by_label
        names = _with_commas(self.target_domains, domains)
        unknown = [name for name in names if name not in domains]
        if unknown:
            close = nearest(unknown[0], domains)
            hint = f" Did you mean {console.as_list([close])}?" if close else ""
            hint += "" if self.domains else " To use names, list them in label order with --domain_names."
            allowed = ", ".join(console.as_list([name]) for name in domains)
            raise UserError(f"--target_domains must be some of {allowed}, got {console.as_list(names)}.{hint}")
        return list(dict.fromkeys(map(domains.index, names)))

    def style_kinds(self, output):
        """Return the kinds of styles of an output of sampling: a list of "reference", "seed" and "file".

        `images` and `video` use references if --ref_dir is given, and seeds if there are none or --seeds is not the
        default. With --styles, the kind "file" comes first, and the others only count if their flags are given.
        """
        if output not in ("images", "video"):
            kinds = ["seed"] if "latent" in output else ["reference"]
        else:
            kinds = ["reference"] if "ref_dir" in self.given else []
            kinds += ["seed"] * (not kinds or self.seeds != defaults()["seeds"])
        if not self.styles:
            return kinds
        return ["file", *(kind for kind in kinds if {"reference": "ref_dir", "seed": "seeds"}[kind] in self.given)]

    def changed_flags(self):
        """Return rows (flag, value as typed) of the flags that differ from the default; folders last."""
        default = defaults()
        rows = [(f"--{name}", as_typed(value)) for name, value in self.flags.items() if value != default.get(name)]
        return sorted(rows, key=lambda row: row[0].endswith(("_dir", "_path")))

    def for_checkpoint(self, step):
        """Return the `config` entry of a step's files: plain values that describe the networks and their training."""
        names = None if self.domains is None else list(self.domains)
        networks = {name: self.flags[name] for name in NETWORK_FLAGS} | {"preset": self.preset, "domains": names}
        optional = {"inherited": self.inherited, "resize": self.data_resize, "images": self.images}
        settings = {name: parse_flag(name, self.flags[name]) for name in RESUMED_FLAGS}
        return networks | {k: v for k, v in optional.items() if v} | {"step": step, "settings": settings}
