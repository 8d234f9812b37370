"""Make what a reader opens: the front page of a run, and copies of executed notebooks that can be committed."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from PIL import Image, UnidentifiedImageError

FRONT_TAG = "front"  # of the cell that saves the figure for the front page
MAX_BYTES = 900_000  # of a copy; code hosts do not render much larger ones
WIDTH_PX = 1000  # of an image in a copy
N_COLOURS = 128
OVERWRITTEN = re.compile(r"^.*\r(?!\n)", re.MULTILINE)  # earlier states of a progress bar
QUESTION = re.compile(r"\*\*Question\.\*\*\s+(.+?)(?:\n\n|\Z)", re.DOTALL)
SAVED = re.compile(r'"([\w-]+)", (?:run\.folder|\*\*)')  # in a call of `routing.studies.plotting.save_figure`
PAGE_TEMPLATE = "{% extends 'lab/index.html.j2' %}"  # without its scripts, all of which are fetched from the network
for block in ("html_head_js", "jupyter_widgets", "html_head_js_mathjax", "html_head_js_mermaidjs"):
    PAGE_TEMPLATE += f"{{% block {block} %}}{{% endblock %}}"
FRONT_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>routing: {profile}</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 56em; margin: 2em auto; padding: 0 1em }}
img {{ max-width: 100%; border: 1px solid #ddd }} figure {{ margin: 1em 0 }} figcaption, small {{ color: #555 }}
.failed {{ color: #b30000 }}
</style></head><body><h1>routing: the notebooks, profile {profile}</h1>
{sections}
</body></html>"""


def write_page(notebook: NotebookNode) -> str:
    """Return an executed notebook as an HTML page that needs no network."""
    return HTMLExporter(raw_template=PAGE_TEMPLATE).from_notebook_node(notebook)[0]


def write_section(copy: Path, title: str, status: str, folder: Path, address: str, figures: Sequence[str]) -> str:
    """Return a notebook's part of the front page: title, question and one figure with its title, the others as links.

    The figure is that of the cell tagged "front", else the first. `copy` is the executed notebook, `status` "ok" or
    what failed, `figures` names of PNG files in `folder`, to which the page links as `address`.
    """
    notebook = nbformat.read(copy, as_version=4)
    front = [cell.source for cell in notebook.cells if FRONT_TAG in cell.metadata.get("tags", [])]
    names = {f"{match[1]}.png" for source in front if (match := SAVED.search(source))}
    figures = sorted(figures, key=lambda name: name not in names)
    parts = [f'<h2><a href="{copy.stem}.html">{html.escape(title)}</a></h2>']
    if notebook.cells and (question := QUESTION.search(notebook.cells[0].source)):
        parts.append(f"<p>{html.escape(' '.join(question[1].split()))}</p>")
    if status != "ok":
        parts.append(f'<p class="failed">{html.escape(status)}</p>')
    for name in figures[:1]:
        caption = name
        with suppress(UnidentifiedImageError), Image.open(folder / name) as image:
            caption = html.escape(image.info.get("Title", name))
        shown = f'<img loading="lazy" alt="{caption}" src="{html.escape(f"{address}/{name}")}">'
        parts.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    if links := [f'<a href="{html.escape(f"{address}/{name}")}">{Path(name).stem}</a>' for name in figures[1:]]:
        parts.append(f"<small>more figures: {', '.join(links)}</small>")
    return "\n".join(parts)


def hash_sources(notebook: NotebookNode) -> str:
    """Return the sha256 over kind, source and tags of a notebook's cells; empty cells and outputs do not count."""
    cells = [cell for cell in notebook.cells if cell.source.strip()]
    sources = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def clean_copy(executed: NotebookNode) -> NotebookNode:
    """Return an executed notebook without what only the machine that ran it knows, or what no reader needs.

    Empty cells, standard error (warnings, progress bars), times of execution and pixels beyond `WIDTH_PX` go, and
    paths below the current and the home folder become relative. Raises ValueError for a cell that was not run or
    ended with an error, and for a copy above `MAX_BYTES` bytes.
    """
    copy = nbformat.from_dict(executed)
    copy.cells = [cell for cell in copy.cells if cell.source.strip()]
    for cell in copy.cells:
        cell.metadata.pop("execution", None)
    for cell in (cell for cell in copy.cells if cell.cell_type == "code"):
        if cell.execution_count is None or any(output.output_type == "error" for output in cell.outputs):
            raise ValueError(f"cell `{cell.source.splitlines()[0]}` was not run to its end")
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output.text = _clean_text(output.text)
            data = output.get("data", {})
            data.update({kind: _clean_text(text) for kind, text in data.items() if kind.startswith("text/")})
            if "image/png" in data:
                data["image/png"] = _shrink(data["image/png"])
    if (size := len(nbformat.writes(copy).encode())) > MAX_BYTES:
        raise ValueError(f"the copy for reading has {size:,} bytes, more than {MAX_BYTES:,}: draw simpler figures")
    return copy


def _clean_text(text: str) -> str:
    for folder, name in [(Path.cwd(), "."), (Path.home(), "~")]:
        text = text.replace(str(folder), name)
    return OVERWRITTEN.sub("", text)


def _shrink(png: str) -> str:
    """Return a PNG (base64) of at most `WIDTH_PX` pixels in width and `N_COLOURS` colours."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if image.width > WIDTH_PX:
        image = image.resize((WIDTH_PX, round(image.height * WIDTH_PX / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(N_COLOURS).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
