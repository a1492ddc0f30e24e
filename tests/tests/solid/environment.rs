//! Hosts on which something is missing, full, read-only or taken.
