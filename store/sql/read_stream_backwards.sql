-- Reads a page of a stream backwards.
-- $1 stream, $2 version before which to begin, $3 most events to look at,
-- $4 event types (null: all), $5 earliest time of recording (null: any).
-- A row for each event asked for, and one for the last event of the page, `is_asked` or not: the next page begins
-- before it. `place` numbers the events that are there, from 1; versions that it leaves out were removed.
-- One row without an event: the stream has no earlier one. No row: there is no such stream.
-- Pages go by the events that are there and not by their versions, so that none ends at a hole. The limit stands before
-- types and times: however rare these are, a page costs what a page has. The comparison of rows leaves the planner only
-- the index that has this order.
select
    s.version as stream_version, e.place, e.is_asked,
    e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at, e.payload, e.metadata, e.headers
from annals.streams s
left join lateral (
    select *
    from (
        select
            page.*, row_number() over by_version as place, lead(page.version) over by_version is null as is_last,
            ($4::text[] is null or page.event_type = any ($4::text[]))
            and ($5::timestamptz is null or page.recorded_at >= $5) as is_asked
        from (
            select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
            from annals.events
            where (stream, version) < ($1, $2) and stream >= $1
            order by stream desc, version desc
            limit $3
        ) page
        window by_version as (order by page.stream desc, page.version desc)
    ) seen
    where is_asked or is_last
) e on true
where s.name = $1
order by e.version desc
