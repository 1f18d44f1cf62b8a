-- A rotation whose process ends before it wraps keys again.
select annals.personal_rotated()
