"""python -m fmnist_lit.demo RUN_OR_CKPT: a local web page that classifies a dropped photo or a drawing."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fmnist_lit.config import ConfigError
from fmnist_lit.config.trust import add_trust_option, trust
from fmnist_lit.processes.streams import run_printing
from fmnist_lit.run.find import NoSuchRunError, find_trained

if TYPE_CHECKING:
    from fmnist_lit.trained.classifier import TrainedClassifier

# Gradio's page refers to fonts and scripts on other hosts; this Content-Security-Policy keeps a browser from them.
SAME_ORIGIN_ONLY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C.

    Returns:
        The exit code: 0 stopped by Ctrl-C, 1 the checkpoint or the address cannot be used, 2 a bad argument.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_lit.demo",
        description="Serve a local web page that classifies photos and drawings of garments.",
    )
    parser.add_argument("run", metavar="RUN_OR_CKPT", help="a run folder, a checkpoint or an exported .safetensors")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is open to the network")
    parser.add_argument("--port", type=int, default=7860, help="0 to 65535; 0 takes a free one")
    add_trust_option(parser)
    args = parser.parse_args(arguments)
    if not 0 <= args.port <= 65535:
        parser.error(f"--port {args.port}: must be from 0 to 65535")
    try:
        trust(args.trust)
        trained = find_trained(args.run)
    except (NoSuchRunError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it when imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio.blocks  # noqa: F401
    except ImportError:
        print("error: gradio is not installed; pip install 'fmnist_lit[demo]' installs it", file=sys.stderr)
        return 1
    from fmnist_lit.run.checkpoint import CheckpointError
    from fmnist_lit.trained.load import load_trained

    try:
        return serve(load_trained(trained.file), args.host, args.port)
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def serve(classifier: "TrainedClassifier", host: str, port: int) -> int:
    """Listen on ``host``:``port`` until Ctrl-C.

    Raises:
        OSError: if the address is not free.
    """
    import socket

    import gradio
    import uvicorn
    from fastapi import FastAPI, Request

    app = FastAPI()

    async def restrict_to_same_origin(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = SAME_ORIGIN_ONLY
        return response

    app.middleware("http")(restrict_to_same_origin)
    page, theme = make_page(classifier)
    app = gradio.mount_gradio_app(app, page, path="/", footer_links=[], theme=theme)
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listening.getsockname()[1]} shows {classifier.source.name}; Ctrl-C stops", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
    return 0


def make_page(classifier: "TrainedClassifier") -> tuple[Any, Any]:
    """The page, with a photo or a drawing as input and the probabilities as output, and its theme."""
    import gradio as gr
    import numpy as np
    from PIL import Image

    from fmnist_lit.config.rules import title_of
    from fmnist_lit.data.pixels import Background, convert

    def classify(
        image: Image.Image | None, background: Background = "auto", trim: bool = False
    ) -> tuple[dict[str, float] | None, Any]:
        if image is None:
            return None, None
        converted = convert(image, background, trim)
        if converted.warning:
            gr.Warning(f"{converted.warning}; choose the background, or trim a plain one")
        (probabilities,) = classifier.predict(converted.pixels).probabilities.tolist()
        seen = Image.fromarray(converted.pixels).resize((224, 224), Image.Resampling.NEAREST)
        return dict(zip(classifier.classes, probabilities, strict=True)), seen

    def classify_drawing(drawing: dict[str, Any] | None) -> tuple[dict[str, float] | None, Any]:
        strokes = None if drawing is None else drawing["layers"][0].getchannel("A")
        if strokes is None or not np.asarray(strokes).any():
            return None, None
        return classify(strokes, "black")

    accuracy = classifier.metrics.get("test_accuracy")
    said = f"{title_of(classifier.dataset)}" + (f", test accuracy {100 * accuracy:.1f} %" if accuracy else "")
    with gr.Blocks(title="fmnist_lit", analytics_enabled=False) as page:
        gr.Markdown(f"# What garment is it?\n{classifier.source.name}: {said}")
        with gr.Row():
            with gr.Column():
                with gr.Tab("Drop a picture"):
                    dropped = gr.Image(type="pil", image_mode=None, sources=["upload", "clipboard"], height=320)
                    background = gr.Radio(["auto", "black", "white"], value="auto", label="Background")
                    trim = gr.Checkbox(label="Trim: cut a plain background away, so that the garment fills the frame")
                with gr.Tab("Draw"):
                    drawn = gr.Sketchpad(
                        type="pil",
                        canvas_size=(280, 280),
                        brush=gr.Brush(default_size=24, colors=["#333333"], color_mode="fixed"),
                        layers=False,
                        height=420,
                        label="Fill the shape",
                        placeholder="Choose the brush on the left, then draw",
                    )
            with gr.Column():
                probabilities = gr.Label(num_top_classes=len(classifier.classes), label="Probabilities")
                seen = gr.Image(label="What the classifier sees, 28 × 28", height=224, interactive=False, buttons=[])
        shown = [probabilities, seen]
        changes = [dropped.change, background.change, trim.change]
        gr.on(changes, classify, [dropped, background, trim], shown, api_visibility="private")
        drawn.change(classify_drawing, drawn, shown, api_visibility="private")
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return page, theme


if __name__ == "__main__":
    sys.exit(run_printing(main))
