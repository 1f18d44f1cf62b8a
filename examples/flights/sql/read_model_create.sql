-- Creates the read model: one row a flight, one row an aircraft. Without parameters, returns no
-- rows.
create schema flights_read_model;

create table flights_read_model.flights (
    stream text collate "C" primary key,
    carrier text not null,
    destination text not null,
    is_cancelled boolean not null default false,
    departure_delay_minutes int,
    arrival_delay_minutes int
) with (fillfactor = 50);

create table flights_read_model.aircraft (
    tail_number text collate "C" primary key,
    legs bigint not null,
    miles bigint not null,
    air_time_minutes bigint not null
) with (fillfactor = 50);
