create extension if not exists vector;

-- Who made the vectors. One row at most: vectors of two encoders can't be compared.
create table encoder (
  only_one   boolean primary key default true check (only_one),
  name       text    not null unique,
  dimensions integer not null check (dimensions = 384)
);

create table documents (
  document_id  text primary key,
  title        text        not null,
  url          text        not null default '',
  content_hash text        not null,  -- of what was read and of how it is cut and encoded
  ingested_at  timestamptz not null default now()
);

-- A document's parts, about a section each. They come and go with their document.
create table passages (
  document_id text        not null references documents on delete cascade,
  ordinal     integer     not null check (ordinal > 0),
  heading     text        not null,
  sentences   text[]      not null,
  words       tsvector    not null,  -- weight A: title and heading
  encoder     text        not null references encoder (name),
  embedding   vector(384) not null,
  tokens      bytea       not null,  -- for each word piece a row of 384 signed bytes
  token_ends  integer[]   not null,  -- the row after the heading's last piece, then after each sentence's
  primary key (document_id, ordinal)
);
alter table passages alter column tokens set storage external;  -- vectors do not compress
create index passages_words on passages using gin (words);

-- In how many passages each word stands: the rare words of a question say most.
create table word_counts (
  word     text primary key,
  passages integer not null
);
