"""``bigain ui``: the page."""

from __future__ import annotations

from typing import Annotated

import typer

from bigain.cli import options
from bigain.run.settings import ModelSettings


def ui(
    model: Annotated[ModelSettings, options.Without("threads", "batch_size", "frames")],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others reach the page on 0.0.0.0; it asks for no password.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, help="The first free one from 7860 on if left out.")] = None,
) -> None:
    """Serves a page to try things on: compress an image, classify one, choose what each layer takes.

    It offers the embedded models, and the one that --model names. Nothing leaves this machine; files of
    up to 10 MB are taken. Takes the extra ui (pip install 'bigain[ui]').

    [bold]Examples[/]

      bigain ui

      bigain ui --model ./stable-diffusion-2-base --dtype bfloat16 --port 8000
    """
    try:
        from bigain.ui.page import serve
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"the page takes the extra 'ui' (pip install 'bigain[ui]'): {error}") from error

    page = serve(model, host=host, port=port)
    typer.echo(f"The page is at {page.local_url} until Ctrl-C is pressed.")
    page.block_thread()
