-- Gives the transaction an id, as its first write would: from here on it holds back all sessions
-- that wait for all older transactions. Always one row.
select pg_current_xact_id()::text
