"""The command that teaches a shell to complete the others."""

import click
from click.shell_completion import get_completion_class

from ioasid.service._caller import Careful

__all__: list[str] = []


@click.command(cls=Careful)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what teaches a shell to complete commands and names.

    \b
    Examples:
      eval "$(ioasid completion bash)"                                # in ~/.bashrc
      eval "$(ioasid completion zsh)"                                 # in ~/.zshrc
      ioasid completion fish > ~/.config/fish/completions/ioasid.fish
    """  # noqa: D301 - the \b is for Click, which keeps the lines below as they are
    chosen = get_completion_class(shell)
    assert chosen is not None, "Click knows the three"
    click.echo(chosen(context.find_root().command, {}, "ioasid", "_IOASID_COMPLETE").source())
