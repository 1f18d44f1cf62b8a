-- Records that a publication's topics are released. $1 publication, $2 reason. An error while one
-- of its relays runs.
select annals.relay_release_topics($1, $2)
