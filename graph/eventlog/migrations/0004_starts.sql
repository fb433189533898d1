-- What each owner has begun of late. It outlives the sessions, so that erasing them gives nothing back; and it names
-- nobody. Sweeping removes the rows whose minute is over.
create table starts (
  owner_hash bytea       primary key,
  since      timestamptz not null default now(),  -- when the owner's minute began
  count      integer     not null default 0,
  let_in     xid8        -- the transaction that may start a turn
) with (fillfactor = 50);  -- room for HOT updates
