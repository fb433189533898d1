"""The statements of `queries.sql` here, by name."""

from graph.eventlog.queries import load

query = load("graph.retrieval")
