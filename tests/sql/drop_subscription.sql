-- Gets nothing more from the source.
drop subscription everything
