-- Creates the read model: one row a flight, one row an aircraft. Without parameters, returns no rows.
create schema if not exists flights_read_model;

create table if not exists flights_read_model.flights (
    stream text collate "C" primary key,
    carrier text not null,
    flight_number int not null,
    origin text not null,
    destination text not null,
    tail_number text,
    scheduled_departure timestamptz not null,
    distance_miles int not null,
    is_cancelled boolean not null default false,
    departed_at timestamptz,
    departure_delay_minutes int,
    arrival_delay_minutes int,
    air_time_minutes int
) with (fillfactor = 50);

create table if not exists flights_read_model.aircraft (
    tail_number text collate "C" primary key,
    legs bigint not null,
    miles bigint not null,
    air_time_minutes bigint not null
) with (fillfactor = 50);
