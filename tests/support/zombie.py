"""A worker of one turn that renews no lease and asks nobody: only the database can keep it from writing.

`python -m tests.support.zombie DATABASE_URL SESSION TURN ATTEMPT NEXT_SEQ` says tokens until it is refused, tries a
checkpoint too, and reports: how many tokens were accepted, and what the database refused.
"""

import asyncio
import json
import sys
from uuid import UUID

from prometheus_client import REGISTRY

from graph.eventlog.errors import Fenced
from graph.eventlog.writer import HeldTurn
from tests.support.turns import open_writer, token

CHECKPOINT = ("insert into secrets (name, value) values ('zombie', '')", None, False)


async def main(database_url: str, session: str, turn: str, attempt: str, next_seq: str) -> None:
    held = HeldTurn(UUID(session), UUID(turn), int(attempt), int(next_seq))
    accepted, refused = 0, []
    async with open_writer(database_url) as writer:
        try:
            while True:
                await writer.append(held, token(f"{accepted} "))
                await writer.flush(held)
                accepted += 1
        except Fenced:
            refused.append("token")
        unaware = HeldTurn(held.session_id, held.turn_id, held.attempt, held.next_seq)
        try:
            await writer.write(unaware, [CHECKPOINT])
        except Fenced:
            refused.append("checkpoint")
    by_the_database = int(REGISTRY.get_sample_value("pulseline_fenced_appends_total") or 0)
    print(json.dumps({"accepted": accepted, "refused": refused, "by_the_database": by_the_database}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
