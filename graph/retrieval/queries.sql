-- name: prepare_search
-- Who made the vectors here, asked anew for every search, since another may come while the process runs; and of these
-- words those that no passage has in any form. And for this transaction: the index looks at more than it must give, and on
-- past the passages that were removed, or it would give fewer than asked for (in any order: the search sorts what it
-- gets); the plan of the search serves any question, and making it takes as long as the search.
select set_config('hnsw.ef_search', %(ef_search)s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('plan_cache_mode', 'force_generic_plan', true),
       (select encoder from library) as encoder, (select dimensions from library) as dimensions,
       array(
         select word from unnest(%(words)s::text[]) as asked (word)
         where not exists (
           select from word_counts where word_counts.word = any(tsvector_to_array(to_tsvector('english', asked.word)))
         )
       ) as unknown;

-- name: search
-- The passages nearest to a question: by meaning (cosine distance) and by words, the places in both fused.
-- Words: passages with every word of the question first, then by BM25 over the question's rarest words, so many that
-- not too many postings are read: what stands nearly everywhere decides nothing. (All words
-- joined by OR without rarity rank badly and slowly; all by AND alone find nothing for most of what people write.)
with dense as (
  select passage_id, row_number() over (order by distance, passage_id) as place
  from (
    select passage_id, embedding::halfvec({dimensions}) <=> %(vector)s::halfvec({dimensions}) as distance
    from passage_vectors
    order by embedding::halfvec({dimensions}) <=> %(vector)s::halfvec({dimensions}) limit {leg}
  ) as nearest
),
asked as (
  select word, rarity
  from (
    select word, ln(1 + library.counted_passages::float8 / counts.passages) as rarity,
           row_number() over rarest_first as place, sum(counts.passages) over rarest_first - counts.passages as before
    from unnest(tsvector_to_array(to_tsvector('english', %(question)s))) as said (word)
    join word_counts as counts using (word) cross join library
    window rarest_first as (order by counts.passages, word)
  ) as known
  where place <= {rare_words} and before < {postings}
),
lexical as (
  select passage_id, row_number() over (order by complete desc, weight desc, passage_id) as place
  from (
    select passage_id, count(*) = (select count(*) from asked) as complete, sum(rarity * weight) as weight
    from asked join postings using (word)
    group by passage_id
    order by complete desc, weight desc, passage_id limit {leg}
  ) as matching
),
fused as (
  select passage_id,
         coalesce({dense_weight}::float8 / ({rank_constant} + dense.place), 0)
         + coalesce({lexical_weight}::float8 / ({rank_constant} + lexical.place), 0) as score
  from dense full join lexical using (passage_id)
  order by score desc, passage_id limit {leg}
)
select document_id, ordinal, d.title, d.url, p.heading, array_to_string(p.sentences, ' ') as text,
       1 - (v.embedding::halfvec({dimensions}) <=> %(vector)s::halfvec({dimensions})) as cosine
from fused join passages as p using (passage_id) join passage_vectors as v using (passage_id)
join documents as d using (document_id)
where fused.score > 0
order by fused.score desc, passage_id;

-- name: library_version
-- Changes with what is in the library.
select counted_passages || ' ' || counted_last as version from library;

-- name: title_words
-- The words of titles and headings. `titled`: they name what an article is about. `taken`: the article says how something
-- is taken, so they are of a medicine.
with taken as (
  select distinct document_id from passages where heading ~* '\m(take|taking|doses?|dosage|side effects)\M'
),
said as (
  select title as text, true as titled, document_id in (select document_id from taken) as taken from documents
  union
  select heading, false, false from passages
)
select word, bool_or(titled) as titled, bool_or(taken) as taken
from said, regexp_split_to_table(lower(text), '[^[:alpha:]]+') as word
where length(word) >= %(shortest)s
group by word;

-- name: frequent_words
-- Of these words those that stand in so many passages, in any form.
select word from unnest(%(words)s::text[]) as asked (word)
where exists (
  select from word_counts
  where word_counts.word = any(tsvector_to_array(to_tsvector('english', asked.word))) and passages >= %(passages)s
);

-- name: library_is_empty
-- Asked when nothing was found.
select not exists (select from documents) as empty;

-- name: token_rows
-- What the reranker compares: the passages' token vectors.
select document_id, ordinal, sentences, tokens, token_ends
from passages join unnest(%(documents)s::text[], %(ordinals)s::int[]) as wanted (document_id, ordinal)
using (document_id, ordinal);

-- name: encoder
-- Who made the vectors here; no row before the first ingest.
select encoder, dimensions from library;

-- name: claim_encoder
-- The first encoder to come stays.
insert into library (encoder, dimensions) values (%(encoder)s, %(dimensions)s)
on conflict do nothing
returning encoder;

-- name: change_encoder
-- Another may follow only when there are no documents.
update library set encoder = %(encoder)s, dimensions = %(dimensions)s
where (encoder, dimensions) is distinct from (%(encoder)s, %(dimensions)s) and not exists (select from documents)
returning encoder;

-- name: drop_vector_index
-- Of the encoder that was there before.
drop index if exists passage_vectors_nearest;

-- name: make_vector_index
-- Of a new encoder's dimension.
create index passage_vectors_nearest on passage_vectors
using hnsw ((embedding::halfvec({dimensions})) halfvec_cosine_ops) with (m = 16, ef_construction = 64);

-- name: known_documents
-- Which documents need no new encoding.
select document_id from documents join unnest(%(documents)s::text[], %(hashes)s::text[]) as read (document_id, content_hash)
using (document_id, content_hash);

-- name: put_document
-- New or changed. Locks the row, so that of two ingests of the same document one waits.
insert into documents (document_id, title, url, content_hash, encoder)
values (%(document_id)s, %(title)s, %(url)s, %(content_hash)s, %(encoder)s)
on conflict (document_id) do update
set title = excluded.title, url = excluded.url, content_hash = excluded.content_hash, encoder = excluded.encoder,
    ingested_at = now();

-- name: drop_passages
-- Before changed documents' passages are put in.
delete from passages where document_id = any(%(documents)s);

-- name: passage_ids
-- As many new ones as passages are to be put in.
select nextval(pg_get_serial_sequence('passages', 'passage_id')) as passage_id from generate_series(1, %(count)s);

-- name: put_passage
-- Its vector and its words follow.
insert into passages (passage_id, document_id, ordinal, heading, sentences, tokens, token_ends)
values (%(passage_id)s, %(document_id)s, %(ordinal)s, %(heading)s, %(sentences)s, %(tokens)s, %(token_ends)s);

-- name: put_vectors
-- One for each passage.
insert into passage_vectors (passage_id, embedding)
select passage_id, embedding::halfvec from unnest(%(ids)s::bigint[], %(embeddings)s::text[]) as made (passage_id, embedding);

-- name: put_words
-- BM25's share of each word. Words of title and heading count for more; passages are cut to like lengths, so that the
-- average is a constant here and no passage's weights change when others come.
insert into postings (word, passage_id, weight)
select lexeme, passage_id,
       times * (%(k1)s + 1) / (times + %(k1)s * (1 - %(b)s + %(b)s * sum(times) over (partition by passage_id) / %(average)s))
from (
  select passage_id, lexeme, sum(counted) as times
  from (
    select passage_id, lexeme, cardinality(positions)::float8 as counted
    from unnest(%(ids)s::bigint[], %(texts)s::text[]) as said (passage_id, text)
    cross join unnest(to_tsvector('english', text)) as word
    union all
    select passage_id, lexeme, cardinality(positions) * %(title_weight)s::float8
    from unnest(%(ids)s::bigint[], %(titles)s::text[]) as titled (passage_id, title)
    cross join unnest(to_tsvector('english', title)) as word
  ) as every_word
  group by passage_id, lexeme
) as counted_words;

-- name: remove_document
-- With all that was made of it.
delete from documents where document_id = %(document_id)s;

-- name: clear_documents
-- All of them, at once.
truncate documents, passages, passage_vectors, postings;

-- name: vacuum_library
-- Removed passages leave the indexes, past which every search would otherwise have to go on. No transaction may be open.
vacuum (analyze) documents, passages, passage_vectors, postings, word_counts;

-- name: library_now
-- The passages there are, and those that word_counts knows.
select count(*) as passages, coalesce(max(passage_id), 0) as last,
       (select counted_passages from library) as counted_passages, (select counted_last from library) as counted_last
from passages;

-- name: lock_word_counts
-- One refresh at a time; searches read on.
lock table word_counts in share row exclusive mode;

-- name: clear_word_counts
-- In the transaction of the refresh.
delete from word_counts;

-- name: count_words
-- Counts every word's passages anew.
insert into word_counts (word, passages) select word, count(*) from postings group by word;

-- name: remember_count
-- What has been counted.
update library set counted_passages = %(passages)s, counted_last = %(last)s;
