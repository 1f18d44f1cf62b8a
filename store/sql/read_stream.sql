-- Reads a page of a stream forwards.
-- $1 stream, $2 version to start after, $3 maximum number of scanned events, $4 event types (null:
-- all), $5 earliest time of recording (null: any), $6 maximum number of scanned payload bytes,
-- which the last event can exceed.
-- One row for each matching event, and one for the last event of the page, matching or not: the
-- next page starts there. `number` counts the present events from 1; missing versions were removed.
-- `is_end`: no event follows within the maximum number.
-- One row without an event: the stream has no later one.
-- No row: there is no such stream.
-- A page counts present events, not versions, so that it does not end at removed events. The limit
-- applies before types and times: the cost of a page does not depend on their frequency.
-- With the row comparison the planner can only use the index with this order.
select
    greatest(s.version_min, (
        select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
    )) as stream_version,
    e.number, e.is_match, e.is_end,
    e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at, e.payload, e.metadata, e.headers
from annals.streams s
left join lateral (
    select *
    from (
        select
            page.*, row_number() over by_version as number,
            lead(page.version) over by_version is null as is_end,
            sum(octet_length(page.payload)) over (by_version rows unbounded preceding) as bytes,
            ($4::text[] is null or page.event_type = any ($4::text[]))
            and ($5::timestamptz is null or page.recorded_at >= $5) as is_match
        from (
            select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
            from annals.events
            where (stream, version) > ($1, $2) and stream <= $1
            order by stream, version
            limit $3
        ) page
        window by_version as (order by page.stream, page.version)
    ) numbered
    where bytes - octet_length(payload) < $6 and (is_match or is_end or bytes >= $6)
) e on true
where s.name = $1
order by e.version
