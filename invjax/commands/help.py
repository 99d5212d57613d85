"""The short help of a command, as --help prints it."""

import re
import shutil
import textwrap
from collections.abc import Collection, Iterator

from absl import flags

GROUPS: dict[str, tuple[str, ...]] = {
    "What is inverted": (
        *("images", "representations", "code", "code_layout", "mask", "code_weights"),
        *("image_size", "resize", "on_bad_image"),
    ),
    "A network of your own": (
        *("module", "layer", "module_mean", "module_std", "module_layout"),
    ),
    "How": (
        *("preset", "num_steps", "num_starts", "tv_weight", "alpha_weight"),
        *("tolerance", "dead_relu", "initial_image", "seed"),
    ),
    "What is written": (
        *("workdir", "overwrite", "save_arrays", "save_trajectory", "tensorboard"),
        *("identify_among", "classifier"),
    ),
    "Where it runs": (
        *("dry_run", "smoke", "batch_size", "compute_dtype", "weights_dir"),
        *("num_processes", "process_id"),
    ),
}
"""Flags that commands share, by what they are about."""

_MOST_EXAMPLES = 3
_WIDTH = 88
_INDENT = 21
_REST = """\
--flagfile=FILE reads flags from a file, one --flag=value on each line; --list prints
what there is to choose from; --helpfull explains every flag, with its default."""


def text(program: str, about: str, *, used_flags: Collection[str] | None = None) -> str:
    """What --help prints: the purpose, examples, and a line for each flag.

    Args:
      program: how the command is called, such as "invjax invert".
      about: docstring of the command. Its first line is the purpose; indented lines
        that begin with "python -m" or "invjax" are examples.
      used_flags: shared flags that the command accepts; None for all.
    """
    purpose = about.strip().partition("\n")[0]
    parts = [purpose, "Examples:"]
    parts += [textwrap.indent(example, "  ") for example in examples(about, program)]
    if len(parts) == 2:
        parts.pop()
    shared = {name for names in GROUPS.values() for name in names}

    def is_used(name: str) -> bool:
        return used_flags is None or name in (*used_flags, "weights_dir")

    groups = {
        title: [name for name in names if is_used(name)]
        for title, names in GROUPS.items()
    }
    own = [name for name in known_flags() if name not in {*shared, "list"}]
    for title, names in {"Flags of this command": own, **groups}.items():
        lines = [_line(flags.FLAGS[name]) for name in names if name in flags.FLAGS]
        if lines:
            parts.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join([*parts, _REST])


def examples(about: str, program: str) -> list[str]:
    """The first commands in a docstring, as they are typed.

    Args:
      about: the docstring.
      program: what takes the place of "invjax NAME" in them.

    Examples:
      >>> examples("Inverts.\\n\\n    invjax invert --seed=1\\n", "python -m a.b")
      ['python -m a.b --seed=1']
    """
    pattern = r"^    ((?:invjax|python -m) .*(?:(?<=\\)\n.*)*)"
    found = re.findall(pattern, about, re.MULTILINE)[:_MOST_EXAMPLES]
    return [
        re.sub(r"^invjax \w+", program, textwrap.dedent(f"    {block}"))
        for block in found
    ]


def first_clause(sentence: str) -> str:
    """The beginning of a flag's help, up to what only refines it.

    Examples:
      >>> first_clause("<a|b>: Method: a is the paper's (default: b).")
      'Method'
    """
    without_choices = re.sub(r"^<.*?>: ", "", sentence.replace("\n", " "))
    return re.split(r"[;:.] | \(|[.]$", without_choices)[0]


def known_flags() -> Iterator[str]:
    """Names of the flags that invjax and the studies define, without those of absl."""
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        # What is run by `python -m` has its flags under the path of its file.
        is_ours = module.partition(".")[0] in ("invjax", "experiments", "weights")
        if is_ours or module.endswith(".py"):
            yield from (flag.name for flag in defined)


def _line(flag: flags.Flag) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    sentence = first_clause(flag.help)
    if choices and not flag.boolean:
        sentence += f": {', '.join(choices)}"
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    return textwrap.fill(
        sentence,
        width,
        initial_indent=f"  --{flag.name} ".ljust(_INDENT),
        subsequent_indent=" " * _INDENT,
    )
