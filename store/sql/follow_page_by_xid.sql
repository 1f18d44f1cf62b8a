-- A page of the late events of a window, whose positions are below its start, in position order,
-- found by transaction id.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position to start after, $8 event types (null: all), $9 category (null:
-- all), $10 maximum number of rows, $11 maximum number of payload bytes, which the last row can
-- exceed; $12 next transaction id at its start.
-- Fewer rows and bytes than the limits: the last page.
-- They are first found by their transactions alone: with conditions on positions, a limit or an
-- order, the planner can scan all positions instead.
-- Rows of a transaction that was still running at the window's end are not read, however many there
-- are. Transaction ids of another history do not say whether it was running.
select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from (
    select
        page.*,
        sum(octet_length(payload)) over (order by position rows unbounded preceding) - octet_length(payload) as bytes_before
    from (
        with of_transactions as materialized (
            select o.position, o.xid from annals.outbox o
            where o.xid = any (array(
                    select x.xid from pg_snapshot_xip($1::pg_snapshot) x (xid)
                    where $3::bigint <> $6::bigint or pg_visible_in_snapshot(x.xid, $4::pg_snapshot)
                ))
                or o.xid >= pg_snapshot_xmax($1::pg_snapshot) and o.xid < (
                    select case
                        when $3::bigint <> $6::bigint then $12::text::xid8 else least($12::text::xid8, pg_snapshot_xmax($4::pg_snapshot))
                    end
                )
        )
        select
            e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at, e.payload, e.metadata,
            e.headers
        from of_transactions o
        cross join lateral (
            -- `offset 0` keeps this a lookup by key, for any table statistics at planning time.
            select * from annals.events e where e.position = o.position offset 0
        ) e
        where not annals.is_visible_at(o.position, o.xid, $1::pg_snapshot, $2, $3)
        and annals.is_visible_at(o.position, o.xid, $4::pg_snapshot, $5, $6)
        and o.position <= $2 and o.position > $7
        and ($9::text is null or e.category = $9) and ($8::text[] is null or e.event_type = any ((select $8)::text[]))
        order by o.position
        limit $10
    ) page
) page
where bytes_before < $11
order by position
