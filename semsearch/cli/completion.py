"""The command that prints what a shell needs to complete commands, options, choices and names of indexes."""

from __future__ import annotations

import click

from semsearch.cli.options import examples

__all__ = ["completion"]

SHELLS = ("bash", "zsh", "fish")
MENDED = {  # of click's scripts
    # without compinit, as in a new ~/.zshrc, there is no compdef
    "    compdef ": "    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n    compdef ",
    'string split ","': 'string split -m 1 ","',  # descriptions may hold commas
}


@click.command(
    epilog=examples(
        'semsearch completion bash      eval "$(semsearch completion bash)" in ~/.bashrc',
        'semsearch completion zsh       eval "$(semsearch completion zsh)" in ~/.zshrc',
        "semsearch completion fish > ~/.config/fish/completions/semsearch.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    known = get_completion_class(shell)
    if known is None:
        raise click.UsageError(f"this version of click completes nothing in {shell}")
    script = known(ctx.find_root().command, {}, "semsearch", "_SEMSEARCH_COMPLETE").source()
    for given, better in MENDED.items():
        script = script.replace(given, better)
    click.echo(script)
