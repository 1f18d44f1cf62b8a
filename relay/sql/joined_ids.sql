-- Reads the transactional ids of the sessions that joined in this incarnation of the database.
-- $1 deployment, $2 incarnation. One row; null if the database has another incarnation.
select case
    when annals.incarnation() = $2 then array(
        select unnest(s.transactional_ids) from annals.relay_sessions s where s.deployment = $1 and s.incarnation = $2
    )
end as transactional_ids
