"""A reranker behind HTTP, in the shape of Cohere, Jina and vLLM: POST /rerank {model, query, documents}."""

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 0.8
TEST_TIMEOUT_SECONDS = 10.0
MARGIN = 0.1
TEST_QUESTION = "What are the symptoms of iron deficiency?"
TEST_DOCUMENTS = (
    "The symptoms of iron deficiency are tiredness, pale skin and shortness of breath.",
    "The Eiffel Tower was built in 1889 and is 330 metres high.",
)


class RerankService:
    """`address`: of the endpoint, with the model's name as `?model=`. `usable`: whether it passed its test.

    A model that is served wrongly answers with numbers all the same, as good as random: hence the test.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        parts = urlsplit(address)
        self._model = "".join(parse_qs(parts.query).get("model", [])[:1])
        self._url = urlunsplit(parts._replace(query=""))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(headers=headers, timeout=TIMEOUT_SECONDS)
        self.usable = False

    async def test(self) -> None:
        try:
            relevant, other = await self.scores(TEST_QUESTION, TEST_DOCUMENTS, TEST_TIMEOUT_SECONDS)
            self.usable = relevant - other >= MARGIN
            if not self.usable:
                logger.error("the reranker does not tell right from wrong (%.3f, %.3f): not used", relevant, other)
        except Exception as error:
            self.usable = False
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
