-- Retention looks for the sessions in which nothing was asked for longest, whoever owns them.
-- brief: one row for each conversation
create index sessions_expirable on sessions (updated_at) where deleted_at is null;
