-- Run once by a superuser in Pulseline's database, before the first `pulseline migrate`, with psql:
--   psql -v owner_password=… -v app_password=… -f roles.sql
-- pulseline_owner migrates and owns all tables. pulseline_app is what replicas and workers log in as: it reads and writes
-- rows, and can neither alter nor create nor drop anything.
\set ON_ERROR_STOP on
begin;
create role pulseline_owner login password :'owner_password';
create role pulseline_app login password :'app_password';

create extension if not exists vector;
revoke create on schema public from public;
grant usage, create on schema public to pulseline_owner;
grant usage on schema public to pulseline_app;
revoke connect, temporary on database :"DBNAME" from public;
grant connect on database :"DBNAME" to pulseline_owner, pulseline_app;

-- What the owner will make, the app may use.
alter default privileges for role pulseline_owner in schema public
  grant select, insert, update, delete on tables to pulseline_app;
alter default privileges for role pulseline_owner in schema public
  grant usage, select on sequences to pulseline_app;

-- No statement of a replica takes long, and none may hold a lock while its process is gone.
alter role pulseline_app set statement_timeout = '30s';
alter role pulseline_app set idle_in_transaction_session_timeout = '30s';
-- A migration gives up instead of making every replica wait behind its lock.
alter role pulseline_owner set lock_timeout = '5s';
commit;
