"""What is counted and timed, for Prometheus, in one place. No label holds anything that a person wrote, nor any id.

A metric stands here with its unit in its name; `functions/metrics.py` gives them out at /metrics.
"""

from prometheus_client import Counter, Gauge, Histogram

FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)

STARTED = Counter("pulseline_turns_started", "Turns that this process has queued")
FIRST_TOKEN = Histogram(
    "pulseline_first_token_seconds",
    "From a turn's start to its first token, on its first attempt",
    buckets=FAST_SECONDS,
)
ENDED = Counter(
    "pulseline_turns_ended", "Turns that this process has ended; code is that of an error", ["status", "code"]
)
TAKEN_OVER = Counter("pulseline_take_overs", "Attempts after a turn's first: its worker was lost or had handed it back")
FENCED = Counter("pulseline_fenced_appends", "Appends that the database refused, for another had taken the turn")
COMMIT_SECONDS = Histogram(
    "pulseline_commit_seconds", "One group commit of the writer, there and back", buckets=FAST_SECONDS
)
COMMIT_EVENTS = Histogram("pulseline_commit_events", "Events in one group commit", buckets=ROWS)
DELIVERY_LAG = Histogram(
    "pulseline_delivery_lag_seconds",
    "From an event's stamp, before its commit, to the client's socket; of a response the first one, then one in eight",
    buckets=FAST_SECONDS,
)
POLLS = Counter("pulseline_polls", "Reads of the log for all sessions that are watched here")
NOTIFIES_SENT = Counter("pulseline_notifies_sent", "NOTIFY payloads sent to other replicas")
NOTIFIES_HEARD = Counter("pulseline_notifies_heard", "NOTIFY payloads heard from other replicas")
REFUSED = Counter("pulseline_requests_refused", "Requests answered with a problem", ["code"])
RUNNING = Gauge("pulseline_running_turns", "Turns that run in this process")
TAILS = Gauge("pulseline_open_tails", "Open responses of this process that wait for events")
POOL_WAITING = Gauge("pulseline_pool_waiting", "Requests that wait for a database connection")
