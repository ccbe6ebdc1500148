"""Write the tables of README.md and docs/performance.md from the JSON of the other benchmarks.

    python benchmarks/table.py

Reads benchmarks/results/*.json. README gets the rows that have a bar, docs/performance.md all of them, each between
the comments `<!-- benchmarks -->` and `<!-- end of benchmarks -->`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"


def main() -> None:
    """The command."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    documents = [document for document in found if "rows" in document]  # chaos.json holds faults
    write(ROOT / "README.md", readme_table(documents))
    write(ROOT / "docs" / "performance.md", full_tables(documents))


def write(path: Path, table: str) -> None:
    """Puts the table between the two comments of a document."""
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


def readme_table(documents: list[dict[str, Any]]) -> str:
    """What was promised, and what was reached."""
    lines = ["| what | size | bar | reached | seconds | x floor | x faster than |", "|---|---|---|---|---|---|---|"]
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


def _what(row: dict[str, Any]) -> str:
    """With what should be known about the run."""
    note = row.get("notes", {}).get("note")
    return f"{row['what']} ({note})" if note else str(row["what"])


def _reached(row: dict[str, Any]) -> str:
    answer = {True: "yes", False: "**no**", None: "not told here"}[row.get("reached")]
    return answer + (f", {_number(row['peak_mb'])} MB" if "peak_mb" in row else "")


def _seconds(row: dict[str, Any]) -> str:
    return _number(row.get("ours", {}).get("seconds"))


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
