"""The words of the command line: each thing and each choice with one name and one meaning.

A verb's signature takes its parameters from here; what a verb has to add stands after the shared
sentence. Things are positional (a model or a gallery, then images), choices are options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

MODEL_HELP = (
    "Run or embedder folder, hub:OWNER/NAME, or a backbone's name (which goes with --weights "
    "and --size)."
)
IMAGES_HELP = "Folder of images, or a CSV or Parquet file (or its address) with a row an image."
WEIGHTS_HELP = "Of a backbone: auto, imagenet, none, a hub name or a file."
LEVEL_HELP = "image (a vector an image) or object (one centroid an object)"
OUT_HELP = "Where to write"
PROTOCOL_HELP = "Protocol, by name"
EVALUATION_HELP = "Evaluation folder (made by 'resight evaluate --out'), or a run that holds one."
NAME_VALUE = "NAME=VALUE"


def place(text: str) -> Path:
    """A path, or an address such as https://... or s3://..., which stands where a path stands."""
    if "://" not in text:
        return Path(text)
    from resight.data import addresses

    return cast(Path, addresses.place(text))


def out(what: str) -> Any:
    """The option --out; `what` is written there."""
    return typer.Option("--out", "-o", help=f"{OUT_HELP}: {what}")


def protocol(how: str) -> Any:
    """The option --protocol; `how` says what a name may be here, and the default."""
    return typer.Option("--protocol", "-p", help=f"{PROTOCOL_HELP} {how}")


Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
ModelOrFeatures = Annotated[str, typer.Argument(help=MODEL_HELP + " Or a features folder.")]
Images = Annotated[Path, typer.Argument(help=IMAGES_HELP, parser=place)]
MaybeImages = Annotated[Path | None, typer.Argument(help=IMAGES_HELP, parser=place)]

# Galleries.
GALLERY_HELP = "Gallery folder (from 'resight index' or 'gallery create')."
GalleryFolder = Annotated[Path, typer.Argument(metavar="GALLERY", help=GALLERY_HELP)]
PHOTOS_HELP = "Photos; or one folder, CSV or Parquet file of them."
Photos = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGES", help=PHOTOS_HELP + " Or a features folder.", parser=place),
]
MaybePhotos = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGES", help="Images of the gallery, by path.", parser=place),
]
ObjectName = Annotated[str | None, typer.Option("--object", help="Object by name: all its images.")]
Where = Annotated[
    str | None, typer.Option(help="Filter on columns, e.g. \"price < 20 and camera != 'c3'\".")
]
AllRows = Annotated[
    bool, typer.Option("--all", help="Take every row, whatever its split and role.")
]
Level = Annotated[str, typer.Option(help=f"{LEVEL_HELP}.")]
MaybeLevel = Annotated[
    str | None,
    typer.Option(help=f"{LEVEL_HELP}; by default the gallery's own."),
]
IndexKind = Annotated[
    str, typer.Option("--index", help="auto, flat (every vector is looked at), ivf or hnsw.")
]
Engine = Annotated[
    str | None,
    typer.Option(help="What keeps it: by default a file; or postgresql://... or qdrant:..."),
]
Alpha = Annotated[
    float | None,
    typer.Option(help="Share of things not in the gallery that may be taken for a match."),
]
Rerank = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="A second look: aqe, dba, kreciprocal, diffusion, spatial, e.g. aqe+diffusion:n=5.",
    ),
]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw a plot to this file.")]
Duplicates = Annotated[
    str, typer.Option(help="Of images with the same content: skip, or keep them all.")
]

# What images are, and how they are read.
Columns = Annotated[
    str | None,
    typer.Option(help="Which of the file's columns are ours, e.g. object=sku,path=file."),
]
Layout = Annotated[
    str | None, typer.Option(help="A benchmark's layout by name, or folder for none; recognised.")
]
Unlabelled = Annotated[
    bool, typer.Option("--unlabelled", help="Don't use labels; folders are not objects.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="Helpers that read or draw images, 0 for none; by default what pays here."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad image.")]

# The network.
Backbone = Annotated[
    str | None, typer.Option(help="Backbone: auto, a timm name, or resnet50_ibn_a.")
]
Weights = Annotated[
    str | None,
    typer.Option(help=WEIGHTS_HELP),
]
TrainedWeights = Annotated[str | None, typer.Option(help=WEIGHTS_HELP + " Or an embedder.")]
Size = Annotated[
    str | None, typer.Option(help="Of a backbone's images: HEIGHTxWIDTH, or one number.")
]
Flip = Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")]
Scales = Annotated[str | None, typer.Option(help="Sum over image scales, e.g. 1,0.707,0.5.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 ...; by default a GPU where there is one.")
]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="What runs the network: torch, onnx, or auto, which is onnx on a CPU where that pays."
    ),
]

Protocols = Annotated[
    list[str] | None,
    protocol("('resight protocols' lists them), or a YAML file; by default as the set asks."),
]

# Training.
Config = Annotated[
    str | None, typer.Option(help="Settings: a YAML file, or a name of 'resight recipes'.")
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar=NAME_VALUE, help="One setting.")]
Minutes = Annotated[
    float | None, typer.Option(help="About how long training may take, in place of epochs.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]

# What is printed and written.
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is in --out.")]
Sheet = Annotated[Path | None, typer.Option(help="Draw a picture to this file, e.g. sheet.png.")]
Baseline = Annotated[str | None, typer.Option(help="What the others are compared with, by name.")]
