"""A folder of texts made searchable in three phases: documents, embeddings, index. Each is a job after the one before.

Ingest a folder:          python docs/examples/pipeline.py notes    (its *.txt, by the words of notes/vocabulary)
How far is the whole:     jobd show @last says "2 of 3 phases completed"
A phase has failed:       what comes after it was cancelled. Put the cause right, jobd retry 2, and run this again.
There are new texts:      run this again: what is completed stays, and the index is written anew.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from jobd import Context, Jobd
from jobd.job import Job

app = Jobd()


@app.task
def documents(path: str) -> list[str]:
    return re.findall(r"\w+", Path(path).read_text().lower())


@app.task
def embeddings(path: str, ctx: Context) -> list[int]:
    """Make a vector of a document: how often each word of the vocabulary is in it."""
    vocabulary = Path(path).with_name("vocabulary").read_text().split()
    (document,) = app.job(ctx.params["documents"]).results(path)
    return [document.value.count(word) for word in vocabulary]


@app.task
def index(texts: dict[str, Any], ctx: Context) -> int:
    """Write the vectors to one file. It is there whole or not at all, and to write it twice does no harm."""
    vectors = {result.key: result.value for result in app.job(ctx.params["embeddings"]).results()}
    partial = Path(texts["folder"], "index.partial")
    partial.write_text(json.dumps(vectors))
    partial.replace(partial.with_name("index.json"))
    return len(vectors)


def ingest(folder: str) -> list[Job]:
    """Submit the three phases, all or none. By their key they are the same jobs when it is called again."""
    paths = sorted(str(path) for path in Path(folder).glob("*.txt"))
    with app.atomic():
        first = documents.submit(paths, key=folder)
        second = embeddings.submit(paths, key=folder, params={"documents": first.id}, after=first)
        third = index.submit(
            [{"folder": folder, "paths": paths}],
            key=folder,
            item_key="folder",
            params={"embeddings": second.id},
            after=second,
            changed="requeue",  # other texts: the index has to be written anew
        )
    return [first, second, third]


if __name__ == "__main__":
    with app.daemon():
        for job in ingest(sys.argv[1]):
            job.wait()
            print(f"job {job.id} {job.task}: {job.status_description}")
