-- Every statement of the log, named and described. `queries.py` loads them; parameters are psycopg's %(name)s.
-- Order of locks everywhere: a session's row before its turn's, turns by (session_id, turn_id).
-- lock_turn comes first in claim, cancel and lose, as a statement of its own: the next statement's snapshot is then
-- newer than any append of this turn, so that max(seq) is true. A start that claims its own new turn needs none.

-- name: start_count
-- QUOTA 1/2, before a start. Lets the owner's starts in one after the other, on whichever replica: what the next
-- statement counts is then true. A minute that is over is counted anew.
insert into starts as s (owner_hash) values (%(owner_hash)s)
on conflict (owner_hash) do update set let_in = null,
  since = case when s.since > now() - make_interval(secs => %(window_seconds)s) then s.since else now() end,
  count = case when s.since > now() - make_interval(secs => %(window_seconds)s) then s.count else 0 end;

-- name: start_quota
-- QUOTA 2/2. Counts the start and lets this transaction make it; or says how many turns of the owner have not ended,
-- or after how many seconds the minute is over. A request that has its turn already is let in, and not counted.
with asked as materialized (
  select s.count, extract(epoch from s.since - now())::float8 + %(window_seconds)s as seconds,
         exists (select 1 from turns t where t.session_id = %(session_id)s and t.request_id = %(request_id)s) as known,
         case when %(at_once)s > 0 then (
           select count(*) from turns t join sessions o on o.session_id = t.session_id
            where o.owner = %(owner)s and o.deleted_at is null and t.status in ('queued', 'running')) else 0 end as active
    from starts s where s.owner_hash = %(owner_hash)s),
let_in as (
  update starts s set let_in = pg_current_xact_id(), count = s.count + (not a.known)::integer
    from asked a
   where s.owner_hash = %(owner_hash)s
     and (a.known or ((%(per_minute)s = 0 or a.count < %(per_minute)s)
                      and (%(at_once)s = 0 or a.active < %(at_once)s)))
  returning 1)
select exists (select 1 from let_in) as let_in, active,
       case when %(per_minute)s > 0 and count >= %(per_minute)s then seconds end as seconds
  from asked;

-- name: forget_starts
-- Of owners whose minute is over.
delete from starts where since < now() - make_interval(secs => %(window_seconds)s);

-- name: start_session
-- START 1/4. Makes or locks the session (serialises starts and erasure). No row: another owner's, erased, or not let in.
-- A session that was made before anything was said in it gets its title now. No owner_hash: no quota was asked.
insert into sessions as s (session_id, owner, title)
select %(session_id)s, %(owner)s, %(title)s
 where %(owner_hash)s::bytea is null
    or exists (select 1 from starts q where q.owner_hash = %(owner_hash)s and q.let_in = pg_current_xact_id())
on conflict (session_id) do update set title = case s.title when '' then excluded.title else s.title end
 where s.owner = excluded.owner and s.deleted_at is null
returning session_id;

-- name: start_turn
-- START 2/4. Does nothing if request_id is known or a turn is active; WAITS for an uncommitted end of the active turn.
-- `replaces` must name the session's newest turn; otherwise nothing is inserted.
insert into turns (session_id, turn_id, request_id)
select s.session_id, %(turn_id)s, %(request_id)s from sessions s
 where s.session_id = %(session_id)s and s.owner = %(owner)s and s.deleted_at is null
   and (%(replaces)s::uuid is null or %(replaces)s::uuid = (
         select t.turn_id from turns t where t.session_id = s.session_id order by t.first_seq desc limit 1))
   and (%(owner_hash)s::bytea is null or exists (
         select 1 from starts q where q.owner_hash = %(owner_hash)s and q.let_in = pg_current_xact_id()))
on conflict do nothing;

-- name: start_event
-- START 3/4. A statement of its own, hence a fresh snapshot: sees the end that 2/4 waited for.
with e as (
  insert into events (session_id, seq, turn_id, attempt, type, data)
  select t.session_id, 1 + coalesce((select max(seq) from events where session_id = %(session_id)s), 0),
         t.turn_id, 0, 'turn_started', %(data)s::json
    from turns t
   where t.session_id = %(session_id)s and t.turn_id = %(turn_id)s and t.first_seq is null
  returning seq),
s as (
  update sessions set updated_at = now() where session_id = %(session_id)s and exists (select 1 from e))
update turns t set first_seq = e.seq from e where t.session_id = %(session_id)s and t.turn_id = %(turn_id)s;

-- name: start_result
-- START 4/4. The new turn, or the turn of the same request_id, or the active one. No row: that one ended in between.
select turn_id, request_id, status, first_seq from turns
 where session_id = %(session_id)s
   and (turn_id = %(turn_id)s or request_id = %(request_id)s or status in ('queued', 'running'))
 order by (turn_id = %(turn_id)s) desc, (request_id = %(request_id)s) desc limit 1;

-- name: lock_turn
select 1 from turns where session_id = %(session_id)s and turn_id = %(turn_id)s for no key update;

-- name: candidates
-- Turns to claim: queued, or their lease ran out. A plain read, no lock, may be stale: claim decides.
select session_id, turn_id, attempt, attempt - handed_back as spent from turns
 where status in ('queued', 'running') and (lease_until is null or lease_until < now())
 order by created_at limit %(limit)s;

-- name: claimable
-- As candidates, of one session; a turn that nobody has begun yet only when it is so old.
select session_id, turn_id, attempt, attempt - handed_back as spent from turns
 where session_id = %(session_id)s and status in ('queued', 'running') and (lease_until is null or lease_until < now())
   and (attempt > 0 or created_at <= now() - make_interval(secs => %(fresh_seconds)s));

-- name: active_turns
-- For an operator, oldest first.
select session_id, turn_id, status, attempt - handed_back as spent, worker,
       extract(epoch from now() - created_at)::float8 as age_seconds,
       extract(epoch from lease_until - now())::float8 as lease_seconds
  from turns where status in ('queued', 'running') order by created_at limit %(limit)s;

-- name: claim
-- CLAIM or TAKE OVER, after lock_turn or start_event. By the clock, for a start may have waited. `reset` for every attempt but the first. No row: lost the race.
-- `question`: the data of `turn_started`, where that is all that the log holds, so that nobody has to read it.
with c as (
  update turns set status = 'running', attempt = attempt + 1, worker = %(worker)s,
                   lease_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
   where session_id = %(session_id)s and turn_id = %(turn_id)s and attempt = %(attempt)s
     and status in ('queued', 'running') and (lease_until is null or lease_until < now())
  returning session_id, turn_id, attempt, first_seq, created_at),
last as (select max(seq) as seq from events where session_id = %(session_id)s),
r as (
  insert into events (session_id, seq, turn_id, attempt, type, data)
  select c.session_id, last.seq + 1, c.turn_id, c.attempt, 'reset',
         json_build_object('turn_id', c.turn_id, 'attempt', c.attempt, 'reason', %(reason)s::text,
                           'timestamp', to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
    from c, last where c.attempt > 1
  returning seq)
select c.attempt, c.first_seq, coalesce((select seq from r), last.seq) + 1 as next_seq,
       extract(epoch from clock_timestamp() - c.created_at)::float8 as age_seconds,
       case when c.attempt = 1 and last.seq = 1 then (
         select e.data::text from events e where e.session_id = c.session_id and e.seq = 1) end as question
  from c, last;

-- name: append
-- GROUP COMMIT of all turns of the process: one INSERT, fenced by attempt and status, locks in key order. Each turn is
-- looked up by its key: a join would be planned over all running turns, and on tables that were never analysed it
-- compared each of them with each of the batch.
-- A turn comes as (session_id, turn_id, attempt, ends, last_seq); the last two are empty, or the status that its last
-- event brings and that event's seq.
-- Waits for a row that another has locked for no longer than `patience` (55P03): set for this transaction, before the first
-- row is locked.
-- A turn without events only fences the batch's checkpoint statements. Returns the n (from 1) that were accepted; of the
-- others no row was written. Arrays travel as joined strings (cheaper in the client than arrays, measured); JSON text
-- holds no raw control characters, so that U+001E can part it.
with patience as materialized (select set_config('lock_timeout', %(patience)s, true)),
batch as (
  select * from unnest(
    string_to_array(%(sessions)s, ',')::uuid[], string_to_array(%(turns)s, ',')::uuid[],
    string_to_array(%(attempts)s, ',')::int[], string_to_array(%(ends)s, ',', ''),
    string_to_array(%(last_seqs)s, ',', '')::bigint[])
  with ordinality as b (session_id, turn_id, attempt, ends, last_seq, n)),
held as materialized (
  select b.* from (select batch.* from patience cross join batch order by session_id, turn_id) b
   cross join lateral (
    select from turns t
     where t.session_id = b.session_id and t.turn_id = b.turn_id and t.attempt = b.attempt and t.status = 'running'
       for no key update) held),
added as materialized (
  select * from unnest(string_to_array(%(row_turns)s, ',')::int[], string_to_array(%(seqs)s, ',')::bigint[],
                       string_to_array(%(types)s, ','), string_to_array(%(data)s, E'\x1e')) as r (n, seq, type, data)),
ins as (
  insert into events (session_id, seq, turn_id, attempt, type, data)
  select h.session_id, r.seq, h.turn_id, h.attempt, r.type, r.data::json from held h join added r on r.n = h.n),
fin as (
  update turns t set status = h.ends, lease_until = null, ended_at = now(), last_seq = h.last_seq
    from held h
   where h.ends in ('done', 'cancelled', 'error') and t.session_id = h.session_id and t.turn_id = h.turn_id)
select n from held;

-- name: locked
-- After an append that waited too long: of its turns those whose rows somebody holds at this moment. A look, which accepts
-- and refuses nothing: a turn that is another's now, or gone, is not among them, and is refused by its next append.
with batch as materialized (
  select * from unnest(string_to_array(%(sessions)s, ',')::uuid[], string_to_array(%(turns)s, ',')::uuid[])
         with ordinality as b (session_id, turn_id, n)),
free as materialized (
  select b.n from batch b
   cross join lateral (
         select from turns t where t.session_id = b.session_id and t.turn_id = b.turn_id
            for no key update skip locked) free)
select b.n from batch b
 where b.n not in (select n from free)
   and (select true from turns t where t.session_id = b.session_id and t.turn_id = b.turn_id);

-- name: guard
-- In the same flight, before checkpoint statements: 22012 (division by zero) unless all of these turns are held.
-- A turn that this batch ends is held too. Each is looked up by its key: a join would be planned over all turns.
select 1 / bool_and((select t.attempt = b.attempt and (t.status = 'running' or t.ended_at = now())
                       from turns t where t.session_id = b.session_id and t.turn_id = b.turn_id) is true)::int
  from unnest(string_to_array(%(sessions)s, ',')::uuid[], string_to_array(%(turns)s, ',')::uuid[],
              string_to_array(%(attempts)s, ',')::int[]) as b (session_id, turn_id, attempt);

-- name: put_checkpoints
-- LangGraph's tables and conflicts, as its saver writes them, for all checkpoints of a batch in one statement. Of a row
-- that was put twice the last one counts. Rows travel as one JSON text, and apart from it their bytes: to write so many
-- arrays took the client an eighth of a short turn's time.
insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
select distinct on (1, 2, 3) r.thread_id, r.ns, r.id, r.parent, r.checkpoint, r.metadata
  from rows from (json_to_recordset(%s::json) as (
       thread_id text, ns text, id text, parent text, checkpoint jsonb, metadata jsonb))
       with ordinality as r (thread_id, ns, id, parent, checkpoint, metadata, n)
 order by 1, 2, 3, r.n desc
on conflict (thread_id, checkpoint_ns, checkpoint_id)
   do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata;

-- name: put_blobs
insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
select * from rows from (
  json_to_recordset(%s::json) as (thread_id text, ns text, channel text, version text, type text), unnest(%b::bytea[]))
on conflict (thread_id, checkpoint_ns, channel, version) do nothing;

-- name: put_writes
insert into checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select * from rows from (
  json_to_recordset(%s::json) as (
    thread_id text, ns text, id text, task_id text, task_path text, idx int, channel text, type text),
  unnest(%b::bytea[]))
on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do nothing;

-- name: put_writes_again
-- Of an error or an interrupt: the last one counts.
insert into checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select distinct on (1, 2, 3, 4, 6)
       r.thread_id, r.ns, r.id, r.task_id, r.task_path, r.idx, r.channel, r.type, r.blob
  from rows from (
       json_to_recordset(%s::json) as (
         thread_id text, ns text, id text, task_id text, task_path text, idx int, channel text, type text),
       unnest(%b::bytea[])) with ordinality as r (thread_id, ns, id, task_id, task_path, idx, channel, type, blob, n)
 order by 1, 2, 3, 4, 6, r.n desc
on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
   do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob;

-- name: committed
-- After a lost answer: did this row of ours land? A turn's rows of a batch are all there or none.
select 1 from events
 where session_id = %(session_id)s and seq = %(seq)s and turn_id = %(turn_id)s and attempt = %(attempt)s
   and type = %(type)s and data::text = %(data)s;

-- name: renew
-- LEASES of many turns; same order of locks as append. A missing n has been fenced, or its row is held. The held turns' status, which is
-- known, stands in the last condition so that few are expected and each is looked up by its key, not in all turns.
-- A row that somebody holds is not waited for: that would keep all others waiting, and locked. It may be an append of this
-- very process.
with batch as (
  select * from unnest(%(sessions)s::uuid[], %(turns)s::uuid[], %(attempts)s::int[], %(seconds)s::float8[])
         with ordinality as b (session_id, turn_id, attempt, seconds, n)),
held as materialized (
  select b.n, b.session_id, b.turn_id, b.seconds, held.status
    from (select * from batch order by session_id, turn_id) b
   cross join lateral (
         select t.status from turns t
          where t.session_id = b.session_id and t.turn_id = b.turn_id and t.attempt = b.attempt and t.status = 'running'
            for no key update skip locked) held)
update turns t set lease_until = now() + make_interval(secs => h.seconds) from held h
 where h.status = 'running' and t.session_id = h.session_id and t.turn_id = h.turn_id
returning h.n;

-- name: still_held
-- Of the turns that were not renewed those that, as far as can be seen, have not been fenced.
select b.n
  from unnest(%(sessions)s::uuid[], %(turns)s::uuid[], %(attempts)s::int[])
       with ordinality as b (session_id, turn_id, attempt, n)
 where (select t.attempt = b.attempt and t.status = 'running'
          from turns t where t.session_id = b.session_id and t.turn_id = b.turn_id);

-- name: hand_back
-- A worker that stops gives its turn back. attempt stays (it is the fence); spent = attempt - handed_back.
update turns set status = 'queued', lease_until = null, worker = null, handed_back = handed_back + 1
 where session_id = %(session_id)s and turn_id = %(turn_id)s and attempt = %(attempt)s and status = 'running'
returning attempt;

-- name: excuse
-- An attempt that another has taken over, by the worker that held it: it lives, so that one was not lost and costs the
-- turn nothing either. Said once an attempt, and again only where the answer to that was lost: never so often that an
-- attempt under way would be excused before it is over.
update turns set handed_back = handed_back + 1
 where session_id = %(session_id)s and turn_id = %(turn_id)s and attempt > %(attempt)s
   and status in ('queued', 'running') and handed_back < attempt - (status = 'running')::integer
returning attempt;

-- name: end_by_anyone
-- CANCEL, or the end of a turn that nobody can go on with, after lock_turn. The content is the tokens after the last
-- reset. With %(attempt)s only while nobody has a lease on that attempt, or %(held)s by that attempt itself, and only if
-- %(spent)s tries still count, which a hand-back or an excuse may have changed. No row: the turn had ended, or is
-- another's: read it.
with c as (
  update turns set status = %(status)s, attempt = attempt + 1, worker = null, lease_until = null, ended_at = now(),
         last_seq = 1 + (select max(seq) from events where session_id = %(session_id)s)
   where session_id = %(session_id)s and turn_id = %(turn_id)s and status in ('queued', 'running')
     and (%(attempt)s::int is null or (attempt = %(attempt)s::int and attempt - handed_back >= %(spent)s
                                       and (%(held)s or lease_until is null or lease_until < now())))
  returning session_id, turn_id, attempt, first_seq, last_seq),
ins as (
  insert into events (session_id, seq, turn_id, attempt, type, data)
  select c.session_id, c.last_seq, c.turn_id, c.attempt, %(status)s,
         (%(data)s::jsonb || jsonb_build_object('turn_id', c.turn_id, 'content', coalesce((
            select string_agg(e.data ->> 'content', '' order by e.seq) from events e
             where e.session_id = %(session_id)s and e.type = 'token'
               and e.seq > coalesce((select max(r.seq) from events r
                                      where r.session_id = %(session_id)s and r.seq >= c.first_seq
                                        and r.type = 'reset'), c.first_seq)), '')))::json
    from c)
select turn_id from c;

-- name: turn
select turn_id, status, coalesce(last_seq, 0) as last_seq from turns
 where session_id = %(session_id)s and turn_id = %(turn_id)s;

-- name: turn_to_cancel
-- Without a turn_id: the active turn, else the newest. Resolved by a plain read first, so that a cancel which had to
-- wait can never hit a later turn.
select t.turn_id from turns t
 where t.session_id = %(session_id)s and (%(turn_id)s::uuid is null or t.turn_id = %(turn_id)s::uuid)
 order by (t.status in ('queued', 'running')) desc, t.first_seq desc limit 1;

-- name: owned
select 1 from sessions where session_id = %(session_id)s and owner = %(owner)s and deleted_at is null;

-- name: tail_gate
-- What a tail must know before its first frame, in one statement: the turn's state is never newer than last_seq, so
-- that "nothing left" is never answered with an end unread.
select coalesce((select max(e.seq) from events e where e.session_id = s.session_id), 0) as last_seq,
       exists (select 1 from turns t where t.session_id = s.session_id and t.status in ('queued', 'running')) as active
  from sessions s
 where s.session_id = %(session_id)s and s.owner = %(owner)s and s.deleted_at is null;

-- name: silent
-- Of many sessions that say nothing: those that are not erased, and whether a turn of theirs is under way. Each is looked
-- up by its key: a join would be planned over all of them.
select c.n,
       (select count(*) from turns t where t.session_id = c.session_id and t.status in ('queued', 'running')) > 0 as active
  from unnest(string_to_array(%(sessions)s, ',')::uuid[]) with ordinality as c (session_id, n)
 cross join lateral (
   select from sessions s where s.session_id = c.session_id and s.deleted_at is null limit 1) there;

-- name: tail
-- Many sessions, each with its cursor; n (from 1) tells which, for an id takes longer to read. Arrays travel as in append.
select c.n, e.seq, e.turn_id, e.attempt, e.type, e.data::text
  from unnest(string_to_array(%(sessions)s, ',')::uuid[], string_to_array(%(after)s, ',')::bigint[])
       with ordinality as c (session_id, after, n)
 cross join lateral (
   select * from events e where e.session_id = c.session_id and e.seq > c.after order by e.seq limit %(limit)s) e
 order by c.n, e.seq;

-- name: snapshot
-- One statement, one MVCC snapshot. Tokens of ended turns are left out: their end carries the text.
select e.seq, e.turn_id, e.attempt, e.type, e.data::text
  from events e join turns t on t.session_id = e.session_id and t.turn_id = e.turn_id
 where e.session_id = %(session_id)s and (e.type <> 'token' or t.status in ('queued', 'running'))
 order by e.seq;

-- name: prunable
-- PRUNE 1/2. A plain read, no lock, may be stale: prune decides. The oldest, of which those that are old enough.
select session_id, turn_id from (
  select session_id, turn_id, ended_at from turns where ended_at is not null and pruned_at is null
   order by ended_at limit %(limit)s) oldest
 where ended_at < now() - make_interval(secs => %(age_seconds)s);

-- name: prune
-- PRUNE 2/2. All tokens of a turn go in one statement; never its first or last event. By its key, so that whatever is
-- known of the tables' values only the turn's own rows are read.
with t as materialized (
  select first_seq, last_seq from turns
   where session_id = %(session_id)s and turn_id = %(turn_id)s and ended_at is not null and pruned_at is null
     for no key update skip locked),
d as (
  delete from events e using t
   where e.session_id = %(session_id)s and e.seq > t.first_seq and e.seq < t.last_seq and e.type = 'token')
update turns set pruned_at = now()
 where session_id = %(session_id)s and turn_id = %(turn_id)s and exists (select 1 from t);

-- name: session_head
-- What a session has beside its log: the title, and the owner's judgements by turn.
select s.title, (select coalesce(json_object_agg(f.turn_id, f.value), '{}') from feedback f
                  where f.session_id = s.session_id) as feedback
  from sessions s where s.session_id = %(session_id)s and s.owner = %(owner)s and s.deleted_at is null;

-- name: sessions
-- Newest first; `before` and `before_id` are the last row of the page before. Counted, so that it is looked up for each
-- row of the page: `exists` was answered from a hash of all running turns.
select s.session_id, s.title, s.created_at, s.updated_at,
       (select count(*) from turns t
         where t.session_id = s.session_id and t.status in ('queued', 'running')) > 0 as running
  from sessions s
 where s.owner = %(owner)s and s.deleted_at is null
   and (%(query)s = '' or strpos(lower(s.title), lower(%(query)s)) > 0)
   and (%(before)s::timestamptz is null or (s.updated_at, s.session_id) < (%(before)s::timestamptz, %(before_id)s::uuid))
 order by s.updated_at desc, s.session_id desc limit %(limit)s;

-- name: threads
-- Newest first, each with where it stands by its newest event. Without a limit: all.
select session_id, status from (
  select s.session_id, s.updated_at,
         case when last.type is null then 'idle'
              when last.type = 'error' then 'error'
              when last.type = 'done' and last.data->'interrupted' is not null then 'interrupted'
              when last.type in ('done', 'cancelled') then 'idle'
              else 'busy' end as status
    from sessions s left join lateral (
      select e.type, e.data from events e where e.session_id = s.session_id order by e.seq desc limit 1) last on true
   where s.owner = %(owner)s and s.deleted_at is null) threads
 where (%(ids)s::uuid[] is null or session_id = any(%(ids)s::uuid[])) and (%(status)s::text is null or status = %(status)s)
 order by updated_at desc, session_id desc limit %(limit)s offset %(offset)s;

-- name: session
select session_id, title, created_at, updated_at from sessions
 where session_id = %(session_id)s and owner = %(owner)s and deleted_at is null;

-- name: rename_session
update sessions set title = %(title)s
 where session_id = %(session_id)s and owner = %(owner)s and deleted_at is null
returning session_id;

-- name: erase_session
-- ERASE 1/3. Locks the session against starts; the tombstone keeps its id from ever being used again. With an age only if
-- nothing was asked for so long: a start that was faster has changed updated_at in the row that this one locks.
update sessions set deleted_at = now(), title = '', owner = ''
 where session_id = %(session_id)s and owner = %(owner)s and deleted_at is null
   and (%(age_seconds)s::float8 is null or updated_at < now() - make_interval(secs => %(age_seconds)s))
returning session_id;

-- name: lock_turns
-- ERASE 2/3. Waits for an append under way; the statement after it sees what that one wrote.
select 1 from turns where session_id = %(session_id)s for update;

-- name: erase_rows
-- ERASE 3/3. Everything that the session said.
with t as (delete from turns where session_id = %(session_id)s),
     e as (delete from events where session_id = %(session_id)s),
     f as (delete from feedback where session_id = %(session_id)s),
     w as (delete from checkpoint_writes where thread_id = %(session_id)s::text),
     b as (delete from checkpoint_blobs where thread_id = %(session_id)s::text)
delete from checkpoints where thread_id = %(session_id)s::text;

-- name: expired_sessions
-- RETENTION. Sessions in which nothing has been asked for so long, and nothing is being answered: the oldest, of which
-- those that are old enough. Of `< 1` Postgres expects more rows than of `= 0`, and rather reads them in their order.
select session_id, owner from (
  select s.session_id, s.owner, s.updated_at from sessions s
   where s.deleted_at is null
     and (select count(*) from turns t where t.session_id = s.session_id and t.status in ('queued', 'running')) < 1
   order by s.updated_at limit %(limit)s) oldest
 where updated_at < now() - make_interval(secs => %(age_seconds)s);

-- name: give_feedback
-- Waits for an erasure under way, and then finds nothing to judge.
insert into feedback (session_id, turn_id, value, comment)
select t.session_id, t.turn_id, %(value)s, %(comment)s
  from turns t join sessions s on s.session_id = t.session_id
 where t.session_id = %(session_id)s and t.turn_id = %(turn_id)s and s.owner = %(owner)s and s.deleted_at is null
   for share of s
on conflict (session_id, turn_id) do update set value = excluded.value, comment = excluded.comment, updated_at = now()
returning turn_id;

-- name: notify
select pg_notify('pulseline', p) from unnest(%(payloads)s::text[]) as p;

-- name: make_secret
insert into secrets (name, value) values (%(name)s, %(value)s) on conflict do nothing;

-- name: secret
select value from secrets where name = %(name)s;

-- name: migrations_done
select version from pulseline_migrations;
