"""What Pulseline is compared with: the same graph and model, streamed to whoever asked, and kept nowhere.

`events` is the usual way: FastAPI's StreamingResponse over `astream_events`, no checkpointer. `messages` is its best
form: `astream(messages)`, which tells of no stages, garbage collection tuned as Pulseline's, LangGraph's own Postgres
checkpointer on a pool.
"""

import argparse
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from pydantic import BaseModel

from functions.serve import BACKLOG, listen, tune_garbage_collection
from graph.builder import build_graph, open_parts
from graph.eventlog.log import open_pool
from graph.eventlog.saver import EventLogSaver
from graph.state import turn_input
from graph.translate import ANSWERING

POOL_SIZE = 10
SHOWN = {"retrieve": "retrieval", "rerank": "reranking", "generate": "generation"}
Answer = Callable[[str], AsyncIterator[bytes]]


class Question(BaseModel):
    message: str


def _frame(kind: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data))


def _events(graph: Any) -> Answer:
    async def answer(message: str) -> AsyncIterator[bytes]:
        text: list[str] = []
        async for event in graph.astream_events(turn_input(str(uuid4()), message), version="v2"):
            kind, name = event["event"], event["name"]
            if kind == "on_chat_model_stream" and event["metadata"]["langgraph_node"] in ANSWERING:
                content = event["data"]["chunk"].content
                if content:
                    text.append(content)
                    yield _frame("token", {"content": content})
            elif name in SHOWN and kind in ("on_chain_start", "on_chain_end"):
                yield _frame(f"{SHOWN[name]}_{'start' if kind == 'on_chain_start' else 'complete'}", {})
        yield _frame("done", {"message": {"content": "".join(text)}})

    return answer


def _messages(graph: Any) -> Answer:
    async def answer(message: str) -> AsyncIterator[bytes]:
        text: list[str] = []
        config: RunnableConfig = {"configurable": {"thread_id": str(uuid4())}}
        question = turn_input(str(uuid4()), message)
        async for chunk, metadata in graph.astream(question, config, stream_mode="messages", durability="async"):
            if isinstance(chunk, AIMessageChunk) and metadata["langgraph_node"] in ANSWERING and chunk.content:
                content = str(chunk.content)
                text.append(content)
                yield _frame("token", {"content": content})
        yield _frame("done", {"message": {"content": "".join(text)}})

    return answer


def app(form: str, database_url: str, model: str, port: int) -> FastAPI:
    answers: list[Answer] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(open_pool(database_url, max_size=POOL_SIZE, prepare=lambda: True))
            graph = build_graph(open_parts(model=model, embeddings="minilm", reranker="maxsim", pool=pool))
            if form == "messages":
                await EventLogSaver(pool).setup()  # the same tables as Pulseline's
                answers.append(_messages(graph.compile(checkpointer=AsyncPostgresSaver(pool))))
                tune_garbage_collection()
            else:
                answers.append(_events(graph.compile()))
            print(f"answers at http://127.0.0.1:{port}", flush=True)
            yield

    served = FastAPI(lifespan=lifespan)

    @served.post("/chat/stream")
    async def stream(question: Question) -> StreamingResponse:
        return StreamingResponse(answers[0](question.message), media_type="text/event-stream")

    return served


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare.volatile")
    parser.add_argument("form", choices=("events", "messages"))
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    made = app(options.form, os.environ["DATABASE_URL"], os.environ["PULSELINE_MODEL"], options.port)
    config = uvicorn.Config(
        made, loop="uvloop", http="httptools", log_level="warning", access_log=False, backlog=BACKLOG
    )
    uvicorn.Server(config).run([listen("127.0.0.1", options.port)])


if __name__ == "__main__":
    main()
