//! `docker events`: a ring of the last events and a live feed.
