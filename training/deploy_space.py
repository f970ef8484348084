"""Puts the app on a Hugging Face Space: its files in one commit, its settings as variables, its models preloaded.

The same call again makes no commit. No token goes into a file: what looks like one is refused, and --secrets hands over
environment variables by name. --dry-run shows what would be sent and sends nothing.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomaly import hub
from anomaly.errors import DataError, RegistryError
from anomaly.hub_errors import explained
from training.arguments import flag, run
from training.space_plan import PACKAGE, PREFIX, Plan, planned, refuse_tokens

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SECRET = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Args:
    space: str = flag("the Space, ORG/NAME; created where it does not exist")
    inspectors: tuple[str, ...] = flag("Hub repos of inspectors, the first is shown first; starter: the embedded one")
    hardware: str | None = flag("such as cpu-basic, zero-a10g or t4-small; by default as it is", None)
    private: bool = flag("only the owner may see it", False)
    title: str | None = flag("of the Space", None)
    country: str | None = flag("ISO 3166 alpha-3 code of the country whose electricity is used", None)
    cpu_power_w: float | None = flag("rated CPU power where it is known, in watts", None)
    variables: tuple[str, ...] = flag("further settings of the app, VIGIE_NAME=VALUE", ())
    secrets: tuple[str, ...] = flag("environment variables to hand over as secrets of the Space, by name", ())
    dry_run: bool = flag("show the files, the front matter and the variables, and send nothing", False)


def main(args: Args) -> None:
    check(args)
    plan = planned(args.inspectors, settings(args), title=args.title, hardware=args.hardware)
    secrets = {name: os.environ[name] for name in args.secrets}
    refuse_tokens(plan, secrets.values())
    show(args, plan)
    if args.dry_run:
        print("dry run: nothing was sent")
        return
    print(publish(args, plan, secrets))


def check(args: Args) -> None:
    """Raises DataError for what is wrong without asking the Hub. A value that may be a secret is not repeated."""
    if not _NAME.fullmatch(args.space):
        name = re.sub(r"[^\w.-]+", "-", args.space.rstrip("/").rpartition("/")[2]).strip("-") or "cables"
        raise DataError(f"{args.space!r} is not the name of a Space: give ORG/NAME, such as my-org/{name}")
    for name in args.secrets:
        if not _SECRET.fullmatch(name):
            raise DataError("--secrets takes names of environment variables, such as HF_TOKEN, never their values")
        if not os.environ.get(name):
            raise DataError(f"--secrets {name}: there is no environment variable of that name here, set it first")
    if args.hardware is not None:
        from huggingface_hub import SpaceHardware

        if args.hardware not in (known := [str(flavor.value) for flavor in SpaceHardware]):
            raise DataError(f"unknown hardware {args.hardware!r}; huggingface_hub knows {', '.join(known)}")


def settings(args: Args) -> dict[str, str]:
    """VIGIE_NAME -> value, of all that the flags say."""
    found = {}
    for text in args.variables:
        name, equals, value = text.partition("=")
        if not equals or not name.startswith(PREFIX):
            raise DataError(f"--variables takes {PREFIX}NAME=VALUE, and secrets are no variables: use --secrets NAME")
        found[name] = value
    if args.country is not None:
        found[f"{PREFIX}COUNTRY"] = args.country
    if args.cpu_power_w is not None:
        found[f"{PREFIX}CPU_POWER_W"] = f"{args.cpu_power_w:g}"
    return found


def show(args: Args, plan: Plan) -> None:
    """Prints what will be sent."""
    print(f"Space {args.space}{' (private)' if args.private else ''}, hardware {args.hardware or 'as it is'}")
    print(f"\n{len(plan.files)} files")
    for name, content in plan.files.items():
        print(f"  {len(content):>9,} {name}")
    print(f"\nREADME.md\n{plan.files['README.md'].decode()}\nvariables")
    for name, value in plan.variables.items():
        print(f"  {name}={value}" if value is not None else f"  {name} unset: the app's own default")
    print("\nsecrets\n  " + (", ".join(args.secrets) or "none"), end="\n\n")


def publish(args: Args, plan: Plan, secrets: Mapping[str, str]) -> str:
    """Makes the Space be what was planned, and changes what differs only.

    Returns:
        What was done, with the address.

    Raises:
        RegistryError: no token, one that may not write there, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token

    if get_token() is None:
        raise RegistryError("no token: set HF_TOKEN to one that may write, or log in with `hf auth login`")
    client = hub.client()
    with explained(args.space):
        new = not client.repo_exists(args.space, repo_type="space")
        held = {} if new else client.get_space_secrets(args.space)
        if plan.closed and "HF_TOKEN" not in {*held, *secrets}:
            raise RegistryError(
                f"{', '.join(plan.closed)}: private or gated, so the Space needs a token to read it: give "
                "--secrets HF_TOKEN (a token that may only read these repos is enough)"
            )
        if new:
            flavor: Any = args.hardware
            client.create_repo(
                args.space, repo_type="space", space_sdk="gradio", private=args.private or None, space_hardware=flavor
            )
        elif args.private:
            client.update_repo_settings(args.space, repo_type="space", visibility="private")
        changed = set_up(client, args, plan, secrets)
        head = client.space_info(args.space)
        there = {file.rfilename for file in head.siblings or ()}
        gone = [name for name in there if name.startswith((f"{PACKAGE}/", "starter/")) and name not in plan.files]
        done = client.create_commit(
            args.space,
            [
                *(CommitOperationAdd(name, content) for name, content in plan.files.items()),
                *(CommitOperationDelete(name) for name in sorted(gone)),
            ],
            repo_type="space",
            commit_message=f"Vigie with {', '.join(args.inspectors)}",
            parent_commit=head.sha,
        )
    changed += [f"commit {done.oid}"] if done.oid != head.sha else []
    where = f"{client.endpoint}/spaces/{args.space}"
    return f"{'created' if new else 'updated'} {where}: {', '.join(changed)}" if changed else f"{where}: up to date"


def set_up(client: "HfApi", args: Args, plan: Plan, secrets: Mapping[str, str]) -> list[str]:
    """Variables, secrets and hardware; returns what was changed. A secret cannot be read back, so it is always set."""
    changed = []
    known = {name: variable.value for name, variable in client.get_space_variables(args.space).items()}
    for name, value in plan.variables.items():
        if value is None and name in known:
            client.delete_space_variable(args.space, name)
        elif value is not None and known.get(name) != value:
            client.add_space_variable(args.space, name, value)
        else:
            continue
        changed.append(name)
    for name, value in secrets.items():
        client.add_space_secret(args.space, name, value)
        changed.append(f"secret {name}")
    if args.hardware is not None:
        runtime, wish = client.get_space_runtime(args.space), args.hardware
        if wish != (runtime.requested_hardware or runtime.hardware):
            flavor: Any = wish
            client.request_space_hardware(args.space, flavor)
            changed.append(f"hardware {wish}")
    return changed


if __name__ == "__main__":
    sys.exit(run(main, Args))
