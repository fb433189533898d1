-- name: search
-- The passages nearest to a question: by meaning (exact cosine distance) and by words, the places in both fused.
-- Words: passages with every word of the question first; then by the question's rarest words, each weighted by how
-- rare it is. (All words joined by OR rank badly and slowly; all by AND find nothing for most of what people write.)
with question as (
  select to_tsvector('english', %(question)s) as words, plainto_tsquery('english', %(question)s) as every_word
),
dense as (
  select document_id, ordinal, row_number() over (order by distance, document_id, ordinal) as place
  from (
    select document_id, ordinal, embedding <=> %(vector)s::vector as distance
    from passages order by distance limit %(leg)s
  ) as nearest
),
rare as (
  select ('''' || replace(replace(counts.word, '\', '\\'), '''', '''''') || '''')::tsquery as query,
         ln(1 + everything.passages::float8 / counts.passages) as weight
  from question
  cross join unnest(tsvector_to_array(question.words)) as asked (word)
  join word_counts as counts on counts.word = asked.word
  cross join (select count(*) as passages from passages) as everything
  order by counts.passages, counts.word
  limit %(rare_words)s
),
lexical as (
  select document_id, ordinal, row_number() over (order by complete desc, weight desc, document_id, ordinal) as place
  from (
    select p.document_id, p.ordinal, bool_or(p.words @@ question.every_word) as complete,
           sum(rare.weight * ts_rank('{0.1, 0.2, 0.4, 1.0}', p.words, rare.query, 1)) as weight
    from rare join passages as p on p.words @@ rare.query cross join question
    group by p.document_id, p.ordinal
    order by complete desc, weight desc limit %(leg)s
  ) as matching
),
fused as (
  select document_id, ordinal,
         coalesce(%(dense_weight)s / (%(rank_constant)s + dense.place), 0)
         + coalesce(%(lexical_weight)s / (%(rank_constant)s + lexical.place), 0) as score
  from dense full join lexical using (document_id, ordinal)
  order by score desc, document_id, ordinal limit %(leg)s
)
select document_id, ordinal, d.title, d.url, p.heading, p.sentences,
       1 - (p.embedding <=> %(vector)s::vector) as cosine
from fused join passages as p using (document_id, ordinal) join documents as d using (document_id)
order by fused.score desc, document_id, ordinal;

-- name: token_rows
-- What the reranker compares: the passages' token vectors.
select document_id, ordinal, sentences, tokens, token_ends
from passages join unnest(%(documents)s::text[], %(ordinals)s::int[]) as wanted (document_id, ordinal)
using (document_id, ordinal);

-- name: encoder
-- Who made the vectors here; no row before the first ingest.
select name from encoder;

-- name: claim_encoder
-- The first encoder to come stays; another may follow only when there are no passages.
insert into encoder (name, dimensions) values (%(name)s, %(dimensions)s)
on conflict (only_one) do update set name = excluded.name, dimensions = excluded.dimensions
where not exists (select from passages);

-- name: known_documents
-- Which documents need no new encoding.
select document_id from documents join unnest(%(documents)s::text[], %(hashes)s::text[]) as read (document_id, content_hash)
using (document_id, content_hash);

-- name: put_document
-- New or changed. Locks the row, so that of two ingests of the same document one waits.
insert into documents (document_id, title, url, content_hash)
values (%(document_id)s, %(title)s, %(url)s, %(content_hash)s)
on conflict (document_id) do update
set title = excluded.title, url = excluded.url, content_hash = excluded.content_hash, ingested_at = now();

-- name: drop_passages
-- Before a changed document's passages are put in.
delete from passages where document_id = %(document_id)s;

-- name: put_passage
-- Title and heading weigh more than the text.
insert into passages (document_id, ordinal, heading, sentences, words, encoder, embedding, tokens, token_ends)
values (
  %(document_id)s, %(ordinal)s, %(heading)s, %(sentences)s,
  setweight(to_tsvector('english', %(title)s || ' ' || %(heading)s), 'A') || to_tsvector('english', %(text)s),
  %(encoder)s, %(embedding)s::vector, %(tokens)s, %(token_ends)s
);

-- name: lock_word_counts
-- One refresh at a time; searches read on.
lock table word_counts in share row exclusive mode;

-- name: clear_word_counts
-- In the transaction of the refresh.
delete from word_counts;

-- name: count_words
-- Counts every word's passages anew.
insert into word_counts (word, passages) select word, ndoc from ts_stat('select words from passages');
