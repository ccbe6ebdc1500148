"""Run the ablation tables of the papers on drawn pedestrians; print what the paper says beside what is seen.

    python benchmarks/paper_tables.py --output tables.jsonl --data-seeds 31 32 33
    python benchmarks/paper_tables.py --output tables.jsonl --data-seeds 31 32 33 --table acrm_2 acrm_3

Rows and comparisons are in benchmarks/paper_tables.yaml. Runs are made as in benchmarks/drawn.py, each row once a data
seed; what is in the output already, also from another table, is not run again. A comparison is made seed by seed, since
two data seeds differ by more than two methods.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from drawn import run_once

ROWS = Path(__file__).with_suffix(".yaml")

Runs = dict[tuple[str, int], dict[str, Any]]
"""result.json by settings and data seed"""


def main() -> None:
    """The command."""
    tables: dict[str, Any] = yaml.safe_load(ROWS.read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, one a run; appended to")
    parser.add_argument("--data-seeds", type=int, nargs="+", required=True)
    parser.add_argument("--table", nargs="+", choices=tables["tables"], default=list(tables["tables"]))
    parser.add_argument("--parallel", type=int, default=2)
    options = parser.parse_args()
    chosen = {name: tables["tables"][name] for name in options.table}
    wanted = {
        (words(tables, table, row), seed): None
        for table in chosen.values()
        for seed in options.data_seeds
        for row in table["rows"].values()
    }
    runs = read(options.output)
    with ThreadPoolExecutor(options.parallel) as pool:
        todo = [key for key in wanted if key not in runs]
        for key, result in zip(
            todo, pool.map(lambda key: run_once(key[0], key[0].split(), key[1], []), todo), strict=True
        ):
            with options.output.open("a") as stream:
                stream.write(json.dumps(result) + "\n")
            print(f"{key[0]} data.seed={key[1]}: mAP {result['after']['mAP']:.1f}", file=sys.stderr)
    runs = read(options.output)
    for table in chosen.values():
        print("\n".join(markdown(tables, table, runs, options.data_seeds)), end="\n\n")


def words(tables: dict[str, Any], table: dict[str, Any], row: dict[str, Any]) -> str:
    """Config and settings of a row."""
    return " ".join([*tables["common"], *table.get("common", []), row["settings"]])


def read(path: Path) -> Runs:
    """The runs that are there."""
    lines = path.read_text().splitlines() if path.exists() else []
    runs = [json.loads(line) for line in lines]
    return {(run["variant"], run["data_seed"]): run for run in runs}


def markdown(tables: dict[str, Any], table: dict[str, Any], runs: Runs, seeds: list[int]) -> list[str]:
    """The rows, then the comparisons."""
    made = {name: [runs[words(tables, table, row), seed] for seed in seeds] for name, row in table["rows"].items()}
    found = {name: [run["after"]["mAP"] for run in own] for name, own in made.items()}
    lines = [f"**{table['title']}**", ""]
    lines.append(f"| row | paper | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | spread | ARI |")
    lines.append("|---" * (len(seeds) + 5) + "|")
    for name, row in table["rows"].items():
        values = " | ".join(f"{value:.1f}" for value in found[name])
        ari = mean(run["ARI"] for run in made[name])
        figures = f"{mean(found[name]):.1f} | {stdev(found[name]):.1f} | {ari:.2f}"
        lines.append(f"| {name} | {row.get('paper', '')} | {values} | {figures} |")
    lines += ["", "| comparison | the paper says | we see | seed by seed | sign |", "|---|---|---|---|---|"]
    for better, worse in table["pairs"]:
        apart = [one - other for one, other in zip(found[better], found[worse], strict=True)]
        papers = [table["rows"][name].get("paper") for name in (better, worse)]
        said = "above" if None in papers else f"{papers[0] - papers[1]:+.1f}"
        shown = ", ".join(f"{value:+.1f}" for value in apart)
        seen = f"{mean(apart):+.1f} +- {stdev(apart):.1f}"
        lines.append(f"| {better} against {worse} | {said} | {seen} | {shown} | {sign(apart)} |")
    return lines


def sign(apart: list[float]) -> str:
    """Whether what the paper says is above is so: in every seed, in none, or now and then."""
    above = sum(value > 0 for value in apart)
    return "as in the paper" if above == len(apart) else "the other way" if above == 0 else "not clear"


if __name__ == "__main__":
    main()
