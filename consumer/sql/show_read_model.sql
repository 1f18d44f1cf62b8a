-- Records the version of a read model that readers see. $1 projection, $2 version.
insert into annals_projections.annals_projection_shown (name, version)
values ($1, $2)
on conflict (name) do update set version = excluded.version
