-- One row a conversation. A deleted session stays as a tombstone (deleted_at): its seq must never start again at 1.
create table sessions (
  session_id uuid primary key,
  owner      text        not null,
  title      text        not null default '',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
create index sessions_of_owner on sessions (owner, updated_at desc, session_id) where deleted_at is null;

-- The queue and the fence. attempt only ever rises: claim +1, cancel +1.
create table turns (
  session_id  uuid        not null,
  turn_id     uuid        not null,
  request_id  text        not null check (length(request_id) between 1 and 64),
  status      text        not null default 'queued'
              check (status in ('queued', 'running', 'done', 'cancelled', 'error')),
  attempt     integer     not null default 0 check (attempt >= 0),
  handed_back integer     not null default 0 check (handed_back between 0 and attempt),
  worker      text,
  lease_until timestamptz,
  first_seq   bigint,
  last_seq    bigint,
  created_at  timestamptz not null default now(),
  ended_at    timestamptz,
  pruned_at   timestamptz,
  primary key (session_id, turn_id),
  unique (session_id, request_id),
  check ((status = 'running') = (lease_until is not null)),
  check ((status in ('done', 'cancelled', 'error')) = (ended_at is not null)),
  check ((ended_at is null) = (last_seq is null)),
  check (pruned_at is null or ended_at is not null)
) with (fillfactor = 70);  -- room for HOT lease renewals
-- No index may contain lease_until, attempt or worker: lease renewals must stay HOT.
create unique index turns_one_active on turns (session_id) where status in ('queued', 'running');
create index turns_claimable on turns (created_at) where status in ('queued', 'running');
create index turns_prunable on turns (ended_at) where ended_at is not null and pruned_at is null;

-- The log. Append-only but for pruning (the token rows of an ended turn, all at once) and erasure.
create table events (
  session_id uuid        not null,
  seq        bigint      not null check (seq > 0),
  turn_id    uuid        not null,
  attempt    integer     not null,
  type       text        not null,
  data       json        not null,  -- json, not jsonb: the bytes of the frame, unchanged when read
  created_at timestamptz not null default now(),
  primary key (session_id, seq)
);
create unique index events_one_end on events (session_id, turn_id) where type in ('done', 'cancelled', 'error');

create table feedback (
  session_id uuid        not null,
  turn_id    uuid        not null,
  value      smallint    not null check (value in (-1, 0, 1)),
  comment    text,
  updated_at timestamptz not null default now(),
  primary key (session_id, turn_id)
);

-- What all replicas must agree on and nobody set: the key that signs the owners' cookies.
create table secrets (
  name  text primary key,
  value text not null
);
