"""Watches the jobs of a submission until all are over, and submits again what was cut off."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from bench.cluster.backend import Backend, JobState, Options, Unreachable
from bench.cluster.layout import Layout
from bench.cluster.owner import Attended, Owner
from bench.cluster.progress import ShardRows
from bench.cluster.shard import Shard
from bench.cluster.submissions import ShardJobs, Submission, read_submissions, write_submissions
from bench.errors import UserError

MOST_JOBS = 3  # of one shard that finish no case, in a row; what the queue itself begins again is not counted
LONGEST_S = 30.0  # between two looks
LAST_LINES = 5  # of a job's log, with a shard that keeps failing
AGAIN = ("failed", "timeout", "node_fail", "out_of_memory", "preempted")  # ends after which a job is submitted again


@dataclass
class Watched:
    """A shard as it stands."""

    shard: ShardJobs
    rows: ShardRows
    state: JobState = field(default_factory=lambda: JobState("pending"))
    seen: bool = False  # alive, by this process
    since: float | None = None  # when this process first saw it running
    before: int = 0  # tasks that were done then
    settled: bool = False  # nothing more comes of it
    asked: int = 0  # times that its job was found ended

    @property
    def open(self) -> int:
        return self.shard.tasks - self.rows.done

    def begin(self, shard: ShardJobs) -> None:
        """With a new job."""
        self.shard, self.state = shard, JobState("pending")
        self.settled, self.seen, self.since, self.asked = False, False, None, 0

    def leave(self, why: str) -> None:
        self.shard.left, self.settled = why, True

    def word(self) -> str:
        """How it stands, in a word or two."""
        if not self.open:
            return "done"
        if self.shard.left:
            return "given up"
        return self.state.word if not self.state.how else f"{self.state.word}, {self.state.how}"

    def left_s(self, pace: float) -> float:
        """Seconds to go, by its own pace where it has one. pace: of all, over what was estimated."""
        done = self.rows.done - self.before
        if self.since is not None and done > 0:
            return (monotonic() - self.since) / done * self.open
        return self.shard.seconds / max(self.shard.tasks, 1) * self.open * pace


class Watch:
    """The shards of a folder's last submission."""

    def __init__(
        self,
        layout: Layout,
        submissions: Sequence[Submission],
        backend: Backend,
        options: Options,
        say: Callable[[str], None],
        owner: Owner | None = None,
        cancelled: bool = False,
    ) -> None:
        """owner: where this process attends to the folder; without, it only looks on. cancelled: nothing is submitted
        again, however its job has ended."""
        self._layout, self._submissions, self._backend = layout, list(submissions), backend
        self._options, self._say, self._owner, self._cancelled = options, say, owner, cancelled
        self.trouble = ""  # why the states may be old
        current = self._submissions[-1]
        plan = layout.read_plan(current.plan)
        self.shards = [
            Watched(
                s,
                ShardRows(layout, s.number, layout.read_tasks(s.number), plan.row_keys),
                settled=bool(s.left),
            )
            for s in current.shards
        ]

    def until_over(self, show: Callable[["Watch"], None], every_s: float) -> None:
        """Looks and shows every every_s seconds, until nothing more comes."""
        while True:
            began = monotonic()
            self.look()
            show(self)
            if all(w.settled for w in self.shards):
                return
            # A queue that answers slowly is asked less often, within what an owner may be silent for.
            sleep(max(every_s, min(LONGEST_S, 9 * (monotonic() - began))))

    def look(self) -> None:
        """Brings every shard up to date, and submits again what was cut off."""
        self._beat()
        if not self._owner:
            self._hear()
        for w in self.shards:
            w.rows.look()
        live = [w for w in self.shards if not w.settled]
        try:
            states = self._backend.states([w.shard.jobs[-1] for w in live if w.shard.jobs])
            self.trouble = ""
        except Unreachable as e:
            states, self.trouble = {}, str(e)
        before = [w.shard.left for w in live]
        again = []
        for w in live:
            if w.shard.jobs and (state := states.get(w.shard.jobs[-1])):
                again += [w] if self._take(w, state) else []
            elif not w.shard.jobs:  # a submission that was cut off
                w.settled = True
        if again:
            self._again(again)
        if self._owner and (again or before != [w.shard.left for w in live]):
            write_submissions(self._layout.folder, self._submissions)

    @property
    def attends(self) -> bool:
        return self._owner is not None

    def _beat(self) -> None:
        try:
            if self._owner:
                self._owner.beat()
        except Attended as e:
            self._owner = None
            self._say(f"{e.who} attends to this folder now; this only looks on")

    def _hear(self) -> None:
        """What whoever attends to the folder has submitted again, or given up, since."""
        told: dict[int, ShardJobs] = {}
        with suppress(UserError):  # NFS loses a file that is replaced while it is read
            told = {s.number: s for one in read_submissions(self._layout.folder) for s in one.shards}
        for w in self.shards:
            now = told.get(w.shard.number, w.shard)
            if now.jobs != w.shard.jobs:
                w.begin(now)
            if now.left:
                w.shard, w.settled = now, True

    def _take(self, w: Watched, state: JobState) -> bool:
        """Whether another job is to be submitted for the shard, whose last one stands like this."""
        w.state = state
        if state.word != "ended":
            w.seen, w.asked = True, 0
            if state.word == "running" and w.since is None:
                w.since, w.before = monotonic(), w.rows.done
            elif state.word == "pending":
                w.since = None
            return False
        w.asked += 1
        w.settled = not w.open
        if w.settled or w.asked < 2:  # its last rows may not be seen here yet
            return False
        if w.asked == 2:
            w.shard.idle = 0 if w.rows.done > w.shard.done else w.shard.idle + 1
            w.shard.done = w.rows.done
        if (why := self._why_not_again(w)) is None:
            return True
        w.leave(why)
        self._say(f"shard {w.shard.number}: {why}; {w.open} of {w.shard.tasks} cases are open")
        return False

    def _why_not_again(self, w: Watched) -> str | None:
        """Why no further job is submitted for what it has open; None where one is."""
        how = w.state.how or "ended, the queue does not know how"
        attempts = self._layout.attempts(w.shard.number)
        end = self._layout.read_end(attempts[-1]) if attempts else None
        if self._cancelled or w.state.how == "cancelled":
            return "its job was cancelled"
        if end and end[0] == 2:
            return end[1]
        if not attempts and not self.log(w).exists():
            if not w.state.how:
                return "its job left the queue before it began, as one does that is cancelled"
            if not self._layout.begun:
                return (
                    f"{how}, and nothing is in {self._layout.folder}, as where the nodes do not share that file system"
                )
        if w.state.how not in AGAIN and not w.seen:
            return how
        if w.shard.idle >= MOST_JOBS:
            return f"{how}, {w.shard.idle} times in a row without a case done. Its last lines: {self._last_lines(w)}"
        return None

    def log(self, w: Watched) -> Path:
        """What the last job of a shard has printed."""
        return self._backend.log(w.shard.jobs[-1])

    def _last_lines(self, w: Watched) -> str:
        try:
            with open(self.log(w), "rb") as file:
                file.seek(max(0, file.seek(0, 2) - 4096))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return f"none in {self.log(w)}"
        return " | ".join(line.strip() for line in lines[-LAST_LINES:])

    def _again(self, those: list[Watched]) -> None:
        """Submits them again, as one array."""
        self._beat()  # not beside another owner
        if not self._owner:
            return
        payloads = [Shard(self._layout.folder, w.shard.number, w.shard.gpu_index) for w in those]
        try:
            jobs = self._backend.submit(payloads, self._options)
        except Unreachable as e:  # the next look tries again
            self.trouble = str(e)
            return
        except UserError as e:
            for w in those:
                w.leave(f"{w.state.how or 'ended'}, and cannot be submitted again: {e}")
                self._say(f"shard {w.shard.number}: {w.shard.left}")
            return
        for w, job in zip(those, jobs, strict=True):
            how = w.state.how or "cut off"
            w.shard.jobs.append(job)
            w.begin(w.shard)
            self._say(f"shard {w.shard.number}: {how}; submitted again as job {job}")
