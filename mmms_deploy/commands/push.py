"""``mmms-push``: put a bundle on the Hugging Face hub."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mmms_deploy.commands.command import command
from mmms_deploy.commands.common import console, wrong_usage
from mmms_deploy.commands.display import on_terminal, progress_bars, waiting
from mmms_deploy.commands.fetching import fetched_bundle
from mmms_deploy.commands.parameters import FilePath, Text
from mmms_deploy.commands.places import check_bundle

if TYPE_CHECKING:
    from mmms_deploy.bundle import Bundle


@command(
    epilog="""\b
Examples:
  mmms-push bundles/demo me/clicks --license apache-2.0
  mmms-push bundles/demo me/clicks/demo --private
  mmms-push bundles/demo me/clicks --overwrite"""
)
@click.argument("bundle", type=FilePath())
@click.argument("repository", type=Text(), metavar="OWNER/NAME")
@click.option(
    "--license", "license_name", type=Text(), metavar="ID", help="Licence of the weights, such as apache-2.0."
)
@click.option("--private", is_flag=True, help="Make a repository that only you can see, where it is not there yet.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Push where files are already: those of the same names are replaced, and an older bundle's removed.",
)
def main(bundle: Path, repository: str, license_name: str | None, private: bool, overwrite: bool) -> None:
    """Put BUNDLE into the model repository OWNER/NAME of the Hugging Face hub, in one commit.

    Everybody who may see the repository then opens it as hf:OWNER/NAME. It is made where it is not there, and
    OWNER/NAME/FOLDER keeps several bundles in one. The bundle's files are compared with their hashes first, and its
    model card is written with the reference and the licence. Needs a token that may write ('hf auth login', or
    HF_TOKEN).
    """
    with wrong_usage():
        check_push(repository, license_name)
    check_bundle(bundle)
    folder = fetched_bundle(bundle)
    with waiting("comparing hashes"):
        from mmms_deploy.bundle import Bundle

        opened = Bundle(folder)
    push(opened, repository, license_name, private=private, overwrite=overwrite)


def check_push(repository: str | None, license_name: str | None) -> None:
    """Check what the command line alone shows.

    Raises:
        HubReferenceError: The repository is no owner and name.
        BundleError: The licence is no identifier.
    """
    from mmms_deploy.bundle.card import checked_license
    from mmms_deploy.hub import parse_repository

    if repository is not None:
        parse_repository(repository)
    checked_license(license_name)


def check_destination(repository: str, *, private: bool, overwrite: bool) -> None:
    """Ask the hub whether this user may push to a repository, before anything that takes minutes.

    Raises:
        HubError: No, or it does not answer.
    """
    from mmms_deploy.hub import open_destination, parse_repository

    with waiting("asking the hub"):
        open_destination(parse_repository(repository), private=private, overwrite=overwrite)


def push(bundle: Bundle, repository: str, license_name: str | None, *, private: bool, overwrite: bool) -> None:
    """Push a bundle, and say how it is named from now on.

    Raises:
        HubError: The hub refuses, or does not answer.
    """
    from mmms_deploy.bundle import push_bundle

    with ExitStack() as stack:
        # On a terminal the library draws bars of its own, and nothing else may draw meanwhile.
        on_progress = None if on_terminal() else stack.enter_context(progress_bars(f"pushing to {repository}"))
        reference = push_bundle(
            bundle,
            repository,
            private=private,
            overwrite=overwrite,
            license=license_name,
            on_progress=on_progress,
        )
    console.print(f"[bold green]{escape(reference)}[/]: pushed", soft_wrap=True)
    click.echo(f"Try it: mmms-segment {reference} PHOTO --pos X,Y --overlay picture.png")


if __name__ == "__main__":
    main()
