"""A seeded deck of faults, and what is done for each."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.faults.fleet import Fleet, Member
from tests.faults.people import Crowd, Got, Reading
from tests.faults.relay import Relay

# How often each kind is in a deck; names are what is printed.
DECK = {
    "SIGKILL": 5,
    "SIGSTOP, SIGCONT": 4,
    "SIGTERM": 4,
    "Postgres restart": 2,
    "reader's connections cut": 5,
    "reader's connections stalled": 3,
    "database connections cut": 4,
    "database connections stalled": 3,
    "cancel": 5,
    "the same start at once": 3,
}
ROLLING_RESTART = "rolling restart"  # comes first, before any turn has met a fault
KINDS = (ROLLING_RESTART, *DECK)
AWAY_SECONDS = (0.1, 1.5)
STALL_SECONDS = (0.5, 4.0)


@dataclass
class Fault:
    """`way` and `session_id` say whom it can have touched, None: everyone."""

    kind: str
    at: float
    way: int | None = None
    session_id: str | None = None
    note: str = ""

    def touched(self, reading: Reading, got: Got | None) -> bool:
        if self.session_id is not None:
            return self.session_id == reading.session_id
        return self.way is None or got is None or got.way == self.way


Happened = Callable[[Fault], None]


@dataclass
class Schedule:
    """`lease_seconds` sets how long a member is frozen or cut off: now shorter, now longer than a lease."""

    fleet: Fleet
    crowd: Crowd
    seed: int
    lease_seconds: float
    happened: Happened = lambda fault: None
    faults: list[Fault] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._under_way: set[asyncio.Task[None]] = set()
        self._postgres = asyncio.Lock()
        self._starters = 1000
        self._acts: dict[str, Callable[[Fault, random.Random], Awaitable[None]]] = {
            "SIGKILL": self._kill,
            "SIGSTOP, SIGCONT": self._freeze,
            "SIGTERM": self._terminate,
            "Postgres restart": self._restart_postgres,
            "reader's connections cut": self._cut_readers,
            "reader's connections stalled": self._stall_readers,
            "database connections cut": self._cut_database,
            "database connections stalled": self._stall_database,
            "cancel": self._cancel,
            "the same start at once": self._start_twice,
        }

    async def rolling_restart(self) -> None:
        """Every member once while turns are running, the next when the last is back."""
        for member in self.fleet.members:
            while self.crowd.pick(self._dice) is None:  # noqa: ASYNC110 nobody tells when
                await asyncio.sleep(0.05)
            fault = Fault(ROLLING_RESTART, time.monotonic())
            member.busy = True
            await self._stopped_and_back(member, fault)

    async def run(self, count: int, seconds: float) -> None:
        """Returns when all faults have happened and everything is whole again. The first deck has each kind once."""
        deck = self._dice.sample(list(DECK), len(DECK))
        for _ in range(count):
            if not deck:
                deck = [kind for kind, times in DECK.items() for _ in range(times)]
                self._dice.shuffle(deck)
            await asyncio.sleep(self._dice.uniform(0, 2 * seconds / count))
            self._begin(deck.pop(), random.Random(self._dice.random()))
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _begin(self, kind: str, dice: random.Random) -> None:
        task = asyncio.create_task(self._act(kind, dice))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _act(self, kind: str, dice: random.Random) -> None:
        fault = Fault(kind, time.monotonic())
        try:
            await self._acts[kind](fault, dice)
        except Exception as error:
            self.wrong.append(f"{kind} {fault.note}: {type(error).__name__} {error}")

    def _happens(self, fault: Fault) -> None:
        fault.at = time.monotonic()
        self.faults.append(fault)
        self.happened(fault)

    async def _free_member(self, dice: random.Random) -> Member:
        """Waits until one may be taken; one replica always stays, as behind any load balancer."""
        while True:
            free = [member for member in self.fleet.members if not member.busy]
            replicas = [member for member in free if member.kind == "serve"]
            takeable = free if len(replicas) > 1 else [member for member in free if member.kind != "serve"]
            if takeable and not self._postgres.locked():
                member = dice.choice(takeable)
                member.busy = True
                return member
            await asyncio.sleep(0.05)

    async def _kill(self, fault: Fault, dice: random.Random) -> None:
        member = await self._free_member(dice)
        self._happens(fault)
        member.kill()
        await asyncio.sleep(dice.uniform(*AWAY_SECONDS))
        await self._bring_back(member)

    async def _freeze(self, fault: Fault, dice: random.Random) -> None:
        member = await self._free_member(dice)
        self._happens(fault)
        member.freeze()
        await asyncio.sleep(dice.uniform(0.2, 2) * self.lease_seconds)
        member.thaw()
        member.busy = False

    async def _terminate(self, fault: Fault, dice: random.Random) -> None:
        await self._stopped_and_back(await self._free_member(dice), fault)

    async def _stopped_and_back(self, member: Member, fault: Fault) -> None:
        fault.note = member.name
        self._happens(fault)
        status = await member.stop()
        if status != 0:
            self.wrong.append(f"{member.name} ended with {status} on SIGTERM:\n{member.output[-3000:]}")
        await self._bring_back(member)

    async def _bring_back(self, member: Member) -> None:
        try:
            member.launch()
            await member.ready()
        finally:
            member.busy = False  # else the faults to come would wait for it for ever

    async def _restart_postgres(self, fault: Fault, dice: random.Random) -> None:
        async with self._postgres:
            self._happens(fault)
            await self.fleet.crash_postgres()

    async def _cut_readers(self, fault: Fault, dice: random.Random) -> None:
        fault.way, relay = self._some_way(dice)
        self._happens(fault)
        relay.cut()

    async def _stall_readers(self, fault: Fault, dice: random.Random) -> None:
        fault.way, relay = self._some_way(dice)
        self._happens(fault)
        await _stall(relay, dice.uniform(*STALL_SECONDS))

    def _some_way(self, dice: random.Random) -> tuple[int, Relay]:
        way = dice.randrange(len(self.crowd.ways))
        return way, self.crowd.ways[way]

    async def _cut_database(self, fault: Fault, dice: random.Random) -> None:
        self._happens(fault)
        dice.choice(self.fleet.members).database.cut()

    async def _stall_database(self, fault: Fault, dice: random.Random) -> None:
        self._happens(fault)
        await _stall(dice.choice(self.fleet.members).database, dice.uniform(0.2, 2) * self.lease_seconds)

    async def _cancel(self, fault: Fault, dice: random.Random) -> None:
        fault.session_id = self.crowd.pick(dice)
        self._happens(fault)
        if fault.session_id is not None:
            await self.crowd.cancel(fault.session_id)

    async def _start_twice(self, fault: Fault, dice: random.Random) -> None:
        fault.session_id = ""
        self._happens(fault)
        self._starters += 1
        await self.crowd.start_twice(self._starters)


async def _stall(relay: Relay, seconds: float) -> None:
    relay.stall()
    try:
        await asyncio.sleep(seconds)
    finally:
        await relay.restore()
