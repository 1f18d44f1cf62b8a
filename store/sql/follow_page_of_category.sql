-- A page of a category's part of a window, in position order, found by position.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position to start after, $8 event types (null: all), $9 category, $10
-- maximum number of rows, $11 maximum number of payload bytes, which the last row can exceed.
-- Fewer rows and bytes than the limits: the last page.
-- With the row comparison the planner can only use the index with this order; with an equality it
-- can scan all positions instead. The types are in a subselect, so that it does not sort for a rare
-- one.
select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from (
    select
        page.*,
        sum(octet_length(payload)) over (order by category, position rows unbounded preceding) - octet_length(payload) as bytes_before
    from (
        select
            category, position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata,
            headers
        from annals.events
        where (category, position) > ($9, $7) and (category, position) <= ($9, $5)
        and (position <= $6 or pg_visible_in_snapshot(xid, (select $4::pg_snapshot)))
        and (position > $2 or position > $3 and not pg_visible_in_snapshot(xid, (select $1::pg_snapshot)))
        and ($8::text[] is null or event_type = any ((select $8)::text[]))
        order by category, position
        limit $10
    ) page
) page
where bytes_before < $11
order by category, position
