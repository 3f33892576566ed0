"""All the files that are made of a results file, in the folder beside it."""

from __future__ import annotations

from pathlib import Path

from bigain.report.labels import label
from bigain.report.pictures import draw_front, draw_samples
from bigain.report.table import markdown
from bigain.run.files import write_whole
from bigain.run.results import Results, Timings, write_results
from bigain.run.store import Store
from bigain.run.summary import summarise, timings

_COLUMNS = 10  # of the page of samples


def write_folder(store: Store, folder: Path) -> tuple[Results, Timings]:
    """Writes results.json, results.csv, results.timings.json, table.md, front.png and samples.png.

    The times, and with them the table and the front, are measured; the other files repeat bit for bit on one machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, times = summarise(store), timings(store)
    write_results(folder / "results.json", results, times)
    write_whole(folder / "table.md", markdown(results, times))
    if any(row.accuracy is not None or row.fid is not None for row in results.rows):
        draw_front(results, times, folder / "front.png")
    if any(row.generated for row in results.rows):
        draw_page(store, folder / "samples.png")
    return results, times


def draw_page(store: Store, path: Path) -> None:
    """Draws the first generated images of every method, each column from one noise."""
    first = store.generated("none", _COLUMNS)
    numbers = [image.image for image in first]
    names, multi_label = store.facts["classes"], store.facts["multi_label"]
    headings = []
    for image in first:
        captioned = multi_label and not image.condition.isdigit()  # a caption says more than one of its classes
        headings.append(image.condition if image.label is None or captioned else names[image.label])
    rows = []
    for spec in store.methods():
        made = {image.image: image for image in store.generated(spec, _COLUMNS)}
        if all(number in made for number in numbers):
            rows.append((str(label(spec)), [made[number].pixels for number in numbers]))
    draw_samples(rows, headings, path, "Each column starts from the same noise")
