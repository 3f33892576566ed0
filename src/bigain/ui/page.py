"""The page as a whole, and the server that shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # which Gradio reads where it is imported

import gradio as gr

from bigain.run.settings import ModelSettings
from bigain.ui.models import Models
from bigain.ui.tabs import Shop, choose_tab, classify_tab, compress_tab
from bigain.ui.worker import Worker

_STYLE = Path(__file__).with_name("page.css")
_WAITING = 16  # who wait for their turn
UPLOAD = "10mb"
TABS = {"Compress": compress_tab, "Classify": classify_tab, "Choose": choose_tab}


def built(settings: ModelSettings) -> gr.Blocks:
    """The page, with the named model open."""
    models = Models(settings)
    first = models[settings.model]
    with gr.Blocks(title="bigain", analytics_enabled=False) as page:
        gr.Markdown("# bigain\nToken compression for diffusion models: what it does to an image, and to an answer.")
        model = gr.Dropdown(list(models.names), value=first.name, label="Model", elem_id="model")
        shop = Shop(models, Worker(), model, first)
        parts = []
        for name, tab in TABS.items():
            with gr.Tab(name):
                parts.append(tab(shop))
        changed = [component for components, _ in parts for component in components]

        def refreshed(name: str) -> list[Any]:
            try:
                opened = shop.opened(name)
            except (ValueError, OSError, ImportError) as error:
                raise gr.Error(str(error), print_exception=False) from error
            return [gr.update(**one) for _, offered in parts for one in offered(opened)]

        model.change(refreshed, model, changed, api_visibility="private")
    page.queue(max_size=_WAITING, api_open=False)
    return page


def serve(settings: ModelSettings, *, host: str, port: int | None, upload: str = UPLOAD) -> Any:
    """Begins to serve the page, which it returns: with the address in its ``local_url``, and a ``close``.

    Args:
        host, port: where it listens; None takes the first free port from 7860 on.
        upload: the largest file that is taken.
    """
    page = built(settings)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=upload,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
        theme=gr.themes.Default(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css_paths=[_STYLE],
    )
    return page
