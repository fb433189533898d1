"""What Schemathesis is told about our bodies: fields of other graphs are refused here, and would refuse every case."""

from typing import Any

import schemathesis

OF_OTHER_GRAPHS = ("command", "input")
KEPT_EVERY = 8  # one case in so many still brings them


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and "message" in body and len(str(body)) % KEPT_EVERY:
        return {name: value for name, value in body.items() if name not in OF_OTHER_GRAPHS}
    return body
