"""The gate before every model, and the fixed texts it answers with."""

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

from graph.crisis import goes_on
from graph.models import speak
from graph.parts import Parts
from graph.red_flags import emergency_text, find_flag
from graph.state import State, user_message


class Safety:
    """Looks at every message. An alarm ends the turn with a reviewed text; no model sees the message."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        find_flag("")  # reads the rules, so that the first message does not wait for that

    async def check(self, state: State) -> dict[str, Any]:
        message = user_message(state)
        before = next((said.text for said in reversed(state["messages"]) if isinstance(said, AIMessage)), "")
        flag = find_flag(message)
        following = goes_on(before, message, flag)
        if following is not None:
            return {"agent": "safety", "alarm": following}
        if flag is None:
            return {}
        return {"agent": "safety", "alarm": flag.category} if flag.now else {"urgent_topic": flag.category}

    async def emergency(self, state: State) -> dict[str, Any]:
        """Without pauses: nobody in need should wait for a reading pace."""
        text = emergency_text(state["alarm"], self._parts.region)
        spoken = await speak(self._parts.urgent, [HumanMessage(text)])
        answer = AIMessage(spoken.content, id=f"{state['turn_id']}:assistant")
        return {"messages": [answer], "citations": [], "abstained": False}
