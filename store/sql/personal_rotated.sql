-- Notes that the provider has a new wrapping key; the new epoch.
select annals.personal_rotated()
