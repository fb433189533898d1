"""A reranker behind HTTP, in the shape of Cohere, Jina and vLLM: POST /rerank {model, query, documents}."""

import logging
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 0.8
TEST_TIMEOUT_SECONDS = 10.0
TESTED_AGAIN_SECONDS = 30.0
MARGIN = 0.1
TEST_QUESTION = "What are the symptoms of iron deficiency?"
TEST_DOCUMENTS = (
    "The symptoms of iron deficiency are tiredness, pale skin and shortness of breath.",
    "The Eiffel Tower was built in 1889 and is 330 metres high.",
)


class RerankService:
    """`address`: of the endpoint, with the model's name as `?model=`. `usable`: whether it passed its test and has not
    failed since.

    A model that is served wrongly answers with numbers all the same, as good as random: hence the test.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        parts = urlsplit(address)
        self._model = "".join(parse_qs(parts.query).get("model", [])[:1])
        self._url = urlunsplit(parts._replace(query=""))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(headers=headers, timeout=TIMEOUT_SECONDS)
        self.usable = False
        self._tested_again = 0.0

    async def ready(self) -> bool:
        """Whether it may be asked. One that failed is tested again by one use in every TESTED_AGAIN_SECONDS."""
        if not self.usable and time.monotonic() >= self._tested_again:
            await self.test(TIMEOUT_SECONDS)
        return self.usable

    def failed(self) -> None:
        self.usable, self._tested_again = False, time.monotonic() + TESTED_AGAIN_SECONDS

    async def test(self, timeout: float = TEST_TIMEOUT_SECONDS) -> None:
        self.failed()  # until it has answered: nobody else tests it meanwhile
        try:
            relevant, other = await self.scores(TEST_QUESTION, TEST_DOCUMENTS, timeout)
            self.usable = relevant - other >= MARGIN
            if not self.usable:
                logger.error("the reranker does not tell right from wrong (%.3f, %.3f): not used", relevant, other)
        except Exception as error:
            logger.error("the reranker does not answer as it should: not used: %s", type(error).__name__)  # noqa: TRY400

    async def scores(self, question: str, documents: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> list[float]:
        """One a document, in their order. Raises httpx.HTTPError, or ValueError for an answer of another shape."""
        body: dict[str, Any] = {"query": question, "documents": list(documents), "top_n": len(documents)}
        body |= {"model": self._model} if self._model else {}
        answer = await self._client.post(self._url, json=body, timeout=timeout)
        answer.raise_for_status()
        try:
            found = {int(one["index"]): float(one["relevance_score"]) for one in answer.json()["results"]}
            return [found[index] for index in range(len(documents))]
        except (KeyError, TypeError) as error:
            raise ValueError("the reranker's answer has another shape") from error
