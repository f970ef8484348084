"""A script's dataclass of arguments -> its command line, and errors -> one line on stderr."""

import argparse
import dataclasses
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from anomaly.errors import VigieError
from training.manifest import Protocol
from training.seeds import is_repeated, repeat

A = TypeVar("A")


def flag(text: str, default: Any = dataclasses.MISSING, *, least: float | None = None) -> Any:
    """A field with its help text and, for a number, the least that makes sense."""
    return dataclasses.field(default=default, metadata={"help": text, "least": least})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataArgs:
    """What every training script takes."""

    data: Path | str = flag("folder of pictures, or hf://datasets/ORG/NAME@REVISION")
    category: str = flag("what is inspected; a subfolder of the data, or the name of the data itself; all: every one")
    out: Path = flag("folder to write to")
    layout: Literal["auto", "folder", "mvtec", "visa"] = flag("of the data", "auto")
    protocol: Protocol = flag("what the test is: the data's own (mvtec), a share of everything, or folds", "mvtec")
    test_share: float = flag("of everything, with --protocol supervised", 0.2)
    folds: int = flag("with --protocol kfold", 5, least=2)
    fold: int | None = flag("the one that is the test, with --protocol kfold; by default each in turn", None, least=0)
    shots: int | None = flag("train on at most this many pictures of each label", None, least=1)
    seed: int = flag("of the split and of training", 0)
    seeds: int = flag("repeat with this many seeds and report mean and deviation", 1, least=1)
    far: float = flag("false-alarm level of the threshold set from good images alone", 0.05)
    group_regex: str | None = flag("one capture group: pictures of the same part stay in the same split", None)
    drop_near_duplicates: bool = flag("leave out train and calibration pictures that look like a test picture", False)
    country: str = flag("ISO 3166 alpha-3 code, for the estimate of emissions", "USA")
    cpu_power_w: float | None = flag("rated CPU power where it is known, for the estimate of emissions", None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArgs(DataArgs):
    """What every script that makes one detector takes."""

    backbone: str | None = flag("trunk: a timm name or a Hub repo id, optionally @revision", None)
    weights: Path | None = flag("trunk or initial weights from a local safetensors file", None)
    arch: str | None = flag("network to train", None)
    epochs: int | None = flag("at most this many", None, least=1)
    push: str | None = flag("Hub repo (org/name) to push to", None)
    tag: str | None = flag("of the pushed commit", None)


def run(main: Callable[[A], None], kind: type[A], argv: Sequence[str] | None = None, *, repeats: bool = True) -> int:
    """Parses, runs, and turns what a person can mend into one line. Exit code 0 done, 1 wrong input, 2 usage.

    Without `repeats`, `main` sees itself to what means several runs.
    """
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        _add(parser, field, hints[field.name])
    given = vars(parser.parse_args(argv))
    args = kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    if isinstance(args, RunArgs) and args.tag and not args.push:
        parser.error("--tag goes with --push REPO")

    def work() -> None:
        if repeats and isinstance(args, DataArgs) and is_repeated(args):
            repeat(main, args)
        else:
            main(args)

    return exit_code(work)


def command(module: str, text: str | None) -> argparse.ArgumentParser:
    """The parser of a command that takes more than flags; shows the module's docstring as it is written."""
    return argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, prog=f"python -m training.{module}"
    )


def exit_code(work: Callable[[], object]) -> int:
    """Runs, and turns what a person can mend into one line: 0 done, 1 wrong input."""
    try:
        work()
    except (VigieError, OSError, ValidationError) as error:  # also: a full disk, a setting that a detector refuses
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _add(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]", hint: Any) -> None:
    required = field.default is dataclasses.MISSING
    options: dict[str, Any] = {"help": field.metadata["help"], "required": required}
    if not required:
        options["default"] = field.default
        if field.default is not None:
            options["help"] += f" (default {field.default})"
    if hint == Path | str:
        hint = _folder_or_url
    elif get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        options |= {"nargs": "+", "type": get_args(hint)[0]}
    elif get_origin(hint) is Literal:
        options["choices"] = get_args(hint)
    elif hint is bool:
        options = {"help": options["help"], "action": "store_true"}
    elif (least := field.metadata["least"]) is not None:
        options["type"] = _at_least(hint, least)
    else:
        options["type"] = hint
    parser.add_argument(f"--{field.name.replace('_', '-')}", **options)


def _folder_or_url(text: str) -> Path | str:
    return text if "://" in text else Path(text)  # a Path would make one slash of two


def _at_least(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if (value := kind(text)) < least:
            raise argparse.ArgumentTypeError(f"{text} is too small, expected {least} or more")
        return value

    parse.__name__ = kind.__name__  # argparse says: invalid int value
    return parse
