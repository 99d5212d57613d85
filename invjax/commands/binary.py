"""How every binary starts and ends: exit codes, and one line for bad input.

Exit codes: 0 done; 1 what was asked for cannot be done; 2 the command line cannot be
parsed; 130 interrupted by Ctrl-C; 143 told to end (SIGTERM), as schedulers do before
they kill. After each but 0 and 2 the same command goes on with a run where it was.
"""

import contextlib
import functools
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from absl import app, flags, logging

from invjax import files, spelling
from invjax.commands import help
from invjax.runs import errors, folder


class _PathParser(flags.ArgumentParser):
    """Expands ~ and ~user, which shells leave to us in --flag=~/path.

    Args:
      is_list: whether the value is a comma-separated list of paths.
    """

    def __init__(self, *, is_list: bool):
        super().__init__()
        self._is_list = is_list

    def parse(self, argument: str) -> str:
        paths = argument.split(",") if self._is_list else [argument]
        return ",".join(files.expand_home(path.strip()) for path in paths)

    def flag_type(self) -> str:
        return "comma-separated paths" if self._is_list else "path"


PATH = _PathParser(is_list=False)
"""Parser of a flag that is a path: `flags.DEFINE(PATH, name, None, help)`."""

PATHS = _PathParser(is_list=True)
"""Parser of a flag that is a comma-separated list of paths, kept as one string."""


WEIGHTS_DIR: flags.FlagHolder[str | None] = flags.DEFINE(
    PATH,
    "weights_dir",
    None,
    "Folder of converted weights (default: INVJAX_WEIGHTS, weights/ of the checkout, "
    "or the user's cache).",
)
LIST = flags.DEFINE_bool(
    "list", False, "List the representations or weights that there are, and stop."
)


TERMINATED = 143
"""Exit code after SIGTERM: 128 and the number of the signal, as shells have it."""

_SECONDS_TO_END = 15.0


class Terminated(BaseException):
    """The process was told to end by SIGTERM."""


def run(main: Callable[[], None], *, module: types.ModuleType | None = None) -> None:
    """Parses the command line and runs `main`, with the exit codes above.

    Args:
      main: what the command does, once flags are parsed.
      module: the command's module, whose docstring --help shows; None for the one that
        is run.
    """
    module = module or sys.modules["__main__"]

    def guarded(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            # Orbax tells every step of a restore at INFO, absl's default here.
            logging.set_verbosity(logging.WARNING)
        if argv[1:]:
            _leave(2, f"unexpected argument {argv[1]!r}; settings are --flag=value")
        try:
            with _ended_by_sigterm():
                main()
        except errors.EXPECTED as error:
            _leave(1, " ".join(str(error).splitlines()))
        except BrokenPipeError:
            # `--list | head`: nobody reads on, and the exit must not write either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except KeyboardInterrupt:
            _leave(130, "interrupted")
        except Terminated:
            _leave(TERMINATED, "told to end")

    app.run(guarded, flags_parser=functools.partial(_parse, module))


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Ends the process within `_SECONDS_TO_END` of SIGTERM, whatever it is at.

    Units that are not done are dropped. Python handles a signal between two steps of
    its own, which a compiler that is at work may delay for long; so a thread looks on
    and ends the process by itself. Files are written whole, so that nothing is lost.
    """

    def terminate(*_: Any) -> None:
        # Once: what is cleaned up is not interrupted.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    def look_on() -> None:
        while signal.SIGTERM not in (told := os.read(reader, 1)):
            if not told:
                return
        if not is_over.wait(_SECONDS_TO_END):
            os._exit(TERMINATED)

    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    is_over = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGTERM, terminate)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    looker = threading.Thread(target=look_on, name="sigterm", daemon=True)
    looker.start()
    try:
        yield
    finally:
        is_over.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)
        looker.join()
        os.close(reader)


_HELP = ("--help", "-help", "-h", "-?", "--helpshort", "-helpshort")


def _parse(module: types.ModuleType, argv: list[str]) -> list[str]:
    """Parses flags; prints the help or an error in one line, and exits."""
    if set(_HELP) & set(argv[1:]):
        study = getattr(module, "STUDY", None)
        used_flags = getattr(study, "used_flags", None)
        print(help.text(folder.program(), module.__doc__ or "", used_flags=used_flags))
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        ours = [f"--{name}" for name in help.known_flags()]
        meant = spelling.hint(f"--{error.flagname}", ours)
        _leave(2, f"--{error.flagname}: there is no such flag{meant or '; see --help'}")
    except flags.Error as error:
        _leave(2, " ".join(str(error).split()) + _meant(str(error)))


def _meant(error: str) -> str:
    """What a value that is none of a flag's choices was meant to be."""
    found = re.match(r"flag --(\w+)=(.*?): value should be one of", error)
    if found is None:
        return ""
    parser = flags.FLAGS[found[1]].parser
    return spelling.hint(found[2], getattr(parser, "enum_values", ()))


def _leave(code: int, message: str) -> NoReturn:
    print(f"{sys.argv[0].rpartition('/')[2]}: {message}", file=sys.stderr)
    sys.exit(code)
