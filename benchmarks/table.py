"""Write the tables of README.md and docs/performance.md from the JSON of the other benchmarks.

    python benchmarks/table.py

Reads benchmarks/results/*.json. README gets the rows of `SHOWN`, docs/performance.md those that have a goal, then all
of them, and a table of large runs side by side. The tables are put between comments: `<!-- benchmarks -->` and
`<!-- end of benchmarks -->`, `goals`, `large`, and `plan` (of benchmarks/plan.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plan

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# What README shows, at most ten: as it is called in the results, how its size begins, how README calls it, and what it
# is compared with. Names in braces are ratios of the results.
_FLOOR, _LIBRARY = "{times_floor} x the time of ", "{times_faster} x faster than "
SHOWN = [
    (
        *("neighbours, Jaccard, DBSCAN", "N = 12,936", "label 12,936 images, as many as Market-1501 has"),
        _FLOOR + "its matrix product alone, which every exact method needs",
    ),
    (
        *("neighbours, Jaccard, DBSCAN", "N = 32,621", "label 32,621 images, as many as MSMT17 has"),
        _FLOOR + "its matrix product alone",
    ),
    ("neighbours, Jaccard, DBSCAN", "N = 200,000", "label 200,000 images", ""),
    (
        *("DBSCAN on the sparse matrix", "N = 32,621, D = 2048, eps = 0.6", "DBSCAN of 32,621 images, distances given"),
        _LIBRARY + "scikit-learn",
    ),
    (
        *("part clustering from feature maps, 3 parts", "", "find the body parts of 64 images"),
        _LIBRARY + "scikit-learn",
    ),
    (
        *("ranking at MSMT17's size", "", "rank 82,161 images for each of 11,659 queries"),
        _LIBRARY + "sorting and scikit-learn",
    ),
    ("decode and augment", "128 x 64 to 384 x 128", "decode and augment 256 images", _LIBRARY + "PIL and torchvision"),
    ("a step", "", "a training step of 64 images, two workers", _FLOOR + "a plain PyTorch DDP loop"),
    (
        *("IHC, 19 stages of 5 %", "", "merge 12,936 images into clusters, step by step"),
        _FLOOR + "its arithmetic alone",
    ),
    (
        *("block tasks, one labeller of 2 threads", "N = 12,936", "neighbours of 12,936 images, block by block"),
        "{wall x} x the time of all at once",
    ),
]


def main() -> None:
    """The command."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    documents = [document for document in found if "rows" in document]  # chaos.json holds faults
    write(ROOT / "README.md", "benchmarks", readme_table(documents))
    write(ROOT / "docs" / "performance.md", "goals", goals_table(documents))
    write(ROOT / "docs" / "performance.md", "benchmarks", full_tables(documents))
    write(ROOT / "docs" / "performance.md", "large", large_table(found))
    write(ROOT / "docs" / "performance.md", "plan", plan.table(plan.planned(plan.Size(), plan.measured())))


def write(path: Path, name: str, table: str) -> None:
    """Puts the table between the two comments of that name in a document."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = path.read_text().split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}")


def readme_table(documents: list[dict[str, Any]]) -> str:
    """The few rows that say most, those of missed goals among them."""
    lines = ["| what | time | memory | compared with |", "|---|---|---|---|"]
    rows = [row for document in documents for row in document["rows"] if "bar" in row]
    for what, size, called, compared in SHOWN:
        (row,) = (row for row in rows if row["what"] == what and row["size"].startswith(size))
        ratios = {name: _number(row.get(name)) for name in ("times_faster", "times_floor")}
        said = compared.format_map({**ratios, "wall x": _number(row.get("notes", {}).get("wall x"))})
        if row.get("reached") is False:
            said += f"; **the goal, {row['bar'].split(',')[0]}, is missed**"
        memory = f"{_number(row['peak_mb'])} MB" if "peak_mb" in row else ""
        lines.append(f"| {called} | {_time(row)} | {memory} | {said} |")
    return "\n".join(lines)


def goals_table(documents: list[dict[str, Any]]) -> str:
    """What was promised, and what was reached."""
    lines = ["| what | size | goal | reached | seconds | x floor | x faster than |", "|---|---|---|---|---|---|---|"]
    for document in documents:
        for row in document["rows"]:
            if "bar" in row:
                cells = [_what(row), row["size"], row["bar"], _reached(row), _seconds(row), _floor(row), _library(row)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def full_tables(documents: list[dict[str, Any]]) -> str:
    """A section a benchmark: command, machine, every row."""
    sections = []
    for document in documents:
        machine = document["machine"]
        packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
        lines = [
            f"### {document['benchmark']}",
            "",
            f"`{document['command']}`, {machine['threads']} threads on {machine['cores']} cores, {machine['cpu']} "
            f"({', '.join(machine['instructions'])}), load {machine['load_before']} before; Python "
            f"{machine['python']}, {packages}.",
            "",
            "| what | size | seconds | CPU-seconds | first call | floor | x floor | library | x faster | MB | notes |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in document["rows"]:
            ours = row.get("ours", {})
            cells = [
                row["what"],
                row["size"],
                _number(ours.get("seconds")),
                _number(ours.get("cpu_seconds")),
                _number(ours.get("first_seconds")),
                row["floor"][0] if "floor" in row else "",
                _number(row.get("times_floor")),
                row["library"][0] if "library" in row else "",
                _number(row.get("times_faster")),
                _number(row.get("peak_mb")),
                "; ".join(f"{name}: {value}" for name, value in row.get("notes", {}).items()),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


# Processes of benchmarks/large.py that are ours, and what they do.
PROCESSES = {
    "driver": "driver: packs, shows what the run says, and makes its page",
    "draws and packs": "a process that draws, or tries images",
    "RayTrainWorker": "a worker, with `data.decoded_cache_mb` of decoded images",
    "Labeller": "a labeller",
    "BankShard": "a shard of the memory bank",
    "Mailbox": "the mailbox between workers and driver",
}


def large_table(documents: list[dict[str, Any]]) -> str:
    """Runs of benchmarks/large.py side by side, the smallest first."""
    runs = sorted((one for one in documents if one.get("benchmark") == "large"), key=lambda one: one["images"])
    large = runs[-1]
    lines = [
        "| what | " + " | ".join(f"{run['images']:,} images" for run in runs) + " | ratio |",
        "|---|" + "---|" * (len(runs) + 1),
    ]

    def add(what: str, unit: str, *keys: str) -> None:
        values = [_at(run, keys) for run in runs]
        cells = [f"{_number(value)} {unit}" for value in values]
        lines.append(f"| {what} | {' | '.join(cells)} | {_number(values[-1] / values[0])} |")

    for stage in (name for name in large["stages"] if all(name in run["stages"] for run in runs)):
        all_epochs = ", three epochs" if stage in ("extract", "label", "train") else ""  # calibrate: once
        add(f"{stage}{all_epochs}", "s", "stages", stage)
    add("a checkpoint, written beside the training", "s", "seconds", "a checkpoint")
    add("from --resume to the next epoch", "s", "seconds", "from --resume to the next epoch")
    for name, said in PROCESSES.items():
        add(f"memory: {said}", "MB", "memory_mb", name, "own")
    add(
        "memory: a worker, with libraries, mapped files and messages",
        "MB",
        "memory_mb",
        "RayTrainWorker",
        "with shared",
    )
    for name in ("drawn", "packed", "run folder", "a checkpoint"):
        add(f"disk: {name}", "MB", "disk_mb", name)
    add("console", "lines", "lines_on_the_console")
    return "\n".join(lines)


def _at(document: Any, keys: tuple[str, ...]) -> float:
    for key in keys:
        document = document[key]
    return float(document)


def _what(row: dict[str, Any]) -> str:
    """With what should be known about the run."""
    note = row.get("notes", {}).get("note")
    return f"{row['what']} ({note})" if note else str(row["what"])


def _answer(row: dict[str, Any]) -> str:
    return {True: "yes", False: "**no**", None: "not told here"}[row.get("reached")]


def _reached(row: dict[str, Any]) -> str:
    return _answer(row) + (f", {_number(row['peak_mb'])} MB" if "peak_mb" in row else "")


def _seconds(row: dict[str, Any]) -> str:
    return _number(row.get("ours", {}).get("seconds"))


def _time(row: dict[str, Any]) -> str:
    """As a person says it."""
    seconds = row.get("ours", {}).get("seconds")
    if seconds is None:
        return ""
    return f"{_number(seconds)} s" if seconds >= 0.95 else f"{_number(1000 * seconds)} ms"


def _floor(row: dict[str, Any]) -> str:
    return f"{_number(row['times_floor'])} ({row['floor'][0]})" if "times_floor" in row else ""


def _library(row: dict[str, Any]) -> str:
    return f"{_number(row['times_faster'])} ({row['library'][0]})" if "times_faster" in row else ""


def _number(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
