"""What the LangGraph SDKs ask of a server: threads are sessions, runs are turns, a run's stream is its events.

`langgraph-sdk` (Python) and `@langchain/langgraph-sdk` work unchanged. What the log cannot give is refused by name.
"""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from functions.adapters import langgraph_runs, langgraph_state, langgraph_threads
from functions.adapters.runs import unsupported
from functions.chat import REFUSALS

router = APIRouter(tags=["LangGraph SDK"], responses=REFUSALS)
router.include_router(langgraph_threads.router)
router.include_router(langgraph_state.router)
router.include_router(langgraph_runs.router)

# What those clients may call and is not here, with what to do instead. Before these it was told by a bare 404 or 405.
ONE_ASSISTANT = "there is one, 'agent', and it is the graph that is served"
NO_CRONS = "nothing is started by the clock here"
NO_STORE = "there is no store here; what a graph keeps is in its state"
DRAWN_BY_ITSELF = "a graph is drawn where it runs, by its own get_graph()"
ABSENT: dict[tuple[str, str], str] = {
    ("PATCH", "/threads/{thread_id}"): "a thread keeps no labels of yours; PATCH /sessions/{session_id} renames it",
    ("POST", "/threads/{thread_id}/copy"): "a thread is not copied; start a new one",
    ("POST", "/threads/{thread_id}/state"): "a thread's state is its log, and that is only added to by runs",
    ("GET", "/threads/{thread_id}/stream"): "join one run: /threads/{thread_id}/runs/{run_id}/stream",
    ("POST", "/threads/{thread_id}/commands"): "start a run: /threads/{thread_id}/runs/stream",
    ("POST", "/threads/prune"): "delete a thread: DELETE /threads/{thread_id}",
    ("DELETE", "/threads/{thread_id}/runs/{run_id}"): "a run is part of its thread's log; delete the thread",
    ("GET", "/runs/{run_id}/stream"): "a run is joined by its thread: /threads/{thread_id}/runs/{run_id}/stream",
    ("POST", "/runs/batch"): "start each run by itself: /threads/{thread_id}/runs",
    ("POST", "/runs/cancel"): "cancel each run by itself: /threads/{thread_id}/runs/{run_id}/cancel",
    ("POST", "/assistants"): ONE_ASSISTANT,
    ("PATCH", "/assistants/{assistant_id}"): ONE_ASSISTANT,
    ("DELETE", "/assistants/{assistant_id}"): ONE_ASSISTANT,
    ("POST", "/assistants/{assistant_id}/versions"): ONE_ASSISTANT,
    ("POST", "/assistants/{assistant_id}/latest"): ONE_ASSISTANT,
    ("GET", "/assistants/{assistant_id}/graph"): DRAWN_BY_ITSELF,
    ("GET", "/assistants/{assistant_id}/subgraphs"): DRAWN_BY_ITSELF,
    ("GET", "/assistants/{assistant_id}/subgraphs/{namespace}"): DRAWN_BY_ITSELF,
    ("POST", "/runs/crons"): NO_CRONS,
    ("POST", "/runs/crons/search"): NO_CRONS,
    ("POST", "/runs/crons/count"): NO_CRONS,
    ("POST", "/threads/{thread_id}/runs/crons"): NO_CRONS,
    ("GET", "/store/items"): NO_STORE,
    ("PUT", "/store/items"): NO_STORE,
    ("DELETE", "/store/items"): NO_STORE,
    ("POST", "/store/items/search"): NO_STORE,
    ("POST", "/store/namespaces"): NO_STORE,
}


def _refuses(name: str, instead: str) -> Callable[[], Awaitable[None]]:
    async def refuse() -> None:
        raise unsupported(name, instead)

    return refuse


for (method, path), instead in ABSENT.items():
    router.add_api_route(path, _refuses(f"{method} {path}", instead), methods=[method], include_in_schema=False)
