"""`map`: a command for each item, durable."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from jobd import mapping, measures
from jobd.cli import following, mapitems, mapreport, submission
from jobd.cli.live import PanelView
from jobd.cli.mapview import READER_GONE, Printing, Quiet
from jobd.cli.output import Output, shape_options
from jobd.cli.through import Through
from jobd.cli.verb import pass_session, verb
from jobd.commands import TASK
from jobd.errors import JobdError, UsageError
from jobd.printed import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobd.cli.interrupts import Interrupts
    from jobd.cli.live import View
    from jobd.cli.session import Session
    from jobd.job import Job
    from jobd.store.views import Counts

_SAME = "the same line again"


@verb(
    "map",
    context_settings={"allow_interspersed_args": False},
    examples=(
        "jobd map gzip -9 ::: *.log",
        "find . -name '*.png' -print0 | jobd map -0 -j 4 convert {} {.}.webp",
        "jobd map --jsonl 'curl -sf {url} > {id}.html' < pages.jsonl",
        "jobd map --job thumbs -a names.txt 'convert {} -resize 200 thumbs/{/}'",
    ),
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND... [::: ITEM...]")
@click.option("-a", "--arg-file", "file", metavar="FILE|-", help="Items from a file, one a line.")
@click.option("-0", "--null", "nul", is_flag=True, help="The items of -a or standard input end with NUL.")
@click.option("--jsonl", is_flag=True, help="Items are JSON documents; {field} stands for a field of theirs.")
@click.option("--key", metavar="FIELD", help="The field of --jsonl that is an item's key.")
@click.option("--job", "name", metavar="NAME", help="The job's name; else it is its command and its folder.")
@click.option("--new", is_flag=True, help="Begin a new job; what is left of the former one is cancelled.")
@click.option("--accept-changed", is_flag=True, help="Run what is left of job NAME with another command.")
@click.option("--if-changed", is_flag=True, help="Run again also what has completed, where its file has changed since.")
@click.option("--retry-failed/--no-retry-failed", default=True, help="Run failed items again, which is the default.")
@click.option("-j", "--workers", type=click.IntRange(min=1), metavar="N", help="How many commands run at once.")
@click.option("--timeout", metavar="TIME", help="How long a command may take: 90s, 5m. It is killed with its children.")
@click.option("--retries", type=click.IntRange(min=0), metavar="N", help="How often a command that fails is run again.")
@click.option("--rate", metavar="N/s", help="How many commands may start in a while: 10/s, 100/m.")
@click.option("--halt", metavar="fail=N", help="Begin no more once N items have failed.")
@click.option("--dry-run", is_flag=True, help="Print the commands that would run, and run none.")
@click.option("-d", "--detach", is_flag=True, help="Hand the job to the daemon, print its id and return.")
@click.option("--results", "report", metavar="FILE", help="Write what became of each item: TSV, or JSON lines.")
@click.option("-k", "--keep-order", is_flag=True, help="Print in the order of the items.")
@click.option("--tag", is_flag=True, help="Begin each printed line with its item.")
@shape_options()
@pass_session
def map_(session: Session, /, words: tuple[str, ...], **options: Any) -> int:
    """Run a command for each item; the same line again goes on where it was.

    The words up to ::: are the command. Where its first word has a blank it is the whole command, for sh -c, and the
    words after it are items. Else items come from -a, or from standard input. {} is the item, {.} without its
    extension, {/} without its folder, {//} its folder, {/.} its bare name, {#} its number; without any of them it comes
    last. Standard output is that of the commands.
    """
    jsonl = options["jsonl"]
    command, named = mapitems.split(words, objects=jsonl)
    fields = command.fields() if jsonl else ()
    items = mapitems.Items(named, options["file"], options["nul"], jsonl, options["key"], fields)
    wanted = mapping.Wanted(
        command=command,
        name=options["name"],
        known=_known(options),
        retry_failed=options["retry_failed"],
        if_changed=options["if_changed"],
        key_field=options["key"],
        options=_policy(options),
    )
    source = items.read()
    if options["dry_run"]:
        return mapreport.dry_run(session, wanted, source, as_json=options["as_json"])
    if mapping.find(session.app, wanted) is None:
        # A job of no items would be one more job, and nothing else.
        first = list(islice(source, 1))
        if not first:
            session.say("no items: nothing to do")
            return 0
        source = chain(first, source)
    if options["detach"]:
        return _detached(session, wanted, source, options)
    return _Map(session, wanted, source, options).through()


def _known(options: dict[str, Any]) -> Any:
    if options["new"] and options["accept_changed"]:
        raise UsageError("--new and --accept-changed exclude each other")
    if options["accept_changed"] and options["name"] is None:
        raise UsageError("--accept-changed goes with --job", hint="without a name another command is another job")
    return "new" if options["new"] else "accept" if options["accept_changed"] else "refuse"


def _policy(options: dict[str, Any]) -> dict[str, Any]:
    """Return what travels with the job to whoever runs it; refused here, it has changed nothing of a known job."""
    _check("-j", options["workers"], measures.count)
    _check("--timeout", options["timeout"], measures.duration)
    _check("--retries", options["retries"], measures.amount)
    _check("--rate", options["rate"], measures.rate)
    wanted = {
        "concurrency": options["workers"],
        "timeout": options["timeout"],
        "retries": options["retries"],
        "rate": options["rate"],
        "halt": submission.halt(options["halt"]) if options["halt"] is not None else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _check(option: str, value: Any, read: Callable[[Any], object]) -> None:
    if value is None:
        return
    try:
        read(value)
    except UsageError as error:
        raise UsageError(f"{option}: {error}", hint=error.hint) from None


def _detached(session: Session, wanted: mapping.Wanted, items: Iterable[Any], options: dict[str, Any]) -> int:
    """Submit, print the job's id and return."""
    if asked := [name for name in ("report", "keep_order", "tag") if options[name]]:
        word = {"report": "--results", "keep_order": "-k", "tag": "--tag"}[asked[0]]
        raise UsageError(f"{word} is for whoever watches: it does not go with -d")
    from jobd.cli.submit import handed_over

    output = Output(session, as_json=options["as_json"])
    job = mapping.find(session.app, wanted)
    before = job.counts if job is not None else None
    if job is not None:
        items = mapping.bring_back(session.app, wanted, job, items)
    begun = mapping.submit(session.app, wanted, job, items)
    return handed_over(session, output, begun, lambda: announce(session, begun, job, before, wanted))


def announce(session: Session, job: Job, known: Job | None, before: Counts | None, wanted: mapping.Wanted) -> None:
    """Say what was there of a job that goes on."""
    if before is None or known is None or known.id != job.id:
        return  # half a job, whose submitter was killed, goes on as nothing
    left = before.open + before.cancelled + (before.failed if wanted.retry_failed else 0)
    parts = [f"{before.completed:,} completed before", f"{left:,} to do", f"{job.added:,} new"]
    if before.failed and not wanted.retry_failed:
        parts.append(f"{before.failed:,} failed are left")
    session.say(f"job {job.id} goes on: {', '.join(parts)}")


@dataclass
class _Map(Through):
    """One call of `map` that sees its job through."""

    session: Session
    wanted: mapping.Wanted
    items: Iterable[Any]
    options: dict[str, Any]
    workers: int | None = field(init=False)
    output: Output = field(init=False)
    watch: Watch = field(init=False)
    printing: Printing | None = field(init=False, default=None)
    job: Job | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.workers = self.options["workers"]
        self.output = Output(self.session, as_json=self.options["as_json"])
        if self.options["report"] is not None:
            mapreport.check(self.options["report"])

    @property
    def task_name(self) -> str:
        return TASK

    def through(self) -> int:
        store = self.session.app.store
        # What runs from now on keeps all that it prints until it is printed here.
        with Watch(store.path) as self.watch:
            self.watch.begin(store)
            try:
                return super().through()
            except KeyboardInterrupt:
                return self._cut_off()
            except JobdError:
                if self.printing is None:
                    self._show_what_ran()
                raise

    def _cut_off(self) -> int:
        """Say how to go on where a signal came before all items were read; nothing of the input was added."""
        self.session.warn("interrupted before all items were read: none of them was added")
        if self.job is None:
            self.session.say(f"  next: {_SAME}")
            return following.INTERRUPTED
        self._show_what_ran()
        return self.end(self.job, ended=False)

    def _show_what_ran(self) -> None:
        """Print what was left of a known job and ran while the input was read: nobody else shows it."""
        if self.job is None:
            return
        self.watch.follow(self.job.id)
        view = self.view(None, "")
        view.update(self.job.refresh(), self.job.json())
        view.close()

    def before(self) -> Counts | None:
        self.job = mapping.find(self.session.app, self.wanted)
        if self.job is None:
            return None
        counts = self.job.counts
        # Before anybody runs it: what fails from now on has failed in this run.
        self.items = mapping.bring_back(self.session.app, self.wanted, self.job, self.items)
        return counts

    def submit(self, before: Counts | None, interrupts: Interrupts) -> Job:
        job = mapping.submit(self.session.app, self.wanted, self.job, interrupts.reading(self.items))
        self.watch.follow(job.id)
        announce(self.session, job, self.job, before, self.wanted)
        return job

    def view(self, workers: int | None, foot: str) -> View:
        talk = self.session.talk
        shown: View = PanelView(self.session, talk, workers, foot) if talk.tty else Quiet(self.session)
        if self.output.shape == "json":
            return shown
        self.printing = Printing(
            self.session,
            shown,
            self.watch,
            self.session.app.store,
            in_order=self.options["keep_order"],
            tagged=self.options["tag"],
        )
        return self.printing

    def end(self, job: Job, *, ended: bool) -> int:
        code = following.finish(self.session, job, None, ended=ended, same=_SAME)
        if self.options["report"] is not None:
            mapreport.write(self.options["report"], job)
        if self.output.shape == "json":
            self.output.document(job.json())
        return code if self._printed_all(job) else code or 1

    def _printed_all(self, job: Job) -> bool:
        """Say whether who reads standard output had all of it, and else why not: what comes after may rely on that."""
        printing = self.printing
        if printing is None:
            return True
        if printing.failure is not None and printing.failure.errno not in READER_GONE:
            why = printing.failure.strerror
            self.session.warn(f"not all output could be written: {why}", f"jobd logs {job.id}:KEY")
            return False
        if printing.cut and printing.failure is None:
            self.session.warn(f"of {printing.cut:,} items not all output is there: its beginning was not kept")
            return False
        return True
