//! Clients that send nonsense, too much, too slowly, or leave.
