-- The epoch of the wrapping key.
select epoch from annals.personal_wrapping where is_only
