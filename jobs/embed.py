"""Write an embedding of every image to a Parquet file: of packed shards or of a folder of images, in order, with names.

Columns: name, camera (-1 unknown), embedding (unit length, float32). The network comes from --checkpoint.
"""

import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reidray.command import parse, user_errors
from reidray.data import folder
from reidray.events import message, stage
from reidray.launch.inference import embed, load_model
from reidray.report.console import Console
from reidray.storage.pack import pack
from reidray.training.context import open_split


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="DIR", type=Path, required=True, help="checkpoint or run folder")
    parser.add_argument(
        "--images", metavar="DIR", required=True, help="packed split (has split.json) or folder of images"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="Parquet file to write")


def main() -> None:
    """The job."""
    with user_errors():
        options = parse(sys.argv[1:], prog="jobs/embed.py", description=__doc__, extra=_options, settings=False).options
        if options.output.exists():
            raise ValueError(f"{options.output} exists and is not overwritten: choose another --output")
        if not options.output.absolute().parent.is_dir():
            raise ValueError(f"--output {options.output}: there is no folder {options.output.absolute().parent}")
        model, settings = load_model(options.checkpoint.resolve())
        data = settings.data
        with tempfile.TemporaryDirectory() as scratch, Console(None, settings) as console:
            source = options.images if "://" in options.images else str(Path(options.images).resolve())
            if "://" not in source and not (Path(source) / "split.json").is_file():
                written = pack(
                    folder.read(Path(source)),
                    Path(scratch) / "packed",
                    images_per_shard=data.images_per_shard,
                    max_pixels=int(data.max_megapixels * 1e6),
                    max_bytes=int(data.max_image_mb * 1e6),
                )
                for reason, entry in written.get("skipped", {}).items():
                    console.handle(message(f"skipped {entry['count']}: {reason}"))
                source = f"{scratch}/packed/train"
            place, split = source.rstrip("/").rsplit("/", 1)
            images = open_split(settings, place, split)
            done = 0

            def progress(count: int) -> None:
                nonlocal done
                done += count
                console.handle(stage("extract", done=done, total=images.source.count, unit=images.unit))

            features_ND = embed(model, settings, images, progress)
            table = pa.table(
                {
                    "name": images.source.names,
                    "camera": images.source.cameras_N,
                    "embedding": pa.FixedSizeListArray.from_arrays(pa.array(features_ND.ravel()), features_ND.shape[1]),
                }
            )
            pq.write_table(table, options.output)
            console.handle(
                {
                    "kind": "message",
                    "text": f"{len(features_ND):,} embeddings of width {features_ND.shape[1]} in {options.output}",
                }
            )


if __name__ == "__main__":
    main()
