"""Finds the graph that PULSELINE_GRAPH names, in its author's own words: `module:name`."""

import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from graph.served import Graph

OURS = Path(__file__).parent


async def load(name: str) -> Graph:
    """The graph, its StateGraph, or what a function of that name makes, which may be async and may take a config. The
    folder that the process was started in is looked in first. Raises ValueError with a sentence."""
    module_name, _, attribute = name.partition(":")
    module = _module(name, module_name)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        raise ValueError(f"{name!r}: the module has no {attribute!r}") from None
    if callable(found) and not isinstance(found, CompiledStateGraph | StateGraph):
        found = await _made(name, found)
    if isinstance(found, StateGraph):
        found = found.compile()
    if not isinstance(found, CompiledStateGraph):
        raise ValueError(  # noqa: TRY004 - a setting is wrong, no caller's argument
            f"{name!r} is a {type(found).__name__}; it must be a LangGraph graph or a function that makes one"
        )
    if "messages" not in found.channels:
        raise ValueError(f"{name!r}: the graph's state has no `messages`, as MessagesState has")
    return found


def _module(name: str, module_name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        mine = _hidden(module_name)
        return _from_file(module_name, mine) if mine else importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name!r} cannot be imported: {error}") from error
    except Exception as error:
        raise ValueError(f"{name!r} cannot be imported: {_what(error)}") from error


def _hidden(module_name: str) -> Path | None:
    """The file of that name in this folder, where another module, as Pulseline's `graph`, has taken its name."""
    path = Path.cwd().joinpath(*module_name.split("."))
    file = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
    known = sys.modules.get(module_name)
    return file if file and known is not None and file != Path(known.__file__ or "") else None


def _from_file(module_name: str, file: Path) -> ModuleType:
    """Under a name of its own, the same in every process: checkpoints name the classes that they hold by it."""
    alias = f"served_{module_name.replace('.', '_')}"
    if alias in sys.modules:
        return sys.modules[alias]
    spec = importlib.util.spec_from_file_location(alias, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[alias] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise
    return module


async def _made(name: str, factory: Any) -> Any:
    try:
        made = factory({"configurable": {}}) if _takes_config(factory) else factory()
        return await made if inspect.isawaitable(made) else made
    except Exception as error:
        raise ValueError(f"{name!r} made no graph: {_what(error)}") from error


def _takes_config(factory: Any) -> bool:
    needed = inspect.Parameter.empty
    return any(parameter.default is needed for parameter in inspect.signature(factory).parameters.values())


def _what(error: Exception) -> str:
    """One line: the kind, the words, and where in the author's file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_theirs(frame.filename)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}{where}" if words else f"{type(error).__name__}{where}"


def _is_theirs(filename: str) -> bool:
    path = Path(filename)
    return path.is_file() and not path.is_relative_to(OURS) and "site-packages" not in path.parts
