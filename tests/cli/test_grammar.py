"""One grammar for every verb: things are positional, choices are options with one meaning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from command import verbs

DOCS = Path(__file__).resolve().parents[2] / "docs" / "verbs.md"
VERBS = verbs()

# What each verb is given, in order. [X]: where something else may say it; X...: several.
THINGS = {
    "data check": "IMAGES",
    "demo-data": "",
    "demo": "[IMAGES]",
    "train": "[IMAGES]",
    "sweep": "[IMAGES]",
    "fit": "MODEL [IMAGES]",
    "embed": "MODEL IMAGES",
    "index": "MODEL [IMAGES]",
    "search": "GALLERY IMAGES...",
    "serve": "GALLERY",
    "gallery create": "MODEL",
    "gallery add": "GALLERY IMAGES...",
    "gallery remove": "GALLERY [IMAGES]...",
    "gallery move": "GALLERY [IMAGES]...",
    "gallery move-root": "GALLERY ROOT FOLDER",
    "gallery info": "GALLERY",
    "gallery check": "GALLERY",
    "gallery compact": "GALLERY",
    "gallery copy": "GALLERY TARGET",
    "gallery export": "GALLERY",
    "gallery import": "FEATURES",
    "gallery reembed": "GALLERY MODEL",
    "gallery calibrate": "GALLERY [IMAGES]",
    "evaluate": "[MODEL] [IMAGES]",
    "export": "MODEL [IMAGES]",
    "compare": "[BASELINE] [OTHERS]...",
    "ask": "A B IMAGES",
    "report": "EVALUATIONS...",
    "protocols": "[NAME]",
    "push": "MODEL OWNER/NAME",
    "recipes": "",
    "recipes show": "NAME",
    "recipes check": "[NAMES]...",
}
# The help of an option begins with these words wherever it stands.
WORDS = {
    "--all": "Take every row, whatever its split and role.",
    "--again": "Take images that were removed before, too.",
    "--alpha": "Share of things not in the gallery that may be taken for a match.",
    "--answers": "In place of evaluations: what a page of 'resight ask' saved.",
    "--backbone": "Backbone: auto, a timm name, or resnet50_ibn_a.",
    "--baseline": "What the others are compared with, by name.",
    "--batch-size": "Images at once; found by itself.",
    "--bound": "Difference of unit vectors that is accepted; by type.",
    "--build": "Make each network too (slow, without weights).",
    "--by": "On the page: AP by this column, not by object and camera.",
    "--columns": "Which of the file's columns are ours, e.g. object=sku,path=file.",
    "--config": "Settings: a YAML file, or a name of 'resight recipes'.",
    "--cross-camera": "Whether matches by the query's own camera are junk",
    "--csv": "Of methods: the table as a CSV file.",
    "--depths": "Depths whose maps are joined, e.g. 2,3,4; by default chosen.",
    "--device": "cpu, cuda, cuda:1 ...; by default a GPU where there is one.",
    "--dims": "Dimensions of the result; at most 256 by default.",
    "--drop-missing": "Remove images whose photos are gone.",
    "--dtype": "float32 or float16.",
    "--duplicates": "Of images with the same content: skip, or keep them all.",
    "--engine": "What keeps it: by default a file; or postgresql://... or qdrant:...",
    "--dynamic": "Take images of any height and width.",
    "--epochs": "Passes over the training images.",
    "--evaluation": "Evaluation folder of this embedder, for the card.",
    "--exclude-cameras": "Cameras whose images are no answer, e.g. c1,c2.",
    "--fail-on-warnings": "Exit with status 1 for warnings too.",
    "--flip": "Average with the mirrored image.",
    "--force": "Replace what is in --out.",
    "--from": "Do an evaluation folder again, and compare every digit.",
    "--grid": "Cells a side that maps are averaged in.",
    "--help": "Show this message and exit.",
    "--hits": "Objects for each query.",
    "--host": "Address to listen at; others than this machine need --keys.",
    "--index": "auto, flat (every vector is looked at), ivf or hnsw.",
    "--jobs": "Runs at a time.",
    "--json": "One JSON object on stdout.",
    "--keys": "File of keys, hashed; RESIGHT_KEYS may hold some too.",
    "--layout": "A benchmark's layout by name, or folder for none; recognised.",
    "--level": "image (a vector an image) or object (one centroid an object)",
    "--limit": "Of an image set, this many queries, evenly spread.",
    "--list": "Print the runs and stop.",
    "--loss": "Loss of smooth_ap: ",
    "--memory": "MB that ranking may take beyond the features.",
    "--method": "raw, whitening, neighbours, joined or discriminant (labels); by default chosen.",
    "--minutes": "About how long training may take, in place of epochs.",
    "--near": "Look for near duplicates too.",
    "--new-key": "Add a key to --keys, print it once, stop: search, write or admin.",
    "--normalise": "Normalise inside: uint8 pixels (N, H, W, 3) go in.",
    "--object": "Object by name: ",
    "--objects": "How many objects.",
    "--out": "Where to write: ",
    "--over": "One setting and its values.",
    "--pairs": "Pairs of photos to ask about, two a photo.",
    "--pictures": "Pictures of each object.",
    "--pixels": "Pixels a side.",
    "--plot": "Draw a plot to this file.",
    "--port": "0: a free one.",
    "--processes": "Server processes that share the gallery.",
    "--protocol": "Protocol, by name",
    "--public": "For all to see; a new repository is private.",
    "--ray": "Embed on a Ray cluster: local (this machine's cores), auto, or HOST:PORT.",
    "--recipe": "auto (default), ",
    "--region": "Part of the photo: x1,y1,x2,y2 in pixels.",
    "--repair": "Mend the faults found.",
    "--rerank": "A second look: aqe, dba, kreciprocal, diffusion, spatial",
    "--reports": "Evaluations, folders of them, or HTML pages to show; any number.",
    "--resume": "Run folder to go on with, where it stopped.",
    "--runtime": "What runs the network: torch, onnx, or auto, which is onnx on a CPU where that "
    "pays.",
    "--scales": "Sum over image scales, e.g. 1,0.707,0.5.",
    "--seed": "Seed of everything random.",
    "--seeds": "Seeds, e.g. 0,1,2.",
    "--set": "One setting.",
    "--sheet": "Draw a picture to this file, e.g. sheet.png.",
    "--show-settings": "Print them and stop.",
    "--shrink": "Share of the covariance within objects replaced by a round one, 0 to 1.",
    "--similarity": "MODEL is a queries x gallery matrix, .npy or .npz[:NAME].",
    "--size": "Of a backbone's images: HEIGHTxWIDTH, or one number.",
    "--sources": "Without labels: a column that says where an image is from (camera, artist, "
    "session), when images of one source look alike.",
    "--start": "weights as they are, or closed-form: fitted first",
    "--steps": "Instead: batches, on a cosine.",
    "--strict": "Stop at the first bad image.",
    "--sync": "Remove the images that are gone from IMAGES.",
    "--threads": "Threads of each run.",
    "--to": "The object they belong to; without it: unknown.",
    "--together": "All photos show one thing: one query.",
    "--transductive": "With --rerank: all queries together, not each alone.",
    "--truth": "With --similarity: JSON, for each query the list of its positives.",
    "--unlabelled": "Don't use labels; folders are not objects.",
    "--untrained": "Evaluate the weights as they come, too.",
    "--weights": "Of a backbone: auto, imagenet, none, a hub name or a file.",
    "--where": "Filter on columns, e.g. ",
    "--workers": "Helpers that read or draw images, 0 for none; by default what pays here.",
}
# Verbs that read an image set, and those that run a network.
READERS = ("data check", "train", "sweep", "fit", "embed", "index", "search", "evaluate")
READERS += ("gallery add", "gallery calibrate", "export", "ask")
NETWORKS = ("train", "sweep", "fit", "embed", "index", "search", "evaluate", "serve")
NETWORKS += ("gallery create", "gallery add", "gallery reembed", "gallery calibrate", "ask")
WANTED = {
    "--columns": (*READERS, "demo"),
    "--layout": READERS,
    "--workers": (*READERS, "demo-data", "gallery reembed"),
    "--unlabelled": tuple(  # the others need them
        v for v in READERS if v not in ("sweep", "evaluate", "gallery calibrate")
    ),
    "--device": NETWORKS,
    "--runtime": (  # where images are embedded for use; training and measuring are torch's
        *("embed", "index", "search", "serve", "gallery add", "gallery calibrate"),
        "gallery reembed",
    ),
    "--json": tuple(
        v for v in THINGS if v not in ("demo", "recipes show", "serve")
    ),  # what prints results
    "--out": (  # what makes something; the others answer on the screen
        *("demo-data", "demo", "train", "sweep", "fit", "embed", "index", "evaluate", "compare"),
        *("ask", "report", "export", "gallery create", "gallery export", "gallery import"),
    ),
}


def options_of(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option"]


def test_the_verbs_are_those_that_the_table_knows() -> None:
    assert set(VERBS) == set(THINGS)


@pytest.mark.parametrize("verb", THINGS)
def test_things_are_positional(verb: str) -> None:
    said = []
    for one in VERBS[verb].params:
        if one.param_type_name == "argument":
            name = (one.metavar or one.name).upper()
            name = name if one.required else f"[{name}]"
            said.append(name + "..." * (one.nargs == -1))
    assert " ".join(said) == THINGS[verb]


@pytest.mark.parametrize("verb", THINGS)
def test_an_option_means_the_same_everywhere(verb: str) -> None:
    for option in options_of(VERBS[verb]):
        long = [name for name in option.opts if name.startswith("--")]
        assert len(long) == 1, option.opts  # no second name for a choice
        assert long[0] in WORDS, f"{verb} {long[0]}: a new word; has another verb one for this?"
        text = " ".join((option.help or "").split())
        assert text.startswith(WORDS[long[0]]), f"{verb} {long[0]}: {text!r}"


def test_no_word_that_no_verb_has() -> None:
    used = {name for one in VERBS.values() for option in options_of(one) for name in option.opts}
    assert set(WORDS) - used <= {"--help"}


@pytest.mark.parametrize("name", WANTED)
def test_an_option_is_everywhere_where_it_makes_sense(name: str) -> None:
    has = {verb for verb, one in VERBS.items() for o in options_of(one) if name in o.opts}
    assert has == set(WANTED[name])


def test_short_names_are_few_and_the_same() -> None:
    short: dict[str, set[str]] = {}
    for one in VERBS.values():
        for option in options_of(one):
            for name in option.opts:
                if not name.startswith("--"):
                    short.setdefault(name, set()).add(option.opts[0])
    assert short == {"-o": {"--out"}, "-p": {"--protocol"}, "-k": {"--hits"}}


def test_every_verb_and_option_has_a_line_in_the_docs() -> None:
    """docs/verbs.md is written by tools/verbs.py; run it when a verb has changed."""
    import runpy

    made = runpy.run_path(str(DOCS.parents[1] / "tools" / "verbs.py"))["page"]()
    assert made == DOCS.read_text(encoding="utf-8"), "python tools/verbs.py"
    for verb, one in VERBS.items():
        section = re.search(rf"^## {verb}$(.*?)(?=^## |\Z)", made, re.M | re.S)
        assert section, verb
        for option in options_of(one):
            assert option.opts[0] in section[1] or option.opts[-1] in section[1], option.opts


def test_every_command_in_the_docs_is_understood() -> None:
    """README, docs and the heads of recipes: each line that begins with "resight" is parsed."""
    import shlex

    root = DOCS.parents[1]
    files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    files += sorted((root / "recipes").glob("*.yaml"))
    wrong, seen = [], 0
    for file in files:
        text = file.read_text(encoding="utf-8").replace("\\\n#", " ").replace("\\\n", " ")
        for line in re.findall(r"^(?:    |#   )resight (.+)$", text, re.M):
            words = shlex.split(re.sub(r"  +(#|→|\().*$", "", line).split(" > ")[0], comments=True)
            if words[0] == "VERB":
                continue
            verb = next((v for v in (" ".join(words[:2]), words[0]) if v in VERBS), None)
            if verb is None:
                wrong.append(f"{file.name}: {line}")
                continue
            seen += 1
            try:
                given = words[len(verb.split()) :]
                VERBS[verb].make_context(verb, given, resilient_parsing=False)
            except Exception as error:
                wrong.append(f"{file.name}: {line}: {error}")
    assert not wrong, "\n".join(wrong)
    assert seen > 60
